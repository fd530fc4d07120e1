import http from "node:http";

import { FaultProxy } from "./fault-proxy.js";

/**
 * Hark's page, with proxies that can break things between it and the services.
 *
 * The page is the one that hark serves; only its `config.json` names the proxies, and so does
 * its Content-Security-Policy.
 */
export class Front {
  #server;
  #page;
  chat;
  sse;

  static async start(hark) {
    const front = new Front();
    front.chat = await FaultProxy.start(hark.port("chat"));
    front.sse = await FaultProxy.start(hark.port("sse"));
    front.#page = hark.addresses.demo;
    const services = { chat: front.chat.address, sse: front.sse.address };
    front.#server = http.createServer(async (request, response) => {
      if (new URL(request.url, front.#page).pathname === "/config.json") {
        response.writeHead(200, { "content-type": "application/json" });
        return response.end(JSON.stringify(services));
      }
      try {
        const answer = await fetch(new URL(request.url, front.#page));
        const policy = answer.headers.get("content-security-policy") ?? "";
        response.writeHead(answer.status, {
          "content-type": answer.headers.get("content-type") ?? "text/plain",
          "content-security-policy": policy.replace(
            /connect-src [^;]*/,
            `connect-src 'self' ${services.chat} ${services.sse}`,
          ),
        });
        response.end(Buffer.from(await answer.arrayBuffer()));
      } catch {
        response.destroy();
      }
    });
    await new Promise((done) => front.#server.listen(0, "127.0.0.1", done));
    return front;
  }

  address(channel) {
    return `http://127.0.0.1:${this.#server.address().port}/?c=${channel}`;
  }

  /** The network between the page and both services goes away. */
  cut() {
    this.chat.cut();
    this.sse.cut();
  }

  heal() {
    this.chat.heal();
    this.sse.heal();
  }

  /** Hark was started again, on other ports. */
  redirect(hark) {
    this.#page = hark.addresses.demo;
    this.chat.redirect(hark.port("chat"));
    this.sse.redirect(hark.port("sse"));
  }

  async stop() {
    this.#server.closeAllConnections();
    await new Promise((done) => this.#server.close(done));
    await this.chat.stop();
    await this.sse.stop();
  }
}

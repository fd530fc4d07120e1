import http from "node:http";

/** A reverse proxy that breaks things when told to; it stands between a browser and a service. */
export class FaultProxy {
  #server;
  #port;
  #target;
  #cut = false;
  #sockets = new Set();
  #faults = [];
  #answers = new Map();
  #headers;

  /**
   * @param {number} target port on 127.0.0.1
   * @param {(headers: object) => object} [headers] changes those of every answer
   */
  static async start(target, headers = (same) => same) {
    const proxy = new FaultProxy();
    proxy.#target = target;
    proxy.#headers = headers;
    proxy.#server = http.createServer((request, response) => proxy.#pass(request, response));
    proxy.#server.on("connection", (socket) => {
      if (proxy.#cut) return socket.destroy();
      proxy.#sockets.add(socket);
      socket.on("close", () => proxy.#sockets.delete(socket));
    });
    await new Promise((done) => proxy.#server.listen(0, "127.0.0.1", done));
    proxy.#port = proxy.#server.address().port;
    return proxy;
  }

  get address() {
    return `http://127.0.0.1:${this.#port}`;
  }

  /** Breaks every connection, and refuses new ones. */
  cut() {
    this.#cut = true;
    this.drop();
  }

  /** Breaks every connection. */
  drop() {
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Lets every answer under way fall silent, without a word to either side. */
  silence() {
    for (const [answer, response] of this.#answers) answer.unpipe(response).resume();
  }

  heal() {
    this.#cut = false;
  }

  /** Sends what comes from now on to another port. */
  redirect(target) {
    this.#target = target;
  }

  /**
   * Treats the next request that fits badly.
   *
   * @param {(request: http.IncomingMessage) => boolean} fits
   * @param {{status?: number, headers?: object, body?: string, deaf?: boolean}} fault an answer in
   *   place of the service's; `deaf`: the service gets the request, its answer gets lost
   * @returns {Promise<void>} fulfilled when it has happened
   */
  once(fits, fault) {
    return new Promise((happened) => this.#faults.push({ fits, fault, happened }));
  }

  async stop() {
    this.drop();
    await new Promise((done) => this.#server.close(done));
  }

  #pass(request, response) {
    const place = this.#faults.findIndex(({ fits }) => fits(request));
    const [hit] = place < 0 ? [] : this.#faults.splice(place, 1);
    if (hit && !hit.fault.deaf) {
      request.resume();
      response.writeHead(hit.fault.status, hit.fault.headers);
      response.end(hit.fault.body ?? "");
      return hit.happened();
    }
    const { method, url, headers } = request;
    const onward = http.request({
      host: "127.0.0.1",
      port: this.#target,
      method,
      path: url,
      headers,
    });
    onward.on("response", (answer) => {
      if (hit) {
        answer.resume();
        request.socket.destroy();
        return hit.happened();
      }
      response.writeHead(answer.statusCode, this.#headers(answer.headers));
      response.flushHeaders();
      this.#answers.set(answer, response);
      answer.on("close", () => this.#answers.delete(answer));
      answer.pipe(response);
      answer.on("error", () => response.destroy());
    });
    onward.on("error", () => response.destroy());
    response.on("close", () => onward.destroy());
    request.pipe(onward);
  }
}

import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer as createHttpServer } from "node:http";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

const READY_WITHIN = 30_000;
const EXAMPLES = fileURLToPath(new URL("../../../../deploy/examples/", import.meta.url));

/** Broker, chat-service and broadcast-sse as processes of their own, with proxies in front of them. */
export class Services {
  #folder;
  #broker;
  #chat;
  #sse;
  #sseEnvironment;
  #proxies = [];
  #page;

  static async start() {
    const services = new Services();
    services.#folder = await mkdtemp(path.join(tmpdir(), "hark-services-"));
    try {
      await services.#start();
    } catch (error) {
      await services.stop();
      throw error;
    }
    return services;
  }

  async #start() {
    this.#broker = await workspaceProgram("broker", {});
    const mqtt = this.#broker.addresses.mqtt;
    const store = path.join(this.#folder, "store");
    this.#chat = await workspaceProgram("chat-service", {
      HARK_MQTT__URL: mqtt,
      HARK_STORE__DIR: store,
    });
    // The proxies must find it again.
    this.#sseEnvironment = {
      HARK_LISTEN: `127.0.0.1:${await freePort()}`,
      HARK_MQTT__URL: mqtt,
      HARK_HISTORY__URL: this.#chat.addresses.chat,
    };
    await this.startSse();
  }

  async startSse() {
    this.#sse = await workspaceProgram("broadcast-sse", this.#sseEnvironment);
  }

  /** As a crash does. */
  async killSse() {
    await this.#sse.end("SIGKILL");
  }

  /** nginx by its example, without TLS; its URL. */
  async nginx() {
    const [example, port] = [await this.#example("nginx.conf"), await freePort()];
    const site = replaced(example, [
      ["listen 443 ssl http2;", `listen 127.0.0.1:${port};`],
      ["ssl_certificate ", "# "],
      ["ssl_certificate_key ", "# "],
    ]);
    const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
      .map((kind) => `${kind}_temp_path ${this.#folder}/${kind};`)
      .join("\n");
    const file = path.join(this.#folder, "nginx.conf");
    const main = `daemon off; master_process off; pid ${this.#folder}/nginx.pid; error_log stderr;`;
    await writeFile(file, `${main} events {} http { access_log off; ${temporary}\n${site} }`);
    return this.#proxy("nginx", ["-e", "stderr", "-c", file], port);
  }

  /** Caddy by its example, without TLS; its URL. */
  async caddy() {
    const [example, port] = [await this.#example("Caddyfile"), await freePort()];
    const address = `http://127.0.0.1:${port}`;
    const site = replaced(example, [["\nchat.example.org {", `\n${address} {\n\tbind 127.0.0.1`]]);
    const file = path.join(this.#folder, "Caddyfile");
    await writeFile(file, `{\n\tadmin off\n}\n${site}`);
    return this.#proxy("caddy", ["run", "--adapter", "caddyfile", "--config", file], port);
  }

  async #example(name) {
    const example = await readFile(path.join(EXAMPLES, name), "utf8");
    return replaced(example, [
      ["127.0.0.1:8080", new URL(this.#chat.addresses.chat).host],
      ["127.0.0.1:8081", this.#sseEnvironment.HARK_LISTEN],
    ]);
  }

  async #proxy(program, args, port) {
    const environment = { HOME: this.#folder, XDG_CONFIG_HOME: this.#folder };
    const url = `http://127.0.0.1:${port}`;
    const started = new Program(program, args, environment);
    this.#proxies.push(started);
    await started.until(async () => (await fetch(`${url}/channels/x`)).status === 400);
    return url;
  }

  /** A page of its own origin; its URL. */
  async page(html) {
    this.#page = createHttpServer((_, answer) => {
      answer.setHeader("content-type", "text/html").end(html);
    });
    await new Promise((done) => this.#page.listen(0, "127.0.0.1", done));
    return `http://127.0.0.1:${this.#page.address().port}/`;
  }

  async post(channel, text) {
    const url = `${this.#chat.addresses.chat.replace(/\/$/, "")}/channels/${channel}/messages`;
    const answer = await fetch(url, { method: "POST", body: text });
    if (!answer.ok) throw new Error(`post: ${answer.status} ${await answer.text()}`);
  }

  async stop() {
    this.#page?.close();
    this.#page?.closeAllConnections();
    const all = [...this.#proxies, this.#sse, this.#chat, this.#broker];
    for (const program of all) await program?.end("SIGKILL");
    await rm(this.#folder, { recursive: true, force: true });
  }
}

/** A program that runs until it is ended. */
class Program {
  #process;
  #output = "";
  addresses = {};

  constructor(program, args, environment) {
    const own = Object.entries(process.env).filter(([name]) => !name.startsWith("HARK_"));
    const env = { ...Object.fromEntries(own), ...environment };
    this.#process = spawn(program, args, { env, stdio: ["ignore", "pipe", "pipe"] });
    this.#process.once("error", (error) => (this.#output += error.message));
    for (const output of [this.#process.stdout, this.#process.stderr])
      output.on("data", (text) => (this.#output += text));
    // A test that is cut off must not leave it running.
    const kill = () => this.#process.kill("SIGKILL");
    process.once("exit", kill);
    this.#process.once("exit", () => process.off("exit", kill));
  }

  /** Waits until it is as it should be; a check that throws is one that failed. */
  async until(check) {
    for (const end = Date.now() + READY_WITHIN; Date.now() < end; ) {
      if (this.#process.exitCode !== null) break;
      if (await Promise.resolve(this.#output).then(check).catch(() => false)) return;
      await new Promise((done) => setTimeout(done, 50));
    }
    throw new Error(`${this.#process.spawnfile} is not ready:\n${this.#output}`);
  }

  async end(signal) {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const ended = new Promise((done) => this.#process.once("exit", done));
    this.#process.kill(signal);
    await ended;
  }
}

/** One of the workspace's programs, which lie beside `hark`, when it is ready. */
async function workspaceProgram(name, environment) {
  const file = path.join(path.dirname(process.env.HARK_BIN ?? ""), name);
  const listeners = { HARK_LISTEN: "127.0.0.1:0", HARK_OPERATIONS__LISTEN: "127.0.0.1:0" };
  const program = new Program(file, [], { ...listeners, ...environment });
  await program.until((output) => {
    const lines = output.split("\n");
    for (const line of lines) {
      const [name, address] = line.split(" ");
      if (address?.includes("://")) program.addresses[name] ??= address;
    }
    return lines.includes("ready");
  });
  return program;
}

function replaced(text, pairs) {
  for (const [from, to] of pairs) {
    if (!text.includes(from)) throw new Error(`the example has no ${JSON.stringify(from)}`);
    text = text.replaceAll(from, to);
  }
  return text;
}

function freePort() {
  return new Promise((done, fail) => {
    const server = createServer().once("error", fail);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });
}

import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer as createHttpServer, get as getPlain } from "node:http";
import { get as getByTls } from "node:https";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";

import { caddy, nginx } from "./proxies.js";

const READY_WITHIN = 30_000;

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

  /** nginx by its example, with the page; its URL. See {@link nginx} for the options. */
  async nginx(options) {
    return this.#proxy(nginx, options);
  }

  /** Caddy in the same way. */
  async caddy(options) {
    return this.#proxy(caddy, options);
  }

  async #proxy(kind, options = {}) {
    const folder = await mkdtemp(path.join(this.#folder, "proxy-"));
    const { program, args, url } = await kind({
      folder,
      port: await freePort(),
      inner: await freePort(),
      chat: new URL(this.#chat.addresses.chat).host,
      sse: this.#sseEnvironment.HARK_LISTEN,
      ...options,
    });
    const home = { HOME: folder, XDG_CONFIG_HOME: folder, XDG_DATA_HOME: folder };
    const started = new Program(program, args, home);
    this.#proxies.push(started);
    await started.until(async () => (await status(`${url}channels/x`)) === 400);
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
  #trouble = null;
  addresses = {};

  constructor(program, args, environment) {
    const own = Object.entries(process.env).filter(([name]) => !name.startsWith("HARK_"));
    const env = { ...Object.fromEntries(own), ...environment };
    this.#process = spawn(program, args, { env, stdio: ["ignore", "pipe", "pipe"] });
    this.#process.once("error", ({ code, message }) => {
      const missing = code === "ENOENT" && !path.isAbsolute(program);
      this.#trouble = missing ? `${program} is missing: apt-get install ${program}` : message;
    });
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
      if (this.#trouble) throw new Error(this.#trouble);
      if (this.#process.exitCode !== null) break;
      if (await Promise.resolve(this.#output).then(check).catch(() => false)) return;
      await new Promise((done) => setTimeout(done, 50));
    }
    throw new Error(`${this.#process.spawnfile} is not ready:\n${this.#output}`);
  }

  async end(signal) {
    const { exitCode, signalCode } = this.#process;
    if (this.#trouble || exitCode !== null || signalCode !== null) return;
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

function freePort() {
  return new Promise((done, fail) => {
    const server = createServer().once("error", fail);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });
}

/** The status of an answer, whoever signed the certificate. */
function status(url) {
  const get = url.startsWith("https:") ? getByTls : getPlain;
  return new Promise((done, fail) => {
    const asked = get(url, { rejectUnauthorized: false, agent: false }, (answer) => {
      answer.resume();
      done(answer.statusCode);
    });
    asked.once("error", fail);
  });
}

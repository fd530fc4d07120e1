import { execFile, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";

const READY_WITHIN = 30_000;
const STOPPED_WITHIN = 20_000;

/** Settings with which a channel keeps its newest ten messages. */
export const KEEP_TEN = { HARK_CHAT_SERVICE__STORE__MAX_PER_CHANNEL: "10" };

/** The `hark` command, running everything on free ports, in a data folder of its own. */
export class Hark {
  #process = null;
  #output = "";
  #environment;
  #host;
  data = null;
  /** name → address, as printed: `chat`, `sse`, `demo`, `mqtt`, `ops` */
  addresses = {};

  /**
   * @param {object} [options]
   * @param {Record<string, string>} [options.environment] settings, `HARK_…`
   * @param {string} [options.host] where it listens
   */
  static async start({ environment = {}, host = "127.0.0.1" } = {}) {
    const hark = new Hark();
    hark.#environment = environment;
    hark.#host = host;
    program();
    hark.data = await mkdtemp(path.join(tmpdir(), "hark-browser-"));
    try {
      await hark.start();
    } catch (error) {
      await hark.remove();
      throw error;
    }
    return hark;
  }

  /** Starts it on its data folder; the ports are others than before, or the `same`. */
  async start({ same = false } = {}) {
    const listeners = ["chat", "sse", "demo", "mqtt", "ops"].flatMap((name) => [
      `--${name}`,
      `${["chat", "sse", "demo"].includes(name) ? this.#host : "127.0.0.1"}:${same ? this.port(name) : 0}`,
    ]);
    this.#output = "";
    this.addresses = {};
    this.#process = spawn(program(), ["up", "--data", this.data, ...listeners], {
      env: { ...withoutSettings(process.env), ...this.#environment },
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#process.stderr.on("data", (text) => (this.#output += text));
    // A test that is cut off must not leave it running.
    const child = this.#process;
    const kill = () => child.kill("SIGKILL");
    process.once("exit", kill);
    child.once("exit", () => process.off("exit", kill));
    await this.#ready();
  }

  #ready() {
    return new Promise((done, fail) => {
      const give = (words) => {
        clearTimeout(timer);
        fail(new Error(`hark ${words}\n${this.#output}`));
      };
      const timer = setTimeout(() => give(`was not ready in ${READY_WITHIN} ms`), READY_WITHIN);
      this.#process.once("exit", (code, signal) => give(`ended: ${code ?? signal}`));
      this.#process.once("error", (error) => give(error.message));
      let rest = "";
      this.#process.stdout.on("data", (text) => {
        this.#output += text;
        const lines = (rest + text).split("\n");
        rest = lines.pop();
        for (const line of lines) {
          const [name, address] = line.split(" ");
          if (address) this.addresses[name] = address;
          if (line === "ready") (clearTimeout(timer), done());
        }
      });
    });
  }

  /** Stops it in an orderly way; the data folder stays. */
  async stop() {
    const child = this.#process;
    this.#process = null;
    if (!child || child.exitCode !== null) return;
    const ended = new Promise((done) => child.once("exit", done));
    const timer = setTimeout(() => child.kill("SIGKILL"), STOPPED_WITHIN);
    child.kill("SIGTERM");
    await ended;
    clearTimeout(timer);
  }

  async remove() {
    await this.stop();
    await rm(this.data, { recursive: true, force: true });
    await rm(this.#backup, { recursive: true, force: true });
  }

  /** Copies the data folder away; it must be stopped. */
  async backUp() {
    await cp(this.data, this.#backup, { recursive: true });
  }

  /** Puts the copy back, and says so to hark as an operator has to; it must be stopped. */
  async restore() {
    await rm(this.data, { recursive: true });
    await cp(this.#backup, this.data, { recursive: true });
    await promisify(execFile)(program(), ["new-epoch", "--data", this.data], {
      env: withoutSettings(process.env),
    });
  }

  get #backup() {
    return `${this.data}.backup`;
  }

  /** The port of one of its listeners. */
  port(name) {
    return Number(new URL(this.addresses[name]).port);
  }

  /** Posts as somebody who is not in the browser. */
  async post(channel, text, name = "Ada", more = {}) {
    const answer = await fetch(this.#messages(channel), {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ text, from: { id: name.toLowerCase(), name }, ...more }),
    });
    if (!answer.ok) throw new Error(`post: ${answer.status} ${await answer.text()}`);
    return answer.json();
  }

  /** Everything that the channel's log has. */
  async log(channel) {
    const answer = await fetch(`${this.#messages(channel)}?after=0&limit=1000`);
    if (!answer.ok) throw new Error(`history: ${answer.status} ${await answer.text()}`);
    return answer.json();
  }

  #messages(channel) {
    return `http://127.0.0.1:${this.port("chat")}/channels/${channel}/messages`;
  }
}

function program() {
  const program = process.env.HARK_BIN;
  if (program && existsSync(program)) return program;
  throw new Error(
    `HARK_BIN must be the path of a built hark (cargo build, then target/debug/hark); it is ${program ?? "not set"}`,
  );
}

/** `HARK_…` are settings to hark, `HARK_BIN` and whatever the developer has set among them. */
function withoutSettings(environment) {
  return Object.fromEntries(
    Object.entries(environment).filter(([name]) => !name.startsWith("HARK_")),
  );
}

/**
 * How many tabs of this browser hold a stream to one server.
 *
 * Over HTTP/1.1 a browser opens at most six connections to a server, for all tabs together, and
 * a stream keeps one for good. The seventh tab gets no error: its request just waits. Asking the
 * other tabs is the only way to tell that from a server that does not answer.
 */
export class TabCount {
  #room = null;
  #host;
  #id = Math.random().toString(36).slice(2);
  #answers = null;
  #holds;

  /**
   * @param {string} host the server, as `new URL(…).host` gives it
   * @param {() => boolean} holds whether this tab holds a stream at the moment
   */
  constructor(host, holds) {
    this.#host = host;
    this.#holds = holds;
  }

  /** Begins to answer the other tabs. */
  start() {
    if (this.#room || typeof BroadcastChannel === "undefined") return;
    this.#room = new BroadcastChannel("hark-streams");
    this.#room.onmessage = ({ data }) => {
      if (data?.host !== this.#host) return;
      if (data.kind === "who" && this.#holds()) {
        this.#room.postMessage({ kind: "here", host: this.#host, to: data.by, by: this.#id });
      } else if (data.kind === "here" && data.to === this.#id) {
        this.#answers?.add(data.by);
      }
    };
  }

  stop() {
    this.#room?.close();
    this.#room = null;
  }

  /** Asks, and counts who answered within `wait` milliseconds; `null` where tabs cannot talk. */
  async count(wait = 500) {
    if (!this.#room) return null;
    const answers = (this.#answers = new Set());
    this.#room.postMessage({ kind: "who", host: this.#host, by: this.#id });
    await new Promise((done) => setTimeout(done, wait));
    return answers.size;
  }
}

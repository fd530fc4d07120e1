/**
 * What the tabs of this browser tell each other about their streams to one server.
 *
 * Over HTTP/1.1 a browser opens at most six connections to a server, for all tabs together, and a
 * stream keeps one for good. One more tab gets no error: its request just waits. So a tab that is
 * looked at asks the others, and of those that nobody looks at, the one left alone for longest
 * gives its stream away. No tab leads, nothing is stored: a tab that is closed, frozen or gone
 * does not answer, and is not counted.
 */
export class Tabs {
  #room = null;
  #host;
  #id = Math.random().toString(36).slice(2);
  #answers = null;
  #own;
  #give;

  /**
   * @param {string} host the server, as `new URL(…).host` gives it
   * @param {() => {open: boolean, hidden: number | null} | null} own this tab's stream, if it has
   *   one: whether the server has answered, and for how many milliseconds nobody has looked at it
   * @param {() => void} give ends this tab's stream, for another tab
   */
  constructor(host, own, give) {
    this.#host = host;
    this.#own = own;
    this.#give = give;
  }

  /** Begins to answer the other tabs. */
  start() {
    if (this.#room || typeof BroadcastChannel === "undefined") return;
    this.#room = new BroadcastChannel("hark-streams");
    this.#room.onmessage = ({ data }) => {
      if (data?.host !== this.#host) return;
      const own = this.#own();
      if (data.kind === "who" && own) this.#say({ kind: "here", to: data.by, ...own });
      if (data.kind === "here" && data.to === this.#id) this.#answers?.set(data.by, data);
      if (data.kind === "give" && data.to === this.#id && own && own.hidden !== null) this.#give();
    };
  }

  stop() {
    this.#room?.close();
    this.#room = null;
  }

  /** How many other tabs have an open stream; `null` where tabs cannot talk. */
  async count() {
    const others = await this.#ask();
    return others && others.filter(({ open }) => open).length;
  }

  /**
   * Sees to it that at most `most` other tabs have a stream, as far as there are some that nobody
   * looks at. Gives how many are open then; `null` where tabs cannot talk.
   */
  async makeRoom(most) {
    const others = await this.#ask();
    if (!others) return null;
    const hidden = others.filter(({ hidden }) => hidden !== null);
    hidden.sort((one, other) => other.hidden - one.hidden);
    const open = others.filter(({ open }) => open).length;
    const given = hidden.slice(0, Math.max(0, others.length - most));
    for (const { by } of given) this.#say({ kind: "give", to: by });
    return open - given.filter(({ open }) => open).length;
  }

  /** Who answers within `wait` milliseconds. */
  async #ask(wait = 500) {
    if (!this.#room) return null;
    const answers = (this.#answers = new Map());
    this.#say({ kind: "who" });
    await new Promise((done) => setTimeout(done, wait));
    return [...answers.values()];
  }

  #say(message) {
    this.#room?.postMessage({ ...message, host: this.#host, by: this.#id });
  }
}

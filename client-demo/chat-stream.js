import { backoff } from "./chat-backoff.js";
import { Problem } from "./chat-problem.js";
import { Tabs } from "./chat-tabs.js";

/** A stream that is silent for this long is dead: two of the server's pings, and some leeway. */
export const SILENCE = 35_000;
/** After this much silence, one of the server's pings and some leeway, it is said that there is none. */
export const QUIET = 20_000;
/** How often the silence is measured. */
const LOOK_EVERY = 2_500;
/** A server that is there sends the response head at once; after this long something is wrong. */
const SLOW_AFTER = 4_000;
/** The connections that browsers open to one server over HTTP/1.1 (Chromium, Firefox, Safari). */
const CONNECTIONS = 6;
/** So many of them other tabs may have for streams: this one's makes five, and one is left for requests. */
const OTHER_STREAMS = 4;

/**
 * The browser's EventSource, kept alive.
 *
 * An EventSource reconnects by itself after most network errors, with `Last-Event-ID`. It gives
 * up for good after any status but 200 and, in Firefox, after a failed name look-up; and it
 * cannot see that a connection died without a word (a laptop that slept, a phone that changed
 * its network). In those cases this class opens another one, which continues at the same place
 * by `since=`.
 *
 * States, given to `on.state(state, detail)`:
 * - `connecting`: the first time; `detail.slow` if it takes suspiciously long
 * - `waiting`: other tabs use the browser's connections to the server; `detail.tabs` of them
 * - `paused`: nobody looks at this tab, and it gave its connection to one that is looked at
 * - `open`: the server answered and is sending what was missed
 * - `live`: all of that has come; what is posted from now on will arrive
 * - `quiet`: the connection stands, and a ping is missing
 * - `reconnecting`: lost; another try is on its way; `detail.slow` if that gets no answer
 * - `offline`: the browser says that there is no network
 * - `refused`: the server does not want this request; `detail.problem`; tried again once in a while
 * - `closed`: by `stop()`
 */
export class ChatStream {
  #options;
  #source = null;
  #cursor = null;
  #attempt = 0;
  #heard = 0;
  #state = "closed";
  #timers = new Set();
  #slow = null;
  #generation = 0;
  #tabs;
  #hiddenSince = null;
  #listening = new AbortController();

  /**
   * @param {object} options
   * @param {URL} options.url of the stream, with its channels as `c`
   * @param {number} options.last how many of each channel's newest events to begin with
   * @param {string[]} options.types event types to listen for, besides `message`
   * @param {object} options.on `event(message)`, `gap(message)`, `lost()`, `state(state, detail)`
   */
  constructor({ url, last, types, on }) {
    this.#options = { url, last, types, on };
    this.#tabs = new Tabs(
      url.host,
      () => this.#source && { open: this.#source.readyState === 1, hidden: this.#hiddenFor() },
      () => this.#pause(),
    );
  }

  get state() {
    return this.#state;
  }

  /** Whether a next connection goes on behind what the last one brought. */
  get hasCursor() {
    return this.#cursor !== null;
  }

  start() {
    this.stop();
    this.#attempt = 0;
    this.#tabs.start();
    this.#watchThePage();
    this.#open();
  }

  stop() {
    this.#listening.abort();
    this.#tabs.stop();
    this.#drop();
    this.#setState("closed");
  }

  /** Opens a new EventSource at once, in place of whatever is there. */
  #open() {
    this.#drop();
    const { last, types, on } = this.#options;
    const url = this.#address();
    const source = (this.#source = new EventSource(url));
    this.#setState(
      globalThis.navigator?.onLine === false
        ? "offline"
        : this.#cursor === null && this.#attempt === 0
          ? "connecting"
          : "reconnecting",
    );
    this.#askWhenSlow(source);
    this.#makeRoom(source);
    this.#heard = Date.now();

    let ready = false;
    const hear = (type, handle) =>
      source.addEventListener(type, (message) => {
        if (source !== this.#source) return; // replaced: what is still queued comes again
        this.#heard = Date.now();
        if (message.lastEventId) this.#cursor = message.lastEventId;
        // Whatever the browser thinks of the network, this came over it.
        if (["offline", "quiet"].includes(this.#state)) this.#setState(ready ? "live" : "open");
        handle(message);
      });
    hear("open", () => {
      ready = false;
      this.#setState("open");
    });
    hear("ready", () => {
      ready = true;
      this.#attempt = 0;
      this.#setState("live");
    });
    hear("ping", () => {});
    hear("gap", on.gap);
    for (const type of new Set(["message", ...types])) hear(type, on.event);
    source.addEventListener("error", () => {
      if (source === this.#source) this.#failed(source);
    });
    this.#every(LOOK_EVERY, () => this.#look());
  }

  #address() {
    const url = new URL(this.#options.url);
    if (this.#cursor !== null) url.searchParams.set("since", this.#cursor);
    else if (this.#options.last > 0) url.searchParams.set("last", this.#options.last);
    return url.href;
  }

  #failed(source) {
    this.#heard = Date.now();
    this.#setState(globalThis.navigator?.onLine === false ? "offline" : "reconnecting");
    if (source.readyState !== EventSource.CLOSED) {
      this.#askWhenSlow(source); // the browser tries again by itself
      return;
    }
    this.#drop();
    const attempt = this.#attempt++;
    // Once may be chance, a proxy that was just restarting; then it is worth knowing the status.
    this.#after(backoff(attempt), () => (attempt === 0 ? this.#open() : this.#askWhy()));
  }

  /** An EventSource does not tell the status that made it give up; a fetch of the same does. */
  async #askWhy() {
    const generation = this.#generation;
    const abort = new AbortController();
    this.#after(10_000, () => abort.abort());
    let problem = null;
    try {
      const headers = { accept: "text/event-stream" };
      const response = await fetch(this.#address(), { headers, signal: abort.signal });
      if (!response.ok) problem = await Problem.from(response);
    } catch {
      problem = Problem.unreachable();
    }
    abort.abort(); // the answer to a good request would never end
    if (generation !== this.#generation) return; // stopped or reopened while asking
    if (!problem) return this.#open();
    if (problem.passing) return this.#after(backoff(this.#attempt++), () => this.#askWhy());
    if (this.#cursor !== null && problem.status === 400) {
      // The place in the log is not understood any more; without it the request is a new one.
      this.#cursor = null;
      this.#options.on.lost();
      return this.#open();
    }
    this.#setState("refused", { problem });
    this.#after(backoff(this.#attempt++, { base: 30_000, cap: 300_000 }), () => this.#askWhy());
  }

  /** No answer for a while: is it the server, or the browser's own limit? */
  #askWhenSlow(source) {
    clearTimeout(this.#slow);
    this.#slow = this.#after(SLOW_AFTER, async () => {
      // Whatever protocol was expected: it does look as if the browser held the request back.
      const tabs = isHidden()
        ? await this.#tabs.count()
        : await this.#tabs.makeRoom(CONNECTIONS - 1);
      if (source !== this.#source || source.readyState !== 0) return;
      if (tabs !== null && tabs >= CONNECTIONS) this.#setState("waiting", { tabs });
      else if (this.#state === "connecting") this.#setState("connecting", { slow: true });
      else if (["waiting", "reconnecting"].includes(this.#state))
        this.#setState("reconnecting", { slow: true });
      this.#askWhenSlow(source);
    });
  }

  /** Over plain HTTP some connection must be left; by TLS there is HTTP/2, with room for all. */
  async #makeRoom(source) {
    if (this.#options.url.protocol !== "http:") return;
    if (!isHidden()) return void this.#tabs.makeRoom(OTHER_STREAMS);
    const tabs = await this.#tabs.count();
    if (tabs > OTHER_STREAMS && isHidden() && source === this.#source) this.#pause();
  }

  /** Goes without a stream until somebody looks at this tab. */
  #pause() {
    this.#drop();
    this.#setState("paused");
  }

  #hiddenFor() {
    return this.#hiddenSince === null ? null : Date.now() - this.#hiddenSince;
  }

  #look() {
    const now = Date.now();
    if (now < this.#heard) this.#heard = now; // the clock was set back
    if (this.#source?.readyState !== 1) return;
    const silence = now - this.#heard;
    if (silence > SILENCE) this.#open();
    else if (silence > QUIET && ["open", "live"].includes(this.#state)) this.#setState("quiet");
  }

  #watchThePage() {
    if (typeof window === "undefined") return;
    this.#listening = new AbortController();
    const { signal } = this.#listening;
    // A page that sleeps in the back/forward cache must not hold one of the six connections.
    window.addEventListener("pagehide", () => this.#drop(), { signal });
    window.addEventListener("pageshow", () => this.#source ?? this.#open(), { signal });
    const unlessPaused = (act) => () => this.#state === "paused" || act();
    window.addEventListener("offline", unlessPaused(() => this.#setState("offline")), { signal });
    window.addEventListener("online", unlessPaused(() => this.#soon()), { signal });
    // Nor one that the browser stops to save power: it could not even give it away.
    document.addEventListener("freeze", () => this.#pause(), { signal });
    document.addEventListener("resume", () => this.#wake(), { signal });
    this.#hiddenSince = isHidden() ? Date.now() : null;
    const seen = () => {
      this.#hiddenSince = isHidden() ? Date.now() : null;
      this.#wake();
    };
    document.addEventListener("visibilitychange", seen, { signal });
  }

  /** Someone looks at the page again: do not make them wait for a timer that slept. */
  #wake() {
    if (isHidden()) return;
    if (this.#state === "paused") return this.#open();
    if (this.#source) this.#makeRoom(this.#source);
    if (this.#state === "waiting") return;
    const quiet = Date.now() - this.#heard;
    if (this.#source?.readyState === 1 ? quiet > SILENCE / 2 : quiet > SLOW_AFTER) this.#soon();
  }

  /** Another network: a connection made over the old one is dead, even if it does not say so. */
  #soon() {
    this.#attempt = 0;
    this.#after(Math.random() * 500, () => this.#open());
  }

  #drop() {
    this.#generation += 1;
    for (const timer of this.#timers) (clearTimeout(timer), clearInterval(timer));
    this.#timers.clear();
    this.#source?.close();
    this.#source = null;
  }

  #setState(state, detail = {}) {
    if (state === this.#state && Object.keys(detail).length === 0) return;
    this.#state = state;
    this.#options.on.state(state, detail);
  }

  #after(delay, task) {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      task();
    }, delay);
    this.#timers.add(timer);
    return timer;
  }

  #every(delay, task) {
    this.#timers.add(setInterval(task, delay));
  }
}

function isHidden() {
  return globalThis.document?.visibilityState === "hidden";
}

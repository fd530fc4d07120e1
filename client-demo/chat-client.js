/**
 * A client for Hark in a browser: post messages, listen to channels, read history.
 *
 * Copy the `chat-*.js` files beside each other; there is no build step and nothing else is needed.
 *
 * ```js
 * import { ChatClient } from "./chat-client.js";
 *
 * const channel = "c3743620-8c0c-4b0b-8d3a-7a2f6b3f6b11"; // any UUID
 * const client = new ChatClient({
 *   chat: "http://localhost:8080",
 *   sse: "http://localhost:8081",
 *   channels: [channel],
 * });
 * client.addEventListener("event", ({ detail }) => console.log(detail.event.text));
 * client.connect();
 * client.post(channel, { text: "hello", from: { name: "Ada" } });
 * ```
 *
 * What it promises, as long as the page is open:
 * - every event of the channels is given once and in order, however often the connection breaks;
 *   where the server does not have them any more, there is a `gap` that says so;
 * - where the browser has no connection left for a stream, it is read by plain requests meanwhile;
 * - what is posted is sent until the server has it, once, in the order of posting; also after a
 *   reload of the page;
 * - it finds its way back by itself from everything that gets better by itself.
 */
import { CatchUp } from "./chat-catch-up.js";
import { Outbox, saysOffline } from "./chat-outbox.js";
import { Poll } from "./chat-poll.js";
import { Problem } from "./chat-problem.js";
import { Sequence } from "./chat-sequence.js";
import { ChatStream } from "./chat-stream.js";
import { isUuid, randomUuid, timeUuid } from "./chat-ids.js";

export { Problem, isUuid, randomUuid, timeUuid };

/** How long a page of history may take, in milliseconds. */
const HISTORY_TIMEOUT = 20_000;

/** What `ChatClient` dispatches: an `Event` with a `detail`. */
export class ChatEvent extends Event {
  constructor(type, detail) {
    super(type);
    this.detail = detail;
  }
}

/**
 * Events that it dispatches, with their `detail`:
 *
 * | name | detail | when |
 * |---|---|---|
 * | `event` | `{event, json}` | an event of a channel came: `{channel, epoch, seq, id, at, type, from, text, data}`; `json` is its text as sent, in which `data` keeps every digit (read by a plain request: as JavaScript writes it) |
 * | `gap` | `{channel, from, to, reason}` | events `from` to `to` will not come: `retention` (expired), `epoch` (the server was restored from a backup that lacks them), `damaged` (the server cannot read them any more), `cursor` (unknown how many: both are `null`) |
 * | `skipped` | `{channel, from, to}` | these numbers are events of types that nobody listens for (see `types`) |
 * | `status` | `{state, …}` | the connection changed; the states are those of {@link ChatStream} |
 * | `read` | | there is no stream, and what the server had was read by a plain request |
 * | `post` | `{post}` | an own post changed; see {@link Outbox} |
 */
export class ChatClient extends EventTarget {
  #chat;
  #outbox;
  #stream;
  #sequences = new Map();
  #types;
  #poll;
  #catchUp;
  #listening = new AbortController();

  /**
   * @param {object} options
   * @param {string | URL} options.chat address of chat-service
   * @param {string | URL} options.sse address of broadcast-sse
   * @param {string[]} options.channels the UUIDs to listen to; all come through one connection
   * @param {number} [options.last] how many of each channel's newest events to begin with
   * @param {string[]} [options.types] the event types to listen for besides `message`; an
   *   EventSource cannot listen for all
   * @param {Storage | null} [options.storage] keeps what is not sent yet over a reload
   */
  constructor({ chat, sse, channels, last = 50, types = [], storage = tabStorage() }) {
    super();
    this.#chat = base(chat);
    for (const channel of channels) {
      if (!isUuid(channel)) throw new TypeError(`not a UUID: ${channel}`);
      this.#sequences.set(channel.toLowerCase(), new Sequence());
    }
    this.#outbox = new Outbox({
      storage,
      key: `hark-unsent ${this.#chat.href}`,
      send: (channel, body, signal) =>
        fetch(this.#messages(channel), {
          method: "POST",
          headers: { "content-type": "application/json" },
          body,
          signal,
        }),
      changed: (post) => this.#dispatch("post", { post }),
      // A stream that brings something is better proof than the browser's word.
      offline: () => saysOffline() && this.state !== "live",
    });
    this.#types = new Set(["message", ...types]);
    this.#poll = new Poll({
      sequences: this.#sequences,
      last,
      history: (channel, range) => this.history(channel, range),
      event: (event) => this.#types.has(event.type) && this.#take(event, JSON.stringify(event)),
      gap: (gap) => this.#gap(gap, { polled: true }),
      done: () => this.state !== "live" && this.#dispatch("read", {}),
    });
    const unknownGap = (channel) => ({ channel, from: null, to: null, reason: "cursor" });
    this.#catchUp = new CatchUp({
      read: (unread) => this.#poll.read(unread),
      lost: (channel) => this.#gap(unknownGap(channel)),
    });
    const inTurn = (task) => this.#catchUp.inTurn(task);
    const url = new URL("events", base(sse));
    for (const channel of this.#sequences.keys()) url.searchParams.append("c", channel);
    this.#stream = new ChatStream({
      url,
      last,
      types,
      on: {
        event: ({ data }) => inTurn(() => this.#take(JSON.parse(data), data)),
        gap: ({ data }) => inTurn(() => this.#gap(JSON.parse(data))),
        lost: () => {
          for (const channel of this.#sequences.keys()) this.#gap(unknownGap(channel));
        },
        state: (state, detail) => {
          if (state === "live") {
            this.#outbox.wake();
            for (const sequence of this.#sequences.values()) inTurn(() => sequence.settle());
          }
          this.#readMeanwhile(state, detail);
          this.#dispatch("status", { state, ...detail });
        },
      },
    });
  }

  /** Begins to listen, and to send what an earlier page left unsent. */
  connect() {
    this.#listening.abort();
    this.#listening = new AbortController();
    if (typeof window !== "undefined") {
      const { signal } = this.#listening;
      // Not all pages of a network that comes back in the same moment.
      const soon = () => setTimeout(() => this.#outbox.wake(), Math.random() * 500);
      window.addEventListener("online", soon, { signal });
      window.addEventListener("pageshow", soon, { signal });
    }
    this.#outbox.start();
    this.#stream.start();
  }

  /** Ends the connection. What is not sent stays in the storage. */
  close() {
    this.#listening.abort();
    this.#outbox.stop();
    this.#stream.stop();
    this.#poll.stop();
    this.#catchUp.release();
  }

  /** The state of the connection; see {@link ChatStream}. */
  get state() {
    return this.#stream.state;
  }

  /**
   * Posts a message; it goes out at once, or as soon as it can.
   *
   * @param {string} channel
   * @param {{text?: string, data?: any, type?: string, id?: string, from?: {id?: string, name?: string}}} message
   *   `id`, a UUID, is made here if absent
   * @returns the post, whose `state` and later changes come as `post` events
   * @throws {RangeError} if 100 messages are waiting to be sent already
   */
  post(channel, message) {
    const body = { ...message, id: (message.id ?? timeUuid()).toLowerCase() };
    // Half of a surrogate pair, such as a cut emoji, is not Unicode, and no server could keep it.
    if (typeof body.text === "string") body.text = wellFormed(body.text);
    return this.#outbox.add(channel.toLowerCase(), body);
  }

  /** Tries a post again that failed. */
  retry(id) {
    this.#outbox.retry(id);
  }

  /** Forgets a post that failed. */
  discard(id) {
    this.#outbox.discard(id);
  }

  /** The posts that the server has not acknowledged, in their order. */
  unsent(channel) {
    return this.#outbox.list(channel.toLowerCase());
  }

  /**
   * Reads a page of history.
   *
   * @param {string} channel
   * @param {{before?: number, after?: number, limit?: number}} [range] events before or after this
   *   `seq`, the newest without either; at most 1,000
   * @returns {Promise<{epoch: string, head: number, first: number, messages: object[]}>} `messages`
   *   in ascending order; `first` is the oldest that the server still keeps, `head` the newest
   * @throws {Problem}
   */
  async history(channel, { before, after, limit = 50 } = {}) {
    const url = this.#messages(channel.toLowerCase());
    if (before !== undefined) url.searchParams.set("before", before);
    if (after !== undefined) url.searchParams.set("after", after);
    url.searchParams.set("limit", limit);
    const abort = new AbortController();
    const timer = setTimeout(() => abort.abort(), HISTORY_TIMEOUT);
    try {
      const response = await fetch(url, { signal: abort.signal });
      if (!response.ok) throw await Problem.from(response);
      return await response.json();
    } catch (error) {
      throw error instanceof Problem ? error : Problem.unreachable();
    } finally {
      clearTimeout(timer);
    }
  }

  /** The address to post to, for people who want to try it with `curl`. */
  address(channel) {
    return this.#messages(channel.toLowerCase()).href;
  }

  #messages(channel) {
    return new URL(`channels/${channel}/messages`, this.#chat);
  }

  /** Where the browser lets no stream through, or none has come yet, the log is read by plain requests. */
  #readMeanwhile(state, { slow }) {
    if (state === "waiting" || state === "paused") return this.#poll.start();
    this.#poll.stop();
    if (state === "connecting" && slow) this.#poll.read();
    // A stream that knows no place begins with the newest: what lies between is read before.
    const polled = [...this.#sequences.keys()].filter((one) => this.#sequences.get(one).place);
    if (state === "open" && polled.length > 0 && !this.#stream.hasCursor) {
      this.#catchUp.start(polled);
    }
  }

  #take(event, json) {
    const sequence = this.#sequences.get(event.channel);
    if (!sequence) return;
    const { fresh, skipped } = sequence.accept(event);
    if (!fresh) return;
    if (skipped) this.#dispatch("skipped", { channel: event.channel, ...skipped });
    this.#outbox.confirm(event.id, event);
    this.#dispatch("event", { event, json });
  }

  #gap({ channel, ...gap }, found) {
    const unseen = this.#sequences.get(channel)?.gap(gap, found);
    if (unseen) this.#dispatch("gap", { channel, ...unseen });
  }

  #dispatch(type, detail) {
    this.dispatchEvent(new ChatEvent(type, detail));
  }
}

/** An address that relative paths can be added to. */
function base(address) {
  const url = new URL(address, globalThis.location?.href);
  if (!url.pathname.endsWith("/")) url.pathname += "/";
  return url;
}

function wellFormed(text) {
  return text.toWellFormed?.() ?? text.replace(/\p{Surrogate}/gu, "\ufffd");
}

/** The tab's own storage; reading the property alone throws where cookies are forbidden. */
function tabStorage() {
  try {
    return globalThis.sessionStorage ?? null;
  } catch {
    return null;
  }
}

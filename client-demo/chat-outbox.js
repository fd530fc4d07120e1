import { backoff, retryAfter } from "./chat-backoff.js";
import { Problem } from "./chat-problem.js";

/** How long one request may take. */
const REQUEST_TIMEOUT = 20_000;
/** How long a message is tried before it is the person's turn to decide. */
const GIVE_UP_AFTER = 2 * 60_000;
/** While the browser says that there is no network, it is still asked this often: it may be wrong. */
const OFFLINE_LOOK = 15_000;
/** The most messages kept that are not sent. */
export const MOST_UNSENT = 100;

/**
 * Messages on their way to the server.
 *
 * A message is sent until the server has acknowledged it (200, 201 or 202), under an id of its
 * own, so that sending it again never doubles it: the server remembers ids for 24 hours, and never
 * less than one. Messages of one channel go one after the other, in their order. What is not
 * acknowledged is kept in the tab's storage and survives a reload.
 *
 * A post is `{id, channel, message, state, problem, event}`: `state` is `sending`, `sent` or
 * `failed`; `problem` says why it failed, or why it is still trying; `event` is the server's answer.
 */
export class Outbox {
  #send;
  #storage;
  #key;
  #changed;
  #giveUpAfter;
  #offline;
  /** channel → posts in their order */
  #queues = new Map();
  /** channel → what its sender waits for: `wake()` ends a pause, `abort()` a request */
  #senders = new Map();
  #running = false;

  /**
   * @param {object} options
   * @param {(channel: string, body: string, signal: AbortSignal) => Promise<Response>} options.send
   * @param {Storage | null} options.storage such as `sessionStorage`
   * @param {string} options.key its key there
   * @param {(post: object) => void} options.changed called after every change of a post
   * @param {() => boolean} [options.offline] whether there is no network, as far as is known
   */
  constructor({ send, storage, key, changed, giveUpAfter = GIVE_UP_AFTER, offline = saysOffline }) {
    this.#send = send;
    this.#storage = storage;
    this.#key = key;
    this.#changed = changed;
    this.#giveUpAfter = giveUpAfter;
    this.#offline = offline;
    this.#restore();
  }

  start() {
    this.#running = true;
    for (const channel of this.#queues.keys()) this.#work(channel);
  }

  /** Stops sending; what was not acknowledged stays in the storage. */
  stop() {
    this.#running = false;
    for (const sender of this.#senders.values()) (sender.abort(), sender.wake());
  }

  /** The posts of a channel that are not acknowledged, in their order. */
  list(channel) {
    return [...(this.#queues.get(channel) ?? [])];
  }

  /** @throws {RangeError} if too many are waiting already */
  add(channel, message) {
    const waiting = [...this.#queues.values()].reduce((sum, queue) => sum + queue.length, 0);
    if (waiting >= MOST_UNSENT) throw new RangeError(`${MOST_UNSENT} messages are not sent yet`);
    const post = { id: message.id, channel, message, state: "sending", problem: null, event: null };
    post.since = Date.now();
    this.#queue(channel).push(post);
    this.#tell(post);
    this.#work(channel);
    return post;
  }

  /** Tries a failed post again, after all others of its channel. */
  retry(id) {
    const post = this.#find(id);
    if (post?.state !== "failed") return;
    this.#remove(post);
    Object.assign(post, { state: "sending", problem: null, since: Date.now() });
    this.#queue(post.channel).push(post);
    this.#tell(post);
    this.#work(post.channel);
  }

  /** Forgets a failed post. */
  discard(id) {
    const post = this.#find(id);
    if (post?.state !== "failed") return;
    this.#remove(post);
    this.#save();
  }

  /** The message was seen in the stream: it arrived, though perhaps the answer did not. */
  confirm(id, event) {
    const post = this.#find(id);
    if (!post) return;
    const sender = this.#senders.get(post.channel);
    this.#sent(post, event);
    if (sender?.post === post) (sender.abort(), sender.wake());
  }

  /** The network may be back: no more waiting. */
  wake() {
    for (const sender of this.#senders.values()) sender.wake();
  }

  async #work(channel) {
    if (!this.#running || this.#senders.has(channel)) return;
    const sender = { post: null, abort() {}, wake() {} };
    this.#senders.set(channel, sender);
    for (let attempt = 0; this.#running;) {
      const post = this.#queue(channel).find(({ state }) => state === "sending");
      if (!post) break;
      if (sender.post !== post) attempt = 0;
      sender.post = post;
      if (this.#offline()) {
        await this.#pause(sender, OFFLINE_LOOK);
        post.since = Date.now(); // without a network nothing has been tried yet
        if (post.state !== "sending" || !this.#running) continue;
      }
      const delay = await this.#try(post, sender, attempt++);
      if (delay !== null && post.state === "sending") await this.#pause(sender, delay);
    }
    this.#senders.delete(channel);
    if (this.#running && this.#queue(channel).some(({ state }) => state === "sending")) {
      this.#work(channel);
    }
  }

  /** One request. Gives the milliseconds to wait before the next, `null` if there is none. */
  async #try(post, sender, attempt) {
    const abort = new AbortController();
    const timer = setTimeout(() => abort.abort(), REQUEST_TIMEOUT);
    sender.abort = () => abort.abort();
    let problem;
    let asked = null;
    try {
      const response = await this.#send(post.channel, JSON.stringify(post.message), abort.signal);
      if (response.ok) {
        const event = await response.json().catch(() => null);
        // Anything else came from a stranger on the way, such as the log-in page of a network.
        if (event?.id?.toLowerCase?.() === post.id) {
          this.#sent(post, event);
          return null;
        }
        problem = new Problem({ title: "Something else than the chat server answered." });
      } else {
        asked = retryAfter(response.headers.get("retry-after"));
        problem = await Problem.from(response);
      }
    } catch {
      problem = Problem.unreachable();
    } finally {
      clearTimeout(timer);
    }
    if (post.state !== "sending" || !this.#running) return null;
    post.problem = problem;
    const tired = Date.now() - post.since > this.#giveUpAfter;
    if (!problem.passing || tired) post.state = "failed";
    this.#tell(post);
    if (post.state === "failed") return null;
    return asked === null ? backoff(attempt) : asked + backoff(0);
  }

  #pause(sender, delay) {
    return new Promise((done) => {
      const timer = setTimeout(done, delay);
      sender.wake = () => (clearTimeout(timer), done());
    });
  }

  #sent(post, event) {
    if (post.state === "sent") return;
    Object.assign(post, { state: "sent", problem: null, event });
    this.#remove(post);
    this.#tell(post);
  }

  #tell(post) {
    this.#save();
    this.#changed(post);
  }

  #queue(channel) {
    if (!this.#queues.has(channel)) this.#queues.set(channel, []);
    return this.#queues.get(channel);
  }

  #find(id) {
    for (const queue of this.#queues.values()) {
      const post = queue.find((post) => post.id === id);
      if (post) return post;
    }
    return null;
  }

  #remove(post) {
    const queue = this.#queue(post.channel);
    const place = queue.indexOf(post);
    if (place >= 0) queue.splice(place, 1);
  }

  #save() {
    const unsent = [...this.#queues.values()].flat();
    const kept = unsent.map(({ channel, message, state, problem }) => ({
      channel,
      message,
      state,
      problem,
    }));
    try {
      if (kept.length === 0) this.#storage?.removeItem(this.#key);
      else this.#storage?.setItem(this.#key, JSON.stringify(kept));
    } catch {
      // Storage full or forbidden: the messages are still sent, they just would not survive a reload.
    }
  }

  #restore() {
    let kept = [];
    try {
      kept = JSON.parse(this.#storage?.getItem(this.#key) ?? "[]");
    } catch {
      // Forbidden, or not written by this class: as good as nothing.
    }
    for (const { channel, message, state, problem } of Array.isArray(kept) ? kept : []) {
      if (typeof message?.id !== "string") continue;
      this.#queue(channel).push({
        id: message.id,
        channel,
        message,
        state: state === "failed" ? "failed" : "sending",
        problem: problem ? new Problem(problem) : null,
        event: null,
        since: Date.now(),
      });
    }
  }
}

/** What the browser says, which may be wrong. */
export function saysOffline() {
  return globalThis.navigator?.onLine === false;
}

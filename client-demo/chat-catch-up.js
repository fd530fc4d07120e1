import { backoff } from "./chat-backoff.js";

/** How long what a stream brings may wait for what lies before it, in milliseconds. */
export const LONGEST = 20_000;
/** How many of the stream's events may wait. */
export const MOST = 10_000;

/**
 * Holds what a new stream brings until plain requests have read what lies before it.
 *
 * A stream that knows no place begins with the newest events. What came between the last plain
 * request and those is read once more, again and again if that fails; what cannot be read in time
 * is told as lost, and the stream goes on.
 */
export class CatchUp {
  #options;
  #held = null;
  #unread = new Set();
  #again = null;
  #end = null;

  /**
   * @param {object} options
   * @param {(unread: Set<string>) => Promise<boolean>} options.read reads the channels, and takes
   *   out those that it has read; gives whether that worked
   * @param {(channel: string) => void} options.lost told of each channel that could not be read
   */
  constructor(options) {
    this.#options = options;
  }

  /** Begins to hold, and to read `channels`; does nothing if it has begun already. */
  start(channels) {
    if (this.#held) return;
    this.#held = [];
    const unread = (this.#unread = new Set(channels));
    this.#end = setTimeout(() => this.release(), LONGEST);
    const look = async (attempt) => {
      const read = await this.#options.read(unread);
      if (unread !== this.#unread) return; // released meanwhile
      if (read) this.release();
      else this.#again = setTimeout(() => look(attempt + 1), backoff(attempt, { cap: 5_000 }));
    };
    look(0);
  }

  /** Does what the stream has brought, in its turn. */
  inTurn(task) {
    if (!this.#held) return task();
    this.#held.push(task);
    if (this.#held.length >= MOST) this.release();
  }

  /** Waits no longer: tells what could not be read, and gives what it holds. */
  release() {
    const [held, unread] = [this.#held ?? [], this.#unread];
    clearTimeout(this.#end);
    clearTimeout(this.#again);
    this.#held = null;
    this.#unread = new Set();
    for (const channel of unread) this.#options.lost(channel);
    for (const task of held) task();
  }
}

import { backoff } from "./chat-backoff.js";
import { keptOf } from "./chat-sequence.js";

/** How often a page that is looked at reads what is new, in milliseconds. */
const EVERY = 5_000;
/** The same of a page that nobody looks at. */
const EVERY_HIDDEN = 30_000;
/** The most events of one request. */
const PAGE = 1_000;

/**
 * Reads a channel's log by plain GETs, for as long as there is no stream.
 *
 * It keeps no place of its own: it asks behind what the channels' {@link Sequence}s have had, so
 * that the stream may come back at any moment. What a restore has cut off it tells as the stream
 * would, and goes on in the new log.
 */
export class Poll {
  #options;
  #timer = null;
  #turn = 0;

  /**
   * @param {object} options
   * @param {Map<string, Sequence>} options.sequences where each channel's listener stands
   * @param {number} options.last how many of the newest events to begin with
   * @param {(channel: string, range: object) => Promise<object>} options.history
   * @param {(event: object) => void} options.event takes an event
   * @param {(gap: {channel, from, to, reason}) => void} options.gap takes a gap
   * @param {() => void} options.done called whenever all that there was is read
   */
  constructor(options) {
    this.#options = options;
  }

  get running() {
    return this.#timer !== null;
  }

  /** Begins with a first look at once; does nothing if it has begun already. */
  start() {
    if (this.running) return;
    const turn = ++this.#turn;
    let failures = 0;
    const look = async () => {
      const read = await this.read();
      if (turn !== this.#turn) return;
      failures = read ? 0 : failures + 1;
      const hidden = globalThis.document?.visibilityState === "hidden";
      const pause = hidden ? EVERY_HIDDEN : EVERY;
      this.#timer = setTimeout(look, pause + (read ? Math.random() * 1_000 : backoff(failures)));
    };
    this.#timer = setTimeout(look);
  }

  stop() {
    this.#turn += 1;
    clearTimeout(this.#timer);
    this.#timer = null;
  }

  /**
   * Reads once what is new in all channels, or those of `unread`, out of which it takes each that
   * it has read. Gives whether that worked.
   */
  async read(unread = new Set(this.#options.sequences.keys())) {
    try {
      for (const channel of unread) {
        await this.#channel(channel);
        unread.delete(channel);
      }
    } catch {
      return false;
    }
    this.#options.done();
    return true;
  }

  async #channel(channel) {
    const { sequences, last, history, event, gap } = this.#options;
    const sequence = sequences.get(channel);
    for (;;) {
      const place = sequence.place;
      const range = place ? { after: place.seq, limit: PAGE } : { limit: Math.max(last, 1) };
      const page = await history(channel, range);
      const { epoch, head, first, messages, damaged = [] } = page;
      const kept = place && keptOf(page, place);
      if (kept !== null) {
        const { epoch, seq } = sequence.place;
        // Unless the stream has told it meanwhile.
        if (epoch === place.epoch && seq >= place.seq) {
          gap({ channel, from: kept + 1, to: seq, reason: "epoch" });
        }
        continue;
      }
      if (!place && last === 0) return sequence.readTo({ epoch, seq: head });
      if (place && first > place.seq + 1) {
        gap({ channel, from: place.seq + 1, to: first - 1, reason: "retention" });
      }
      const gaps = damaged.map((range) => ({ channel, ...range, reason: "damaged" }));
      const parts = [
        ...gaps.map((one) => ({ at: one.from, take: () => gap(one) })),
        ...messages.map((one) => ({ at: one.seq, take: () => event(one) })),
      ];
      for (const { take } of parts.sort((one, other) => one.at - other.at)) take();
      const to = Math.max(messages.at(-1)?.seq ?? 0, damaged.at(-1)?.to ?? 0);
      sequence.readTo({ epoch, seq: to || head });
      if (to === 0 || to >= head) return;
    }
  }
}

/**
 * Where one channel's listener stands, so that nothing is shown twice.
 *
 * Events of a channel are numbered 1, 2, 3 … without holes (`seq`). A log that lost its tail (a
 * backup was put back) goes on in a new `epoch`, in which the lost numbers are used again; epochs
 * sort as text.
 */
export class Sequence {
  #epoch = null;
  #seq = 0;
  #gapBefore = false;
  /** How far plain requests have read: they see events of types that nobody listens for. */
  #read = null;
  /** Where the cuts begin that plain requests have told and the stream may tell again. */
  #told = new Set();

  /**
   * The place behind which everything is yet to come, `null` before the first.
   *
   * @returns {{epoch: string, seq: number} | null} the epoch in which the place was reached
   */
  get place() {
    const seen = this.#epoch === null ? null : { epoch: this.#epoch, seq: this.#seq };
    return isLater(this.#read, seen) ? this.#read : seen;
  }

  /** Plain requests have read up to here. */
  readTo(place) {
    this.#read = place;
  }

  /** The stream has told all that it had to tell of what was before. */
  settle() {
    this.#told.clear();
  }

  /**
   * Takes an event that the stream brought.
   *
   * @returns {{fresh: boolean, skipped: {from: number, to: number} | null}} `fresh` is false if
   * it has been here before. `skipped` names the numbers between the last one and this one; the
   * stream leaves none out, so those are events of types that nobody listens for.
   */
  accept({ epoch, seq }) {
    const first = this.#epoch === null;
    if (!first && (epoch < this.#epoch || (epoch === this.#epoch && seq <= this.#seq))) {
      return { fresh: false, skipped: null };
    }
    const expected = this.#seq + 1;
    const skipped =
      first || this.#gapBefore || seq <= expected ? null : { from: expected, to: seq - 1 };
    this.#epoch = epoch;
    this.#seq = seq;
    this.#gapBefore = false;
    return { fresh: true, skipped };
  }

  /**
   * Takes a gap that the stream announced, or that plain requests (`polled`) have found.
   *
   * @returns the gap, cut down to what has not been here; `null` if all of it has.
   */
  gap({ from = null, to = null, reason }, { polled = false } = {}) {
    if (reason === "epoch" && from !== null) {
      if (!polled && this.#told.has(from)) return null;
      if (polled) this.#told.add(from);
      this.#goBack(from - 1);
      return { from, to, reason };
    }
    if (from === null || to === null || this.#epoch === null) {
      this.#gapBefore = true;
      return { from, to, reason };
    }
    if (to <= this.#seq) return null;
    const start = Math.max(from, this.#seq + 1);
    this.#seq = to;
    return { from: start, to, reason };
  }

  /** What was cut off may well have been seen here; its numbers come again in another epoch. */
  #goBack(seq) {
    const back = (epoch) => ({
      // A log that is gone as a whole may have had a later epoch than the new one, by a wrong clock.
      epoch: seq === 0 ? "" : epoch,
      seq,
    });
    if (this.#read?.seq > seq) this.#read = back(this.#read.epoch);
    if (this.#epoch === null) this.#gapBefore = true;
    else ({ epoch: this.#epoch, seq: this.#seq } = back(this.#epoch));
  }
}

/**
 * Up to which number a log still is what it was at `place`; `null` if nothing of that is gone.
 *
 * An older epoch is good up to where the next one starts. Of those that the log does not name, one
 * older than all may have been left out of the list; one between others was cut off as a whole, or
 * by the next one; any other is of another log.
 *
 * @param {{head: number, epochs: {epoch: string, from: number}[]}} log as history tells it
 * @param {{epoch: string, seq: number}} place reached before history was asked
 */
export function keptOf({ head, epochs }, { epoch, seq }) {
  if (seq === 0) return null;
  const named = epochs.some((one) => one.epoch === epoch);
  const later = epochs.findIndex((one) => one.epoch > epoch);
  if (later >= 0 && seq >= epochs[later].from) return epochs[later].from - 1;
  if (!named && later !== 0) return 0;
  return seq > head ? head : null;
}

function isLater(place, other) {
  if (!place || !other) return Boolean(place);
  return place.epoch === other.epoch ? place.seq > other.seq : place.epoch > other.epoch;
}

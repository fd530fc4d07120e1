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

  /** The epoch of the last event, `null` before the first. */
  get epoch() {
    return this.#epoch;
  }

  /** The number up to which everything has been here, `null` before the first. */
  get seq() {
    return this.#epoch === null ? null : this.#seq;
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
   * Takes a gap that the stream announced.
   *
   * @returns the gap, cut down to what has not been here; `null` if all of it has.
   */
  gap({ from = null, to = null, reason }) {
    if (from === null || to === null || this.#epoch === null) {
      this.#gapBefore = true;
      return { from, to, reason };
    }
    if (reason === "epoch") {
      // What was cut off may well have been seen here; its numbers come again in a new epoch.
      this.#seq = from - 1;
      return { from, to, reason };
    }
    if (to <= this.#seq) return null;
    const start = Math.max(from, this.#seq + 1);
    this.#seq = to;
    return { from: start, to, reason };
  }
}

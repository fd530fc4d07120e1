/** A channel's log, as chat-service tells it. */
export class Log {
  channel = "c";
  epochs = [{ epoch: "1", from: 1 }];
  first = 1;
  head = 0;
  others = new Set();
  damaged = [];
  asked = 0;

  post(count) {
    this.head += count;
  }

  /** A copy that ends with `head` is put back, and `epoch` begins. */
  restore({ epoch, head }) {
    this.epochs = this.epochs.filter(({ from }) => from <= head + 1);
    this.epochs.push({ epoch, from: head + 1 });
    this.head = head;
  }

  event(seq) {
    const { epoch } = this.epochs.findLast(({ from }) => from <= seq);
    return { channel: this.channel, epoch, seq, type: this.others.has(seq) ? "other" : "message" };
  }

  page({ after, limit }) {
    this.asked += 1;
    const { first, head } = this;
    const from = Math.max(after === undefined ? head - limit + 1 : after + 1, first);
    const to = Math.min(after === undefined ? head : from + limit - 1, head);
    const lost = (seq) => this.damaged.some(({ from, to }) => from <= seq && seq <= to);
    const all = Array.from({ length: Math.max(0, to - from + 1) }, (_, place) => from + place);
    const messages = all.filter((seq) => !lost(seq)).map((seq) => this.event(seq));
    const damaged = this.damaged.filter((range) => range.from >= from && range.to <= to);
    const epochs = head === 0 ? [] : this.epochs;
    return { epoch: epochs.at(-1)?.epoch ?? "0", epochs, first, head, messages, damaged };
  }
}

/** The browser's EventSource, as far as `ChatStream` uses it, in the hands of a test. */
export class FakeEventSource extends EventTarget {
  static CLOSED = 2;
  static all = [];
  readyState = 0;

  constructor(url) {
    super();
    this.url = new URL(url);
    FakeEventSource.all.push(this);
  }

  static get newest() {
    return FakeEventSource.all.at(-1);
  }

  answer() {
    this.readyState = 1;
    this.dispatchEvent(new Event("open"));
  }

  say(type, lastEventId = "", data = "") {
    this.dispatchEvent(Object.assign(new Event(type), { lastEventId, data }));
  }

  /** An error after which a browser tries again by itself, or gives up. */
  fail({ forGood }) {
    this.readyState = forGood ? 2 : 0;
    this.dispatchEvent(new Event("error"));
  }

  close() {
    this.readyState = 2;
  }
}

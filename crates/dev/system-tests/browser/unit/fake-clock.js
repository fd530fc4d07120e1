/** Time that stands still until a test moves it: timers and `Date.now` of the whole process. */
export class FakeClock {
  #now = Date.UTC(2026, 10, 21, 9);
  #timers = new Map();
  #next = 1;
  #real = {};

  constructor() {
    const fake = {
      setTimeout: (task, delay = 0) => this.#add(task, delay, null),
      setInterval: (task, delay = 0) => this.#add(task, delay, delay),
      clearTimeout: (id) => this.#timers.delete(id),
      clearInterval: (id) => this.#timers.delete(id),
    };
    for (const [name, replacement] of Object.entries(fake)) {
      this.#real[name] = globalThis[name];
      globalThis[name] = replacement;
    }
    this.#real.now = Date.now;
    Date.now = () => this.#now;
  }

  restore() {
    const { now, ...timers } = this.#real;
    Object.assign(globalThis, timers);
    Date.now = now;
  }

  /** Lets `milliseconds` pass, and everything happen that is due by then. */
  async pass(milliseconds) {
    const end = this.#now + milliseconds;
    await settled();
    for (;;) {
      const due = [...this.#timers].filter(([, timer]) => timer.at <= end);
      if (due.length === 0) break;
      const [id, timer] = due.reduce((one, other) => (other[1].at < one[1].at ? other : one));
      this.#now = timer.at;
      if (timer.every === null) this.#timers.delete(id);
      else timer.at += timer.every;
      timer.task();
      await settled();
    }
    this.#now = end;
  }

  #add(task, delay, every) {
    const id = this.#next++;
    this.#timers.set(id, { task, at: this.#now + delay, every });
    return id;
  }
}

/** When all promises that can go on have gone on. */
export async function settled() {
  for (let turn = 0; turn < 5; turn++) await new Promise((done) => setImmediate(done));
}

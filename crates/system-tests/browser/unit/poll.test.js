import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { Poll } from "../../../../client-demo/chat-poll.js";
import { Sequence } from "../../../../client-demo/chat-sequence.js";
import { FakeClock } from "./fake-clock.js";

/** A channel's log, as chat-service tells it. */
class Log {
  epoch = "1";
  first = 1;
  head = 0;
  others = new Set();
  damaged = [];
  asked = 0;

  post(count) {
    this.head += count;
  }

  page({ after, limit }) {
    this.asked += 1;
    const { epoch, first, head } = this;
    const from = Math.max(after === undefined ? head - limit + 1 : after + 1, first);
    const to = Math.min(after === undefined ? head : from + limit - 1, head);
    const lost = (seq) => this.damaged.some(({ from, to }) => from <= seq && seq <= to);
    const all = Array.from({ length: Math.max(0, to - from + 1) }, (_, place) => from + place);
    const messages = all.filter((seq) => !lost(seq)).map((seq) => ({ epoch, seq }));
    const damaged = this.damaged.filter((range) => range.from >= from && range.to <= to);
    return { epoch: head === 0 ? "0" : epoch, first, head, messages, damaged };
  }
}

let clock;
let log;
let sequence;
let seen;
let poll;

/** What a client makes of the poll, in short: numbers, and gaps as text. */
function listen({ last = 50 } = {}) {
  sequence = new Sequence();
  seen = [];
  poll = new Poll({
    sequences: new Map([["c", sequence]]),
    last,
    history: async (channel, range) => log.page(range),
    event: (event) => {
      if (log.others.has(event.seq)) return; // of a type that nobody listens for
      if (sequence.accept(event).fresh) seen.push(event.seq);
    },
    gap: (gap) => {
      const unseen = sequence.gap(gap);
      if (unseen) seen.push(`${unseen.reason} ${unseen.from}-${unseen.to}`);
    },
    done() {},
  });
}

beforeEach(() => {
  clock = new FakeClock();
  log = new Log();
});

afterEach(() => {
  poll.stop();
  clock.restore();
});

test("begins with the newest, and reads everything that comes, whatever its number", async () => {
  log.post(60);
  listen({ last: 2 });
  await poll.read();
  log.post(2_500);
  await poll.read();
  assert.deepEqual(seen.slice(0, 3), [59, 60, 61]);
  assert.equal(seen.length, 2 + 2_500);
  assert.equal(seen.at(-1), 2_560);
  await poll.read();
  assert.equal(seen.length, 2 + 2_500, "nothing twice");
});

test("a channel that was empty has no newest to begin with: all is new", async () => {
  listen({ last: 0 });
  await poll.read();
  log.post(3);
  await poll.read();
  assert.deepEqual(seen, [1, 2, 3]);
});

test("who wants nothing old gets what comes", async () => {
  log.post(5);
  listen({ last: 0 });
  await poll.read();
  log.post(1);
  await poll.read();
  assert.deepEqual(seen, [6]);
});

test("what has expired or is damaged is told in its place", async () => {
  log.post(3);
  listen();
  await poll.read();
  log.post(7);
  log.first = 6;
  log.damaged = [{ from: 8, to: 9 }];
  await poll.read();
  assert.deepEqual(seen, [1, 2, 3, "retention 4-5", 6, 7, "damaged 8-9", 10]);
  await poll.read();
  assert.equal(seen.length, 8, "and once");
});

test("any number of events that nobody listens for does not hold up what comes behind them", async () => {
  log.post(1);
  listen();
  await poll.read();
  log.post(2_501);
  log.others = new Set(Array.from({ length: 2_500 }, (_, place) => place + 2));
  await poll.read();
  assert.deepEqual(seen, [1, 2_502]);
  const asked = log.asked;
  log.others.add(2_503);
  log.post(1);
  await poll.read();
  await poll.read();
  assert.equal(log.asked, asked + 2, "one request for each look");
});

test("after a restore it leaves it to the stream to say what is gone", async () => {
  log.post(5);
  listen();
  await poll.read();
  Object.assign(log, { epoch: "2", head: 4 });
  await poll.read();
  log.post(9);
  await poll.read();
  assert.deepEqual(seen, [1, 2, 3, 4, 5]);
});

test("looks at once and then every few seconds, less often at a server in trouble, until it is stopped", async () => {
  log.post(1);
  listen();
  poll.start();
  await clock.pass(60_000);
  assert.ok(log.asked >= 9 && log.asked <= 14, `${log.asked}`);
  const page = log.page;
  log.page = function (range) {
    page.call(this, range);
    throw new Error("away");
  };
  await clock.pass(60_000);
  const before = log.asked;
  await clock.pass(10 * 60_000);
  assert.ok(log.asked - before < 60, `${log.asked - before} in ten minutes`);
  poll.stop();
  const stopped = log.asked;
  await clock.pass(60_000);
  assert.equal(log.asked, stopped);
});

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { Poll } from "../../../../../client-demo/chat-poll.js";
import { Sequence } from "../../../../../client-demo/chat-sequence.js";
import { FakeClock } from "./fake-clock.js";
import { Log } from "./fake-log.js";

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
      if (event.type !== "message") return; // of a type that nobody listens for
      if (sequence.accept(event).fresh) seen.push(event.seq);
    },
    gap: (gap) => {
      const unseen = sequence.gap(gap, { polled: true });
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

test("what a restore cut off is told once, and the new log is read on", async () => {
  log.post(5);
  listen();
  await poll.read();
  log.restore({ epoch: "2", head: 3 });
  await poll.read();
  await poll.read();
  assert.deepEqual(seen.splice(0), [1, 2, 3, 4, 5, "epoch 4-5"]);
  log.post(9);
  await poll.read();
  assert.deepEqual(seen.splice(0), [4, 5, 6, 7, 8, 9, 10, 11, 12]);
  log.restore({ epoch: "3", head: 3 });
  log.post(1);
  await poll.read();
  assert.deepEqual(seen, ["epoch 4-12", 4], "the same copy was put back again");
});

test("a new epoch that cut nothing off is read on without a word", async () => {
  log.post(5);
  listen();
  await poll.read();
  log.restore({ epoch: "2", head: 5 });
  log.post(2);
  await poll.read();
  assert.deepEqual(seen, [1, 2, 3, 4, 5, 6, 7]);
});

test("a log that is gone as a whole is told, and read from its new beginning, in whatever epoch", async () => {
  for (const epoch of ["2", "0zz"]) {
    log = new Log();
    log.post(3);
    listen();
    await poll.read();
    Object.assign(log, { head: 0, epochs: [] });
    await poll.read();
    await poll.read();
    assert.deepEqual(seen, [1, 2, 3, "epoch 1-3"], epoch);
    log.epochs = [{ epoch, from: 1 }];
    log.post(2);
    await poll.read();
    assert.deepEqual(seen.slice(4), [1, 2], epoch);
  }
});

test("a restore while nobody's types were posted is told as well", async () => {
  log.others = new Set([1, 2, 3, 4, 5]);
  log.post(5);
  listen();
  await poll.read();
  log.restore({ epoch: "2", head: 3 });
  log.others = new Set([1, 2, 3]);
  log.post(1);
  await poll.read();
  assert.deepEqual(seen, ["epoch 4-5", 4]);
});

test("the stream that comes back tells the same restore; it is told once, and nothing twice", async () => {
  log.post(5);
  listen();
  await poll.read();
  log.restore({ epoch: "2", head: 3 });
  log.post(4);
  await poll.read();
  assert.deepEqual(seen, [1, 2, 3, 4, 5, "epoch 4-5", 4, 5, 6, 7]);
  const cut = { from: 4, to: 5, reason: "epoch" };
  assert.equal(sequence.gap(cut), null, "it went on at its own cursor");
  assert.ok(![4, 5, 6, 7].some((seq) => sequence.accept(log.event(seq)).fresh));
  sequence.settle();
  assert.deepEqual(sequence.gap(cut), cut, "another restore, with the stream there");
});

test("what the stream told while a page was on its way is not told again", async () => {
  log.post(5);
  listen();
  await poll.read();
  log.restore({ epoch: "2", head: 3 });
  log.post(6);
  const reading = poll.read();
  assert.ok(sequence.gap({ from: 4, to: 5, reason: "epoch" }));
  sequence.accept(log.event(4));
  await reading;
  assert.deepEqual(seen, [1, 2, 3, 4, 5, 5, 6, 7, 8, 9]);
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

import assert from "node:assert/strict";
import { test } from "node:test";

import { Sequence, keptOf } from "../../../../../client-demo/chat-sequence.js";

const OLD = "6aaaaaaaaa";
const NEW = "6bbbbbbbbb";

const taken = (sequence, epoch, ...numbers) =>
  numbers.filter((seq) => sequence.accept({ epoch, seq }).fresh);

test("nothing is taken twice, whatever is repeated", () => {
  const sequence = new Sequence();
  assert.deepEqual(taken(sequence, OLD, 5, 6, 6, 5, 7, 1, 7, 8), [5, 6, 7, 8]);
});

test("numbers left out without a gap are events of other types", () => {
  const sequence = new Sequence();
  assert.equal(sequence.accept({ epoch: OLD, seq: 10 }).skipped, null);
  assert.equal(sequence.accept({ epoch: OLD, seq: 11 }).skipped, null);
  assert.deepEqual(sequence.accept({ epoch: OLD, seq: 15 }).skipped, { from: 12, to: 14 });
});

test("an expired range is a gap once, cut down to what was not here", () => {
  const sequence = new Sequence();
  taken(sequence, OLD, 1, 2, 3);
  const gap = { from: 2, to: 9, reason: "retention" };
  assert.deepEqual(sequence.gap(gap), { from: 4, to: 9, reason: "retention" });
  assert.equal(sequence.gap(gap), null);
  assert.deepEqual(sequence.accept({ epoch: OLD, seq: 10 }), { fresh: true, skipped: null });
});

test("a newer epoch uses the lost numbers again", () => {
  const sequence = new Sequence();
  taken(sequence, OLD, 1, 2, 3, 4, 5);
  const gap = { from: 4, to: 5, reason: "epoch" };
  assert.deepEqual(sequence.gap(gap), gap);
  assert.deepEqual(sequence.accept({ epoch: NEW, seq: 4 }), { fresh: true, skipped: null });
  assert.deepEqual(taken(sequence, NEW, 4, 5, 6), [5, 6]);
  assert.deepEqual(taken(sequence, OLD, 5, 6, 7), []);
});

test("a newer epoch is believed without a gap, and 0 precedes every epoch", () => {
  const sequence = new Sequence();
  taken(sequence, OLD, 1, 2, 3);
  assert.deepEqual(taken(sequence, NEW, 2, 3), [2, 3]);
  assert.ok("0" < OLD && OLD < NEW);
});

test("after an unknown gap the newest come again, and only new ones are taken", () => {
  const sequence = new Sequence();
  taken(sequence, OLD, 50);
  assert.deepEqual(sequence.gap({ from: null, to: null, reason: "cursor" }), {
    from: null,
    to: null,
    reason: "cursor",
  });
  assert.deepEqual(taken(sequence, OLD, 49, 50), []);
  assert.deepEqual(sequence.accept({ epoch: OLD, seq: 80 }), { fresh: true, skipped: null });
  assert.deepEqual(sequence.accept({ epoch: OLD, seq: 83 }).skipped, { from: 81, to: 82 });
});

test("a log that is gone as a whole may come again in an earlier epoch", () => {
  const sequence = new Sequence();
  taken(sequence, NEW, 1, 2, 3);
  const gap = { from: 1, to: 3, reason: "epoch" };
  assert.deepEqual(sequence.gap(gap), gap);
  assert.deepEqual(taken(sequence, OLD, 1, 2, 2, 3), [1, 2, 3]);
});

test("what a log has kept of what was read is what the server's own rule says", () => {
  const log = (head, ...epochs) => ({
    head,
    epochs: epochs.map(([epoch, from]) => ({ epoch, from })),
  });
  const kept = (log, epoch, seq) => keptOf(log, { epoch, seq });
  const named = log(200, ["10", 1], ["20", 101], ["30", 151]);
  assert.equal(kept(named, "10", 100), null);
  assert.equal(kept(named, "10", 101), 100);
  assert.equal(kept(named, "20", 150), null);
  assert.equal(kept(named, "20", 151), 150);
  assert.equal(kept(log(40, ["10", 1]), "10", 41), 40);
  assert.equal(kept(log(0), "10", 5), 0);
  const unnamed = log(70, ["10", 1], ["20", 31]);
  assert.equal(kept(unnamed, "15", 30), 0, "cut off as a whole");
  assert.equal(kept(unnamed, "15", 31), 30);
  assert.equal(kept(unnamed, "99", 71), 0, "of another log");
  assert.equal(kept(unnamed, "99", 0), null, "nothing lies behind it");
  const long = log(70, ["10", 31], ["20", 61]);
  assert.equal(kept(long, "05", 30), null, "left out of the list");
  assert.equal(kept(long, "05", 31), 30);
});

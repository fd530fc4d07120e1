import assert from "node:assert/strict";
import { test } from "node:test";

import {
  beginningWords,
  gapWords,
  problemWords,
  statusWords,
} from "../../../../../client-demo/words.js";

test("a gap says how many are missing, and why", () => {
  assert.equal(
    gapWords({ from: 4, to: 28, reason: "retention" }),
    "25 messages are missing here: they were older than what the server keeps.",
  );
  assert.equal(
    gapWords({ from: 4, to: 4, reason: "retention" }),
    "1 message is missing here: it was older than what the server keeps.",
  );
  assert.equal(
    gapWords({ from: 4, to: 5, reason: "epoch" }),
    "The server was restored from a backup: 2 messages, numbers 4 to 5, are no longer on it.",
  );
  assert.match(gapWords({ from: null, to: 9, reason: "cursor" }), /may be missing/);
  assert.equal(gapWords({ from: 1, to: 2, reason: "a later one" }), "2 messages are missing here.");
});

test("the top of the list says what was there before", () => {
  assert.match(beginningWords(1), /beginning of the channel/);
  assert.match(beginningWords(0), /beginning of the channel/);
  assert.match(beginningWords(2), /^1 earlier message is/);
  assert.match(beginningWords(42), /^41 earlier messages are/);
});

test("every state of the connection has words", () => {
  for (const state of [
    "connecting",
    "open",
    "live",
    "quiet",
    "reconnecting",
    "waiting",
    "paused",
    "offline",
    "refused",
    "closed",
  ]) {
    assert.ok(statusWords({ state, tabs: 6 }).short.length > 3, state);
  }
  assert.match(statusWords({ state: "waiting", tabs: 6 }).long, /six connections.* 6 other tabs/);
});

test("a problem is a sentence", () => {
  assert.equal(problemWords({ detail: "Send less" }), "Send less.");
  assert.equal(problemWords({ title: "Too large.", detail: "" }), "Too large.");
  assert.equal(problemWords(null), "The server did not say why.");
});

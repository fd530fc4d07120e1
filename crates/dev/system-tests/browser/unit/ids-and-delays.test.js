import assert from "node:assert/strict";
import { webcrypto } from "node:crypto";
import { test } from "node:test";

import { backoff, retryAfter } from "../../../../../client-demo/chat-backoff.js";
import { isUuid, randomUuid, timeUuid } from "../../../../../client-demo/chat-ids.js";

globalThis.crypto ??= webcrypto; // node 18 does not have it by itself, as browsers do

test("a random UUID is one of version 4", () => {
  const id = randomUuid();
  assert.ok(isUuid(id));
  assert.match(id, /^.{14}4.{4}[89ab]/);
  assert.notEqual(id, randomUuid());
});

test("time UUIDs are of version 7, tell the time and sort as they were made", () => {
  const now = Date.now() + 1_000_000;
  const ids = [];
  for (let made = 0; made < 10_000; made++) ids.push(timeUuid(now));
  ids.push(timeUuid(now - 60_000)); // the clock is set back
  ids.push(timeUuid(now + 60_000));
  assert.deepEqual([...ids].sort(), ids);
  assert.equal(new Set(ids).size, ids.length);
  for (const id of ids)
    assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.equal(parseInt(ids[0].replaceAll("-", "").slice(0, 12), 16), now);
});

test("works without crypto.randomUUID", () => {
  const own = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(crypto), "randomUUID");
  delete Object.getPrototypeOf(crypto).randomUUID;
  try {
    assert.equal(crypto.randomUUID, undefined);
    assert.ok(isUuid(randomUuid()));
    assert.ok(isUuid(timeUuid()));
  } finally {
    Object.defineProperty(Object.getPrototypeOf(crypto), "randomUUID", own);
  }
});

test("only a UUID in its 36-character form is one", () => {
  assert.ok(isUuid("C3743620-8C0C-4B0B-8D3A-7A2F6B3F6B11"));
  assert.ok(isUuid("00000000-0000-0000-0000-000000000000"));
  for (const other of [
    "",
    null,
    undefined,
    7,
    "c3743620",
    "c3743620-8c0c-4b0b-8d3a-7a2f6b3f6b1g",
    "{c3743620-8c0c-4b0b-8d3a-7a2f6b3f6b11}",
  ]) {
    assert.ok(!isUuid(other), String(other));
  }
});

test("delays double up to the cap and lie between half and all of it", () => {
  for (const [attempt, whole] of [
    [0, 1_000],
    [1, 2_000],
    [4, 16_000],
    [5, 30_000],
    [5_000, 30_000],
  ]) {
    assert.equal(backoff(attempt, { random: () => 0 }), whole / 2);
    assert.ok(backoff(attempt, { random: () => 0.999 }) < whole);
    assert.ok(backoff(attempt) >= whole / 2);
  }
});

test("Retry-After: seconds, a date, nothing, nonsense, too much", () => {
  const now = Date.UTC(2026, 10, 21, 9);
  assert.equal(retryAfter("7", now), 7_000);
  assert.equal(retryAfter(" 0 ", now), 0);
  assert.equal(retryAfter("Sat, 21 Nov 2026 09:00:30 GMT", now), 30_000);
  assert.equal(retryAfter("Sat, 21 Nov 2026 08:00:00 GMT", now), 0);
  assert.equal(retryAfter("86400", now), 300_000);
  for (const none of [null, "", "soon"]) assert.equal(retryAfter(none, now), null);
});

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { LONGEST, MOST } from "../../../../../client-demo/chat-catch-up.js";
import { ChatClient } from "../../../../../client-demo/chat-client.js";
import { FakeClock, settled } from "./fake-clock.js";
import { FakeEventSource } from "./fake-event-source.js";
import { Log } from "./fake-log.js";

const CHANNEL = "c3743620-8c0c-4b0b-8d3a-7a2f6b3f6b11";
const realFetch = globalThis.fetch;

let clock;
let log;
let away;
let client;
let seen;

/** A page whose stream is slow to come, so that it has read the first five by plain requests. */
beforeEach(async () => {
  clock = new FakeClock();
  globalThis.EventSource = FakeEventSource;
  log = Object.assign(new Log(), { channel: CHANNEL });
  log.post(5);
  away = false;
  globalThis.fetch = async (url) => {
    const { searchParams } = new URL(url);
    const number = (name) => (searchParams.has(name) ? Number(searchParams.get(name)) : undefined);
    if (away) return new Response("", { status: 503 });
    return Response.json(log.page({ after: number("after"), limit: number("limit") }));
  };
  seen = [];
  client = new ChatClient({
    chat: "http://chat.test",
    sse: "http://sse.test",
    channels: [CHANNEL],
    last: 2,
    storage: null,
  });
  client.addEventListener("event", ({ detail }) => seen.push(detail.event.seq));
  client.addEventListener("gap", ({ detail }) => seen.push(`${detail.reason} ${detail.to}`));
  client.connect();
  await clock.pass(5_000);
  assert.deepEqual(seen.splice(0), [4, 5]);
});

afterEach(() => {
  client.close();
  clock.restore();
  globalThis.fetch = realFetch;
});

/** The stream comes, and begins with the newest two of `count` that were posted meanwhile. */
async function streamAfter(count) {
  log.post(count);
  FakeEventSource.newest.answer();
  say(log.head - 1, log.head);
  FakeEventSource.newest.say("ready", "cursor");
  await settled();
}

function say(...numbers) {
  for (const seq of numbers) {
    FakeEventSource.newest.say("message", `${seq}`, JSON.stringify(log.event(seq)));
  }
}

test("what lies between the last plain request and a new stream is read before what that brings", async () => {
  await streamAfter(5);
  assert.deepEqual(seen, [6, 7, 8, 9, 10]);
});

test("a read that fails is repeated, and the stream's events wait for it", async () => {
  away = true;
  await streamAfter(5);
  await clock.pass(5_000);
  assert.deepEqual(seen, []);
  away = false;
  await clock.pass(5_000);
  assert.deepEqual(seen, [6, 7, 8, 9, 10]);
  log.post(1);
  say(11);
  assert.equal(seen.at(-1), 11, "and then they wait no longer");
});

test("what cannot be read in time is a gap, and the stream goes on behind it", async () => {
  away = true;
  await streamAfter(5);
  await clock.pass(LONGEST);
  assert.deepEqual(seen, ["cursor null", 9, 10]);
  away = false;
  await clock.pass(LONGEST);
  assert.equal(seen.length, 3);
});

test("nor do more wait than there is room for", async () => {
  away = true;
  await streamAfter(MOST);
  say(...Array.from({ length: MOST }, (_, place) => place + 6));
  assert.equal(seen[0], "cursor null");
});

test("what the stream has brought is not lost by closing", async () => {
  away = true;
  await streamAfter(5);
  client.close();
  assert.deepEqual(seen, ["cursor null", 9, 10]);
});

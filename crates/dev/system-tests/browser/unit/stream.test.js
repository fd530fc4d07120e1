import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { ChatStream, QUIET, SILENCE } from "../../../../../client-demo/chat-stream.js";
import { FakeClock } from "./fake-clock.js";
import { FakeEventSource } from "./fake-event-source.js";

let clock;
let states;
let lost;
let stream;
const realFetch = globalThis.fetch;

beforeEach(() => {
  clock = new FakeClock();
  globalThis.EventSource = FakeEventSource;
  FakeEventSource.all = [];
  states = [];
  lost = 0;
  stream = new ChatStream({
    url: new URL("http://sse.test/events?c=x"),
    last: 50,
    types: ["door"],
    on: {
      event() {},
      gap() {},
      lost: () => (lost += 1),
      state: (state, detail) => states.push(detail.slow ? `${state} slow` : state),
    },
  });
  stream.start();
});

afterEach(() => {
  stream.stop();
  clock.restore();
  globalThis.fetch = realFetch;
});

test("begins with the newest events and goes on where it was", async () => {
  const first = FakeEventSource.newest;
  assert.equal(first.url.href, "http://sse.test/events?c=x&last=50");
  first.answer();
  first.say("message", "cursor 7");
  first.say("ready", "cursor 8");
  assert.deepEqual(states, ["closed", "connecting", "open", "live"].slice(1));
  first.fail({ forGood: true });
  await clock.pass(1_000);
  assert.equal(FakeEventSource.newest.url.href, "http://sse.test/events?c=x&since=cursor+8");
});

test("leaves it to the browser what the browser does by itself", async () => {
  const first = FakeEventSource.newest;
  first.answer();
  first.say("ready", "1");
  first.fail({ forGood: false });
  await clock.pass(60_000);
  assert.equal(FakeEventSource.all.length, 1);
  assert.equal(stream.state, "reconnecting");
  first.answer();
  first.say("ready", "1");
  assert.equal(stream.state, "live");
});

test("two missed pings are a dead connection", async () => {
  FakeEventSource.newest.answer();
  FakeEventSource.newest.say("ready", "1");
  for (let ping = 0; ping < 5; ping++) {
    await clock.pass(15_000);
    FakeEventSource.newest.say("ping");
  }
  assert.equal(FakeEventSource.all.length, 1);
  await clock.pass(SILENCE + 5_000);
  assert.equal(FakeEventSource.all.length, 2);
  assert.equal(FakeEventSource.all[0].readyState, 2);
  assert.equal(FakeEventSource.newest.url.searchParams.get("since"), "1");
});

test("one missed ping is told, and a server that does not answer after two gets words", async () => {
  FakeEventSource.newest.answer();
  FakeEventSource.newest.say("ready", "1");
  await clock.pass(QUIET + 2_500);
  assert.equal(stream.state, "quiet");
  FakeEventSource.newest.say("ping");
  assert.equal(stream.state, "live");
  await clock.pass(SILENCE + 2_500);
  assert.equal(stream.state, "reconnecting");
  await clock.pass(10_000);
  assert.ok(states.includes("reconnecting slow"));
  FakeEventSource.newest.answer();
  FakeEventSource.newest.say("ready", "1");
  assert.equal(stream.state, "live");
});

test("what a replaced connection still says is not heard", async () => {
  const first = FakeEventSource.newest;
  first.answer();
  first.say("ready", "1");
  await clock.pass(SILENCE + 5_000);
  first.say("message", "99");
  FakeEventSource.newest.fail({ forGood: true });
  await clock.pass(5_000);
  assert.equal(FakeEventSource.newest.url.searchParams.get("since"), "1");
});

test("a server in trouble is asked less and less often, and words are found for its silence", async () => {
  const asked = [];
  globalThis.fetch = async () => {
    asked.push(Date.now());
    return new Response("", { status: 502 });
  };
  FakeEventSource.newest.fail({ forGood: true });
  await clock.pass(1_000);
  FakeEventSource.newest.fail({ forGood: true });
  await clock.pass(10 * 60_000);
  const last = asked.at(-1) - asked.at(-2);
  assert.ok(last >= 15_000 && last <= 30_000, `${last}`);
  assert.ok(asked.length < 60);
  globalThis.fetch = async () => new Response("");
  await clock.pass(30_000);
  FakeEventSource.newest.answer();
  FakeEventSource.newest.say("ready", "1");
  assert.equal(stream.state, "live");
});

test("a cursor that the server cannot read is given up, and said to be", async () => {
  FakeEventSource.newest.answer();
  FakeEventSource.newest.say("ready", "old");
  globalThis.fetch = async (url) =>
    new Response("", { status: url.includes("since=") ? 400 : 200 });
  FakeEventSource.newest.fail({ forGood: true });
  await clock.pass(1_000);
  FakeEventSource.newest.fail({ forGood: true });
  await clock.pass(2_000);
  assert.equal(lost, 1);
  assert.equal(FakeEventSource.newest.url.href, "http://sse.test/events?c=x&last=50");
});

test("a refusal is told in the server's words", async () => {
  let told = null;
  stream.stop();
  stream = new ChatStream({
    url: new URL("http://sse.test/events?c=x"),
    last: 0,
    types: [],
    on: {
      event() {},
      gap() {},
      lost() {},
      state: (state, { problem }) => (told = problem ?? told),
    },
  });
  stream.start();
  assert.equal(FakeEventSource.newest.url.href, "http://sse.test/events?c=x");
  globalThis.fetch = async () =>
    new Response('{"detail":"Not you."}', {
      status: 403,
      headers: { "content-type": "application/problem+json" },
    });
  FakeEventSource.newest.fail({ forGood: true });
  await clock.pass(1_000);
  FakeEventSource.newest.fail({ forGood: true });
  await clock.pass(2_000);
  assert.equal(stream.state, "refused");
  assert.equal(told.detail, "Not you.");
});

test("a connection that is slow to come is said to be slow", async () => {
  await clock.pass(10_000);
  assert.ok(states.includes("connecting slow"));
  FakeEventSource.newest.answer();
  assert.equal(stream.state, "open");
});

test("after stop nothing more happens", async () => {
  FakeEventSource.newest.fail({ forGood: true });
  stream.stop();
  await clock.pass(60_000);
  assert.equal(FakeEventSource.all.length, 1);
  assert.equal(stream.state, "closed");
});

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { MOST_UNSENT, Outbox } from "../../../../../client-demo/chat-outbox.js";
import { FakeClock, settled } from "./fake-clock.js";

const CHANNEL = "c3743620-8c0c-4b0b-8d3a-7a2f6b3f6b11";
const OTHER = "d3743620-8c0c-4b0b-8d3a-7a2f6b3f6b11";

let clock;
beforeEach(() => (clock = new FakeClock()));
afterEach(() => clock.restore());

/** A `Storage` in memory. */
class Memory {
  items = new Map();
  getItem = (key) => this.items.get(key) ?? null;
  setItem = (key, value) => this.items.set(key, value);
  removeItem = (key) => this.items.delete(key);
}

const problem = (status, detail = "", headers = {}) =>
  new Response(JSON.stringify({ title: "No", detail, status }), {
    status,
    headers: { "content-type": "application/problem+json", ...headers },
  });

const accepted = (body, status = 201) => Response.json({ ...JSON.parse(body), seq: 1 }, { status });

/** An outbox whose server answers as `answer(message, nth)` says; `sent` is what it was asked. */
function outbox(answer, options = {}) {
  const sent = [];
  const states = [];
  const box = new Outbox({
    send: async (channel, body, signal) => {
      const { id } = JSON.parse(body);
      sent.push(id);
      const result = await answer(body, sent.filter((one) => one === id).length, signal);
      if (result instanceof Error) throw result;
      return result;
    },
    storage: new Memory(),
    key: "unsent",
    changed: ({ id, state }) => states.push(`${id} ${state}`),
    ...options,
  });
  box.start();
  return { box, sent, states };
}

const down = () => new TypeError("network");

test("200, 201 and 202 are sent", async () => {
  const statuses = { a: 200, b: 201, c: 202 };
  const { box, states } = outbox((body) => accepted(body, statuses[JSON.parse(body).id]));
  for (const id of "abc") box.add(CHANNEL, { id, text: id });
  await clock.pass(0);
  assert.deepEqual(states.slice(-3), ["a sent", "b sent", "c sent"]);
  assert.deepEqual(box.list(CHANNEL), []);
});

test("what was not acknowledged is sent again under the same id, and those behind it wait", async () => {
  const { box, sent } = outbox((body, nth) =>
    body.includes('"a"') && nth < 4 ? down() : accepted(body),
  );
  box.add(CHANNEL, { id: "a", text: "1" });
  box.add(CHANNEL, { id: "b", text: "2" });
  box.add(OTHER, { id: "x", text: "another channel does not wait" });
  await clock.pass(0);
  assert.deepEqual(sent, ["a", "x"]);
  await clock.pass(60_000);
  assert.deepEqual(sent, ["a", "x", "a", "a", "a", "b"]);
});

test("502, 503 and 429 are tried again, not before Retry-After says", async () => {
  for (const status of [500, 502, 503, 429, 408]) {
    const { box, sent } = outbox((body, nth) =>
      nth === 1 ? problem(status, "", { "retry-after": "20" }) : accepted(body),
    );
    box.add(CHANNEL, { id: "a", text: "1" });
    await clock.pass(19_900);
    assert.deepEqual(sent, ["a"], String(status));
    await clock.pass(2_000);
    assert.deepEqual(sent, ["a", "a"], String(status));
  }
});

test("4xx is not sent, with the server's words, and the next goes on", async () => {
  const { box, sent } = outbox((body) =>
    body.includes('"a"') ? problem(413, "Send less.") : accepted(body),
  );
  const post = box.add(CHANNEL, { id: "a", text: "1" });
  box.add(CHANNEL, { id: "b", text: "2" });
  await clock.pass(60_000);
  assert.deepEqual(sent, ["a", "b"]);
  assert.equal(post.state, "failed");
  assert.equal(post.problem.status, 413);
  assert.equal(post.problem.detail, "Send less.");
  assert.deepEqual(box.list(CHANNEL), [post]);
});

test("a failed post is sent after a retry, and forgotten after a discard", async () => {
  let full = true;
  const { box, sent } = outbox((body) => (full ? problem(422) : accepted(body)));
  const one = box.add(CHANNEL, { id: "a", text: "1" });
  box.add(CHANNEL, { id: "b", text: "2" });
  await clock.pass(0);
  full = false;
  box.retry("a");
  box.retry("a");
  box.discard("b");
  await clock.pass(0);
  assert.equal(one.state, "sent");
  assert.deepEqual(sent, ["a", "b", "a"]);
  assert.deepEqual(box.list(CHANNEL), []);
});

test("after two minutes without an answer it is not sent, and can be retried", async () => {
  let away = true;
  const { box } = outbox((body) => (away ? down() : accepted(body)));
  const post = box.add(CHANNEL, { id: "a", text: "1" });
  await clock.pass(110_000);
  assert.equal(post.state, "sending");
  await clock.pass(60_000);
  assert.equal(post.state, "failed");
  away = false;
  box.retry("a");
  await clock.pass(0);
  assert.equal(post.state, "sent");
});

test("unsent posts survive a reload, in their order and with their ids", async () => {
  const storage = new Memory();
  const first = outbox((body) => (body.includes('"b"') ? problem(400, "Broken.") : down()), {
    storage,
  });
  first.box.add(CHANNEL, { id: "b", text: "2" });
  await clock.pass(0);
  first.box.add(CHANNEL, { id: "a", text: "1" });
  first.box.add(CHANNEL, { id: "c", text: "3" });
  await clock.pass(0);
  first.box.stop();

  const second = outbox((body) => accepted(body), { storage });
  assert.deepEqual(
    second.box.list(CHANNEL).map(({ id, state }) => [id, state]),
    [
      ["b", "failed"],
      ["a", "sending"],
      ["c", "sending"],
    ],
  );
  assert.equal(second.box.list(CHANNEL)[0].problem.detail, "Broken.");
  await clock.pass(0);
  assert.deepEqual(second.sent, ["a", "c"]);
  second.box.discard("b");
  assert.equal(storage.getItem("unsent"), null);
});

test("a post that comes by the stream is sent, even if its answer never came", async () => {
  const { box, sent, states } = outbox((body, nth, signal) =>
    body.includes('"a"')
      ? new Promise((done) => signal.addEventListener("abort", () => done(down())))
      : accepted(body),
  );
  box.add(CHANNEL, { id: "a", text: "1" });
  box.add(CHANNEL, { id: "b", text: "2" });
  await clock.pass(1_000);
  box.confirm("a", { id: "a", seq: 7 });
  await clock.pass(0);
  assert.deepEqual(sent, ["a", "b"]);
  assert.deepEqual(states, ["a sending", "b sending", "a sent", "b sent"]);
});

test("a request without an answer is given up after 20 seconds", async () => {
  const { box, sent } = outbox((body, nth, signal) =>
    nth === 1
      ? new Promise((done) => signal.addEventListener("abort", () => done(down())))
      : accepted(body),
  );
  box.add(CHANNEL, { id: "a", text: "1" });
  await clock.pass(22_000);
  assert.deepEqual(sent, ["a", "a"]);
});

test("a 200 that is not the server's is not believed", async () => {
  const { box, sent } = outbox((body, nth) =>
    nth === 1 ? new Response("<h1>Please log in</h1>") : accepted(body),
  );
  const post = box.add(CHANNEL, { id: "a", text: "1" });
  await clock.pass(2_000);
  assert.deepEqual(sent, ["a", "a"]);
  assert.equal(post.state, "sent");
});

test("a network that is back ends the pause", async () => {
  const { box, sent } = outbox((body, nth) => (nth < 6 ? down() : accepted(body)));
  const post = box.add(CHANNEL, { id: "a", text: "1" });
  for (let turn = 0; turn < 5; turn++) {
    await settled();
    box.wake();
  }
  await settled();
  assert.equal(sent.length, 6);
  assert.equal(post.state, "sent");
});

test("no more than a bounded number is kept", () => {
  const { box } = outbox(() => down());
  for (let post = 0; post < MOST_UNSENT; post++) box.add(CHANNEL, { id: `${post}`, text: "x" });
  assert.throws(() => box.add(CHANNEL, { id: "one more", text: "x" }), RangeError);
});

test("a storage that is broken, full or forbidden is done without", async () => {
  const broken = {
    getItem: () => "{not json",
    setItem: () => {
      throw new Error("full");
    },
    removeItem: () => {
      throw new Error("forbidden");
    },
  };
  const { box } = outbox((body) => accepted(body), { storage: broken });
  const post = box.add(CHANNEL, { id: "a", text: "1" });
  await clock.pass(0);
  assert.equal(post.state, "sent");
});

import assert from "node:assert/strict";
import { test } from "node:test";

import { inEveryBrowser } from "../support/suite.js";

const isStream = ({ url }) => url.startsWith("/events");
const isPost = ({ method }) => method === "POST";
const problem = (status, detail, headers = {}) => ({
  status,
  headers: {
    "content-type": "application/problem+json",
    "access-control-allow-origin": "*",
    ...headers,
  },
  body: JSON.stringify({ type: "about:blank", title: "No", status, detail }),
});

inEveryBrowser((world) => {
  test("the network goes and comes back: nothing is lost, nothing is doubled", async () => {
    const channel = world.channel();
    const front = await world.front();
    const tab = await world.open(front.address(channel));
    await tab.say("before");
    await tab.hasMessage("before", "sent");
    front.cut();
    await tab.state("reconnecting");
    for (const text of ["missed 1", "missed 2", "missed 3"]) await world.hark.post(channel, text);
    await tab.say("written without a network 1");
    await tab.say("written without a network 2");
    await tab.hasMessage("written without a network 1", "sending");
    await tab.screenshot(`${world.name}-no-network`);
    front.heal();
    await tab.live();
    await tab.hasMessage("written without a network 2", "sent");
    const all = [
      "before",
      "missed 1",
      "missed 2",
      "missed 3",
      "written without a network 1",
      "written without a network 2",
    ];
    await tab.shows(...all);
    const { messages } = await world.hark.log(channel);
    assert.deepEqual(
      messages.map(({ text }) => text),
      all,
    );
    await world.hark.post(channel, "and on");
    await tab.shows(...all, "and on");
  });

  test("a stream that breaks again and again loses nothing", async () => {
    const channel = world.channel();
    const front = await world.front();
    const tab = await world.open(front.address(channel));
    const texts = [];
    for (let turn = 1; turn <= 3; turn++) {
      front.sse.drop();
      texts.push(`${turn}`);
      await world.hark.post(channel, `${turn}`);
      await tab.shows(...texts);
    }
  });

  test("a browser that wrongly says that there is no network is not believed for long", async () => {
    const channel = world.channel();
    const tab = await world.open(world.address(channel));
    // Read at once: a ping that comes the moment after is better proof already.
    const said = await tab.page.evaluate(() => {
      window.dispatchEvent(new Event("offline"));
      return document.body.innerText;
    });
    assert.match(said, /No network/);
    await world.hark.post(channel, "it is there");
    await tab.shows("it is there");
    await tab.live();
  });

  test("a connection that died without a word is replaced when the network changes", async () => {
    const channel = world.channel();
    const front = await world.front();
    const tab = await world.open(front.address(channel));
    await tab.say("before");
    await tab.hasMessage("before", "sent");
    front.sse.silence();
    await world.hark.post(channel, "unheard");
    await tab.page.evaluate(() => window.dispatchEvent(new Event("online")));
    await tab.shows("before", "unheard");
    await tab.live();
  });

  test("while the stream lives a message is sent, whatever the browser says of the network", async () => {
    const tab = await world.open(world.address(world.channel()), {
      before: () => Object.defineProperty(Navigator.prototype, "onLine", { get: () => false }),
    });
    await tab.say("it goes");
    const sent = () => document.querySelector(".message[data-state=sent]");
    // Without the stream's word it is tried every 15 s.
    await tab.page.waitForFunction(sent, { polling: 50, timeout: 7_000 });
  });

  test("a proxy that answers the stream with 502 once is survived", async () => {
    const channel = world.channel();
    const front = await world.front();
    const tab = await world.open(front.address(channel), { foreignAnswers: true });
    await tab.say("before");
    await tab.hasMessage("before", "sent");
    const happened = front.sse.once(isStream, { status: 502, body: "Bad Gateway" });
    front.sse.drop();
    await happened;
    await world.hark.post(channel, "meanwhile");
    await tab.live();
    await tab.shows("before", "meanwhile");
  });

  test("502 at the first visit, twice, is survived too", async () => {
    const channel = world.channel();
    await world.hark.post(channel, "already there");
    const front = await world.front();
    const twice = [1, 2].map(() => front.sse.once(isStream, { status: 502 }));
    const tab = await world.open(front.address(channel), { foreignAnswers: true });
    await Promise.all(twice);
    await tab.shows("already there");
  });

  test("503 and a lost answer: the message is sent again by itself, and is there once", async () => {
    const channel = world.channel();
    const front = await world.front();
    const tab = await world.open(front.address(channel));
    const refused = front.chat.once(
      isPost,
      problem(503, "The store is full.", { "retry-after": "1" }),
    );
    await tab.say("after 503");
    await refused;
    await tab.hasMessage("after 503", "sent");
    front.sse.cut(); // or the stream would bring what the answer did not
    const unheard = front.chat.once(isPost, { deaf: true });
    await tab.say("stored, but not answered");
    await unheard;
    await tab.hasMessage("stored, but not answered", "sent");
    front.sse.heal();
    await tab.live();
    await tab.shows("after 503", "stored, but not answered");
    const { messages } = await world.hark.log(channel);
    assert.deepEqual(
      messages.map(({ text }) => text),
      ["after 503", "stored, but not answered"],
    );
  });

  test("a message that the server refuses says why, and is sent by the button", async () => {
    const channel = world.channel();
    const front = await world.front();
    const tab = await world.open(front.address(channel));
    const refused = front.chat.once(isPost, problem(403, "You may not post here today."));
    await tab.say("please");
    await refused;
    await tab.hasMessage("please", "failed");
    await tab.says("You may not post here today.");
    await tab.say("something else"); // is not held up
    await tab.hasMessage("something else", "sent");
    await tab.screenshot(`${world.name}-not-sent`);
    await tab.page.click(".message[data-state=failed] .retry");
    await tab.hasMessage("please", "sent");
    await tab.shows("something else", "please");
  });

  test("a message that is too large is refused by the service itself, and can be discarded", async () => {
    const channel = world.channel();
    const tab = await world.open(world.address(channel));
    await tab.page.$eval("#text", (field) => (field.value = "x".repeat(70_000)));
    await tab.say("!");
    await tab.until(() => document.querySelector(".message[data-state=failed]"));
    const retry = await tab.page.$eval(".message[data-state=failed] .retry", (one) => one.checkVisibility());
    assert.equal(retry, false, "it would not get shorter by that");
    await tab.page.click(".message[data-state=failed] .discard");
    await tab.shows();
    assert.deepEqual((await world.hark.log(channel)).messages, []);
  });

  test("what is not sent survives a reload", async () => {
    const channel = world.channel();
    const front = await world.front();
    const tab = await world.open(front.address(channel));
    const refused = front.chat.once(isPost, problem(422, "Not like this."));
    await tab.say("refused");
    await refused;
    await tab.hasMessage("refused", "failed");
    front.chat.cut();
    await tab.say("on its way");
    await tab.hasMessage("on its way", "sending");
    await tab.reload();
    await tab.hasMessage("refused", "failed");
    front.chat.heal();
    await tab.hasMessage("on its way", "sent");
    await tab.page.click(".message[data-state=failed] .retry");
    await tab.hasMessage("refused", "sent");
    await tab.shows("on its way", "refused");
    assert.equal((await world.hark.log(channel)).messages.length, 2);
  });
});

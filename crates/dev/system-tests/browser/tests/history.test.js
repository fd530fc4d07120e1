import assert from "node:assert/strict";
import { test } from "node:test";

import { KEEP_TEN } from "../support/hark.js";
import { inEveryBrowser } from "../support/suite.js";

const numbers = (from, to) =>
  Array.from({ length: to - from + 1 }, (_, place) => `number ${from + place}`);

inEveryBrowser((world) => {
  test("scrolling up brings the history, to its beginning, without a jump", async () => {
    const channel = world.channel();
    for (const text of numbers(1, 170)) await world.hark.post(channel, text);
    const tab = await world.open(world.address(channel));
    await tab.hasMessage("number 170");
    await tab.until(() => {
      const log = document.getElementById("log");
      return log.scrollHeight - log.scrollTop - log.clientHeight < 2;
    });
    const before = (await tab.texts()).length;
    assert.ok(before < 170, `${before} at first`);
    for (let oldest = ""; oldest !== "number 1"; oldest = (await tab.texts())[0]) {
      const height = await tab.page.$eval("#log", (log) => log.scrollHeight);
      await tab.scrollTo(0);
      // What was at the top before stays in view: the place moves with what is put in front.
      await tab.until((height) => {
        const log = document.getElementById("log");
        return log.scrollHeight > height
          ? log.scrollTop > 0
          : document.body.innerText.includes("This is the beginning of the channel.");
      }, height);
    }
    await tab.says("This is the beginning of the channel.");
    await tab.shows(...numbers(1, 170));
    await tab.scrollTo(0);
    await tab.screenshot(`${world.name}-beginning`);
  });

  test("who reads further up is left there, and told of new messages", async () => {
    const channel = world.channel();
    for (const text of numbers(1, 40)) await world.hark.post(channel, text);
    const tab = await world.open(world.address(channel));
    await tab.hasMessage("number 40");
    await tab.until(() => document.getElementById("log").scrollTop > 400);
    await tab.scrollTo(300);
    await tab.says("To the newest");
    await world.hark.post(channel, "new 1");
    await world.hark.post(channel, "new 2");
    await tab.says("2 new messages");
    assert.equal(await tab.page.$eval("#log", (log) => log.scrollTop), 300);
    await tab.screenshot(`${world.name}-new-messages`);
    await tab.page.click("#newer");
    await tab.until(() => document.getElementById("newer").hidden);
    assert.ok((await tab.fromEnd()) < 2);
    await world.hark.post(channel, "followed");
    await tab.hasMessage("followed");
    await tab.until(() => {
      const log = document.getElementById("log");
      return log.scrollHeight - log.scrollTop - log.clientHeight < 2;
    });
  });

  test("a flood does not make the page grow for ever, and what was taken out comes back", async () => {
    const channel = world.channel();
    const tab = await world.open(world.address(channel));
    const entries = () => tab.page.$$eval("#messages > li", (all) => all.length);
    for (let sent = 0; sent < 1_100; sent += 100) {
      await Promise.all(
        numbers(sent + 1, sent + 100).map((text) => world.hark.post(channel, text)),
      );
    }
    await world.hark.post(channel, "the last");
    await tab.hasMessage("the last");
    const kept = await entries();
    assert.ok(kept >= 700 && kept <= 1_000, `${kept} entries`);
    await tab.until(() => document.getElementById("log").scrollTop > 1_000);
    await tab.scrollTo(0);
    await tab.until((kept) => document.querySelectorAll("#messages > li").length > kept, kept);
    const texts = await tab.texts();
    assert.equal(new Set(texts).size, texts.length);
    const { messages } = await world.hark.log(channel); // the oldest 1,000
    const known = messages.map(({ text }) => text);
    assert.deepEqual(texts.slice(0, 50), known.slice(known.indexOf(texts[0])).slice(0, 50));
  });

  test("where messages have expired the page says how many are missing", async () => {
    const hark = await world.ownHark({ environment: KEEP_TEN });
    const channel = world.channel();
    for (const text of numbers(1, 3)) await hark.post(channel, text);
    const front = await world.front(hark);
    const tab = await world.open(front.address(channel));
    await tab.shows(...numbers(1, 3));
    front.cut();
    await tab.state("reconnecting");
    for (const text of numbers(4, 40)) await hark.post(channel, text);
    await hark.stop(); // what broadcast-sse has in memory would do instead
    await hark.start();
    front.redirect(hark);
    const first = await expired(hark, channel);
    front.heal();
    await tab.live();
    await tab.shows(...numbers(1, 3), ...numbers(first, 40));
    await tab.says(
      `${first - 4} messages are missing here: they were older than what the server keeps.`,
    );
    await tab.page.$eval(".gap", (gap) => gap.scrollIntoView({ block: "center" }));
    await tab.screenshot(`${world.name}-gap`);
    await tab.reload();
    await tab.live();
    await tab.says(`${first - 1} earlier messages are no longer kept by the server.`);
  });

  test("where a backup was put back the page says which messages are gone, and goes on", async () => {
    const hark = await world.ownHark();
    const channel = world.channel();
    for (const text of numbers(1, 3)) await hark.post(channel, text);
    const front = await world.front(hark);
    const tab = await world.open(front.address(channel));
    await tab.shows(...numbers(1, 3));
    await hark.stop();
    await hark.backUp();
    await hark.start();
    front.redirect(hark);
    for (const text of numbers(4, 8)) await hark.post(channel, text);
    await tab.shows(...numbers(1, 8));
    front.cut();
    await hark.stop();
    await hark.restore();
    await hark.start();
    front.redirect(hark);
    await hark.post(channel, "after the restore");
    front.heal();
    await tab.shows(...numbers(1, 8), "after the restore");
    await tab.says(
      "The server was restored from a backup: 5 messages, numbers 4 to 8, are no longer on it.",
    );
    await tab.say("and on");
    await tab.hasMessage("and on", "sent");
    await tab.shows(...numbers(1, 8), "after the restore", "and on");
    await tab.reload();
    await tab.live();
    await tab.shows(...numbers(1, 3), "after the restore", "and on");
  });

  /** Waits until retention has been at work; gives the oldest number that is kept. */
  async function expired(hark, channel) {
    for (let tries = 0; tries < 400; tries++) {
      const { first } = await hark.log(channel);
      if (first > 30) return first;
      await new Promise((done) => setTimeout(done, 50));
    }
    throw new Error("retention did not begin within 20 s");
  }
});

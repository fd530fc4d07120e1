import assert from "node:assert/strict";
import { test } from "node:test";

import { inEveryBrowser } from "../support/suite.js";

inEveryBrowser((world) => {
  test("two people chat both ways", async () => {
    const channel = world.channel();
    const ada = await world.open(world.address(channel));
    const bob = await world.open(world.address(channel));
    await ada.name("Ada");
    await ada.say("hello");
    await bob.shows("hello");
    await bob.say("hello yourself\nand how are you?");
    await ada.shows("hello", "hello yourself\nand how are you?");
    await ada.say("fine");
    for (const tab of [ada, bob])
      await tab.shows("hello", "hello yourself\nand how are you?", "fine");
    await ada.hasMessage("fine", "sent");
    await bob.says("Ada");
    await ada.screenshot(`${world.name}-chat`);
    const { messages } = await world.hark.log(channel);
    assert.deepEqual(
      messages.map(({ from }) => from.name),
      ["Ada", undefined, "Ada"],
    );
  });

  test("two tabs of one person show the same", async () => {
    const address = world.address(world.channel());
    const person = await world.person();
    const one = await world.open(address, { person });
    const other = await world.open(address, { person });
    await one.say("from the one");
    await other.say("from the other");
    for (const tab of [one, other]) {
      await tab.hasMessage("from the other", "sent");
      await tab.shows("from the one", "from the other");
    }
  });

  test("who claims to be me is not shown as me", async () => {
    const channel = world.channel();
    const tab = await world.open(world.address(channel));
    await tab.say("mine");
    await tab.hasMessage("mine", "sent");
    const { from } = (await world.hark.log(channel)).messages[0];
    await world.hark.post(channel, "forged", "Eve", { from });
    await tab.hasMessage("forged", "");
    const own = () =>
      tab.page.$$eval(".message.own .text", (all) => all.map((one) => one.textContent));
    await tab.hasMessage("forged");
    assert.deepEqual(await own(), ["mine"]);
    await tab.reload();
    await tab.hasMessage("forged");
    assert.deepEqual(await own(), ["mine"]);
  });

  test("web addresses are links, and nothing else is", async () => {
    const channel = world.channel();
    const tab = await world.open(world.address(channel));
    const text = "see https://example.org/a?b=1&c=<i>, (http://localhost:1/x). javascript:alert(1) ftp://x.y";
    await world.hark.post(channel, text);
    await tab.shows(text);
    const links = await tab.page.$$eval(".message .text a", (all) =>
      all.map(({ href, rel, target }) => [href, rel, target]),
    );
    assert.deepEqual(links, [
      ["https://example.org/a?b=1&c=", "noopener noreferrer", "_blank"],
      ["http://localhost:1/x", "noopener noreferrer", "_blank"],
    ]);
  });

  test("a draft survives a reload, and is gone when it was sent", async () => {
    const tab = await world.open(world.address(world.channel()));
    await tab.page.bringToFront();
    await tab.page.type("#text", "half a thou");
    await tab.reload();
    await tab.live();
    await tab.until(() => document.getElementById("text").value === "half a thou");
    await tab.say("ght");
    await tab.hasMessage("half a thought", "sent");
    await tab.reload();
    await tab.live();
    assert.equal(await tab.page.$eval("#text", ({ value }) => value), "");
  });

  test("after a reload the history is there, once", async () => {
    const channel = world.channel();
    const tab = await world.open(world.address(channel));
    await tab.say("before");
    await tab.hasMessage("before", "sent");
    await tab.reload();
    await tab.live();
    await tab.shows("before");
    await tab.hasMessage("before", "sent"); // still known as an own one
    await tab.say("after");
    await tab.shows("before", "after");
    await tab.reload();
    await tab.live();
    await tab.shows("before", "after");
  });

  test("what is posted with HTML, emoji or right-to-left text is shown as text", async () => {
    const channel = world.channel();
    const tab = await world.open(world.address(channel));
    const texts = [
      "<script>alert(1)</script>",
      '<img src=x onerror="alert(2)"><b>bold</b>',
      "👩‍👩‍👧‍👦 🎉 e\u0301",
      "مرحبا بالعالم \u202e!",
      "two\nlines\u2028and a separator\n\ndata: not a field",
      "\u0001\u0007 control",
    ];
    for (const text of texts) await world.hark.post(channel, text, '<i>"Eve"</i>');
    await tab.shows(...texts);
    await tab.reload();
    await tab.live();
    await tab.shows(...texts);
    const made = await tab.page.$$eval(
      "#messages script, #messages img, #messages b, #messages i",
      (all) => all.length,
    );
    assert.equal(made, 0);
    assert.equal(await tab.page.$eval(".author bdi", (name) => name.textContent), '<i>"Eve"</i>');
    await tab.screenshot(`${world.name}-text-only`);
  });

  test("events of other types are counted, not shown as messages", async () => {
    const channel = world.channel();
    const tab = await world.open(world.address(channel));
    await world.hark.post(channel, "one");
    for (const type of ["door", "sensor.reading"])
      await world.hark.post(channel, undefined, "Door", { type, data: { open: true } });
    await world.hark.post(channel, "two");
    await tab.shows("one", "two");
    await tab.says("2 other events");
  });

  test("without a channel in the address the page makes one", async () => {
    const tab = await world.open(world.address("").replace("?c=", ""));
    const first = await tab.page.evaluate(() => new URL(location.href).searchParams.get("c"));
    assert.match(first, /^[0-9a-f]{8}-[0-9a-f]{4}-4/);
    await tab.says("Nothing has been said here yet");
    await Promise.all([tab.page.waitForNavigation(), tab.page.click("#new-channel")]);
    await tab.live();
    const second = await tab.page.evaluate(() => new URL(location.href).searchParams.get("c"));
    assert.match(second, /^[0-9a-f]{8}-[0-9a-f]{4}-4/);
    assert.notEqual(second, first);
  });

  test("localhost is as good an address as 127.0.0.1", async () => {
    const channel = world.channel();
    const tab = await world.open(`http://localhost:${world.hark.port("demo")}/?c=${channel}`);
    await tab.say("hello");
    await tab.hasMessage("hello", "sent");
    await world.hark.post(channel, "hello there");
    await tab.shows("hello", "hello there");
  });

  test("an address with something else than a channel says what to do", async () => {
    const tab = await world.enter(world.address("lobby"));
    await tab.state("refused");
    await tab.says("there must be a UUID");
    const live = await tab.page.$$eval("#composer :enabled", (all) => all.length);
    assert.equal(live, 0, "nothing can be written that cannot be sent");
  });

  test("the keyboard alone is enough", async () => {
    const channel = world.channel();
    for (let number = 1; number <= 60; number++) await world.hark.post(channel, `${number}`);
    const tab = await world.open(world.address(channel));
    await tab.hasMessage("60");
    const { page } = tab;
    await page.bringToFront();
    await page.evaluate(() => document.activeElement.blur());
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
    await page.keyboard.press("Enter");
    await tab.until(() => document.activeElement.id === "text");
    await page.keyboard.type("typed");
    await page.keyboard.press("Enter");
    await tab.hasMessage("typed", "sent");
    // Every control has a name for screen readers.
    const nameless = await page.$$eval("button, input, textarea, [role=log]", (all) =>
      all
        .filter(
          (one) =>
            !(
              one.ariaLabel ||
              one.labels?.length ||
              one.textContent.trim() ||
              one.getAttribute("aria-labelledby")
            ),
        )
        .map((one) => one.outerHTML),
    );
    assert.deepEqual(nameless, []);
  });
});

import assert from "node:assert/strict";
import { test } from "node:test";

import { DESKTOP, PHONE } from "../support/sizes.js";
import { inEveryBrowser } from "../support/suite.js";

const TALK = [
  ["Ada", "Good morning! Is the stream still up after the restart?"],
  ["Grace Hopper", "Yes. I pulled the plug twice.\n\nNothing lost, nothing twice."],
  ["Grace Hopper", "🎉🎉"],
  ["زينب", "مرحبا بالجميع، كيف الحال؟"],
  [
    "Ada",
    "https://example.org/a/very/long/address/without/any/space/that/has/to/break/somewhere?x=1234567890",
  ],
];

inEveryBrowser((world) => {
  for (const [device, size] of [
    ["desktop", DESKTOP],
    ["phone", PHONE],
  ]) {
    test(`fits a ${device}, in light and dark`, async () => {
      const channel = world.channel();
      const tab = await world.open(world.address(channel), { size });
      await tab.says("Nothing has been said here yet");
      await pictures(tab, `${device}-empty`);
      for (const [name, text] of TALK) await world.hark.post(channel, text, name);
      await tab.name("Marie");
      await tab.say("Hello everyone");
      await tab.hasMessage("Hello everyone", "sent");
      await tab.shows(...TALK.map(([, text]) => text), "Hello everyone");
      await pictures(tab, `${device}-talk`);
      const sideways = await tab.page.evaluate(
        () =>
          [document.documentElement, document.getElementById("log")].filter(
            (one) => one.scrollWidth > one.clientWidth,
          ).length,
      );
      assert.equal(sideways, 0, "something is wider than the window");
    });
  }

  test("the time is shown once below what one person says within minutes, and told for each", async () => {
    const channel = world.channel();
    const names = ["Ada", "Ada", "Ada", "Ada", "Grace", "Grace", "Ada"];
    for (const [number, name] of names.entries()) await world.hark.post(channel, `${number}`, name);
    const tab = await world.open(world.address(channel));
    await tab.shows(...names.map((_, number) => `${number}`));
    const times = () =>
      tab.page.$$eval(".message", (all) =>
        all.map((one) => ({
          shown: one.querySelector(".meta").getBoundingClientRect().width > 2,
          told: one.querySelector("time").textContent !== "",
          hover: one.querySelector(".bubble").title,
        })),
      );
    const before = await times();
    assert.ok(before.every(({ told, hover }) => told && /\d{4}.*:\d\d/.test(hover)));
    for (const last of [3, 5, 6]) assert.ok(before[last].shown, `${last}`);
    // One more where five minutes of the clock end just then.
    const shown = before.filter(({ shown }) => shown).length;
    assert.ok(shown <= 4, `${shown} times for ${names.length} messages`);
    await world.hark.post(channel, "7", "Grace");
    await tab.hasMessage("7");
    assert.ok((await times())[7].shown);
  });

  /** In both colour schemes where the browser can be told which. */
  async function pictures(tab, name) {
    for (const value of ["light", "dark"]) {
      try {
        await tab.page.emulateMediaFeatures([{ name: "prefers-color-scheme", value }]);
      } catch (error) {
        if (error.name !== "UnsupportedOperation") throw error;
        return tab.screenshot(`${world.name}-${name}`);
      }
      await tab.screenshot(`${world.name}-${name}-${value}`);
    }
  }
});

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

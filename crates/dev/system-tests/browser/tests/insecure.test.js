import assert from "node:assert/strict";
import { networkInterfaces } from "node:os";
import { test } from "node:test";

import { inEveryBrowser } from "../support/suite.js";

inEveryBrowser((world) => {
  test("works without what browsers keep from pages of plain http", async () => {
    const channel = world.channel();
    const tab = await world.open(world.address(channel), {
      before: () => {
        delete Crypto.prototype.randomUUID;
        for (const gone of ["clipboard", "locks"]) {
          Object.defineProperty(Navigator.prototype, gone, {
            get: () => undefined,
            configurable: true,
          });
        }
        window.copied = [];
        document.addEventListener("copy", () => window.copied.push(document.activeElement.value));
      },
    });
    await tab.say("hello");
    await tab.hasMessage("hello", "sent");
    await tab.page.click("#copy-link");
    await tab.says("The link is copied.");
    const link = new RegExp(`c=${channel}$`);
    assert.match((await tab.page.evaluate(() => window.copied))[0], link);
    // And where even the old way is forbidden, the person copies it.
    await tab.page.evaluate(() => (document.execCommand = () => false));
    await tab.page.click("#copy-link");
    await tab.until(() => document.getElementById("link-dialog").open);
    assert.match(await tab.page.$eval("#link", ({ value }) => value), link);
    await tab.page.click("#link-dialog button");
    await tab.until(() => !document.getElementById("link-dialog").open);
  });

  test("works from another machine's point of view", async (context) => {
    const hark = await world.ownHark({ host: "0.0.0.0" });
    const address = Object.values(networkInterfaces())
      .flat()
      .find(({ family, internal }) => family === "IPv4" && !internal)?.address;
    if (!address)
      context.diagnostic("this machine has no address but loopback: the page is opened there");
    const host = address ?? "127.0.0.1";
    const channel = world.channel();
    const tab = await world.open(`http://${host}:${hark.port("demo")}/?c=${channel}`);
    assert.equal(await tab.page.evaluate(() => isSecureContext), address === undefined);
    await tab.say("from the phone");
    await tab.hasMessage("from the phone", "sent");
    await hark.post(channel, "from the desk");
    await tab.shows("from the phone", "from the desk");
  });
});

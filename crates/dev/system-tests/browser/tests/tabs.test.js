import assert from "node:assert/strict";
import { test } from "node:test";

import { Services } from "../support/services.js";
import { inEveryBrowser } from "../support/suite.js";

/** So many streams tabs have at most over plain HTTP; of the browser's six connections one is left. */
const SHARED = 5;

inEveryBrowser((world) => {
  test("of ten tabs the one that is looked at has a stream, and all show everything", async () => {
    const channel = world.channel();
    await tenTabs(world.address(channel), (text) => world.hark.post(channel, text));
  });

  test("ten tabs of a page that is behind one address with its services, by plain HTTP", async () => {
    const services = await Services.start();
    try {
      const channel = world.channel();
      const address = `${await services.nginx({})}?c=${channel}`;
      await tenTabs(address, (text) => services.post(channel, text));
    } finally {
      await world.clear();
      await services.stop();
    }
  });

  async function tenTabs(address, post) {
    await post("before");
    const person = await world.person();
    const tabs = [];
    for (let number = 1; number <= 10; number++) {
      const tab = await world.enter(address, { person, before: background });
      await look(tabs, tab);
      tabs.push(tab);
      await tab.live();
      await tab.shows("before");
    }
    await streams(tabs, SHARED);
    await tabs[0].state("paused");
    await post("meanwhile");
    await look(tabs, tabs[0]);
    await tabs[0].live();
    await tabs[0].shows("before", "meanwhile");
    await tabs[0].say("from the first");
    await tabs[9].shows("before", "meanwhile", "from the first");
    await streams(tabs, SHARED);
  }

  test("tabs that are all looked at: the seventh says what helps, shows what is said, and goes on", async () => {
    const channel = world.channel();
    await world.hark.post(channel, "before");
    const person = await world.person();
    const open = (how) => world[how](world.address(channel), { person, before: foreground });
    const tabs = [];
    for (let tab = 1; tab <= 6; tab++) tabs.push(await open("open"));
    const seventh = await open("enter");
    await seventh.state("waiting");
    await seventh.says("6 other tabs of this chat use them");
    await seventh.says("Close one of those tabs");
    await seventh.shows("before");
    await seventh.say("without a stream");
    await seventh.hasMessage("without a stream", "sent");
    await tabs[0].shows("before", "without a stream");
    await world.hark.post(channel, "read by GET");
    await seventh.shows("before", "without a stream", "read by GET");
    assert.equal(await seventh.page.$eval("#status", (status) => status.dataset.state), "waiting");
    await seventh.screenshot(`${world.name}-seventh-tab`);
    await tabs[2].close();
    await seventh.live();
    await seventh.say("at last");
    await tabs[0].shows("before", "without a stream", "read by GET", "at last");
    await seventh.shows("before", "without a stream", "read by GET", "at last");
  });

  test("a tab that the browser freezes gives its connection back, and goes on when it is looked at", async () => {
    const channel = world.channel();
    const tab = await world.open(world.address(channel), { before: foreground });
    await tab.page.evaluate(() => document.dispatchEvent(new Event("freeze")));
    await tab.state("paused");
    await world.hark.post(channel, "meanwhile");
    await tab.page.evaluate(() => document.dispatchEvent(new Event("resume")));
    await tab.live();
    await tab.shows("meanwhile");
  });

  /** Brings a tab to the front, as a person does: without a window no browser hides the others. */
  async function look(tabs, tab) {
    for (const other of tabs) if (other !== tab) await other.page.evaluate(() => window.see(false));
    await tab.page.evaluate(() => window.see(true));
  }

  /** Waits until at most so many tabs hold a connection. */
  async function streams(tabs, most) {
    let states;
    for (let tries = 0; tries < 200; tries++) {
      states = await Promise.all(
        tabs.map(({ page }) => page.$eval("#status", (status) => status.dataset.state)),
      );
      if (states.filter((state) => state !== "paused").length <= most) return;
      await new Promise((done) => setTimeout(done, 50));
    }
    throw new Error(`more than ${most} streams: ${states}`);
  }
});

/** Runs in the page before its scripts: nobody looks at it until `see(true)`. */
function background() {
  let state = "hidden";
  Object.defineProperty(Document.prototype, "visibilityState", { get: () => state });
  Object.defineProperty(Document.prototype, "hidden", { get: () => state === "hidden" });
  window.see = (seen) => {
    if ((state === "visible") === seen) return;
    state = seen ? "visible" : "hidden";
    document.dispatchEvent(new Event("visibilitychange"));
  };
}

/** Runs in the page before its scripts: somebody looks at it, whatever the browser thinks. */
function foreground() {
  Object.defineProperty(Document.prototype, "visibilityState", { get: () => "visible" });
  Object.defineProperty(Document.prototype, "hidden", { get: () => false });
}

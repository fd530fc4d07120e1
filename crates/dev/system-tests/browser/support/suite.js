import { randomUUID } from "node:crypto";
import { after, afterEach, before, describe } from "node:test";

import { BROWSERS, launch } from "./browsers.js";
import { ChatPage } from "./chat-page.js";
import { Front } from "./front.js";
import { Hark } from "./hark.js";

/** What one test file takes at most in one browser. */
const LONGEST = 100_000;

/**
 * Describes tests that run in every browser. Each browser gets a hark of its own, each test its
 * own channels, people and tabs.
 *
 * @param {(world: World) => void} tests
 */
export function inEveryBrowser(tests) {
  for (const browser of BROWSERS) {
    describe(browser.name, { timeout: LONGEST }, () => {
      const world = new World(browser);
      before(() => world.start());
      afterEach(() => world.clear());
      after(() => world.stop());
      tests(world);
    });
  }
}

/** A browser and a hark, and what a test opened. */
class World {
  #kind;
  #browser;
  #opened = [];
  hark;

  constructor(kind) {
    this.#kind = kind;
  }

  get name() {
    return this.#kind.name;
  }

  async start() {
    this.hark = await Hark.start();
    this.#browser = await launch(this.#kind);
  }

  async stop() {
    await this.#browser?.close();
    await this.hark?.remove();
  }

  /** A person: what the browser stores for one is not seen by another. */
  async person() {
    const context = await this.#browser.createBrowserContext();
    this.#opened.push(context);
    return context;
  }

  /** Opens the page for a person (a new one if none is given) and waits until it is connected. */
  async open(address, { person, ...options } = {}) {
    const tab = await this.enter(address, { person, ...options });
    await tab.live();
    return tab;
  }

  /** Opens the page, and does not wait. */
  async enter(address, { person, ...options } = {}) {
    const tab = await ChatPage.open(person ?? (await this.person()), address, options);
    this.#opened.push(tab);
    return tab;
  }

  /** The page as hark itself serves it. */
  address(channel) {
    return `${this.hark.addresses.demo.replace(/\/$/, "")}/?c=${channel}`;
  }

  /** Proxies between the page and the services. */
  async front(hark = this.hark) {
    const front = await Front.start(hark);
    this.#opened.push({ close: () => front.stop() });
    return front;
  }

  /** A hark for one test. */
  async ownHark(options) {
    const hark = await Hark.start(options);
    this.#opened.push({ close: () => hark.remove() });
    return hark;
  }

  channel() {
    return randomUUID();
  }

  /** Closes what the test opened, the newest first. */
  async clear() {
    const failures = [];
    for (const opened of this.#opened.splice(0).reverse()) {
      await opened.close().catch((error) => failures.push(error));
    }
    if (failures.length > 0) throw failures[0];
  }
}

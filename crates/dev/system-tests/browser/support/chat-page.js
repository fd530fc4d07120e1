import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";

const PATIENCE = 20_000;
const SHOTS = fileURLToPath(new URL("../../../../../test-output/screenshots/", import.meta.url));

/** What a browser's console says by itself about requests that failed. */
const NETWORK = [
  /^Failed to load resource: (the server responded with a status of|net::ERR_)/,
  /^Cross-Origin Request Blocked: .* Status code: (\(null\)|50\d)\.$/,
  /^Firefox can.t establish a connection/,
  /^The connection to .* was interrupted/,
];
/** The same, of an answer that came from a proxy and so lacks the service's headers. */
const FOREIGN = /^Access to (resource|fetch) at .* has been blocked by CORS policy/;

/** A tab with the chat page, seen as a person sees it. */
export class ChatPage {
  #page;
  #closed = false;
  #expected = [...NETWORK];
  /** What the console said that it should not have. */
  complaints = [];

  /**
   * Opens `address` in a tab of `context`.
   *
   * @param {object} [options]
   * @param {() => void} [options.before] runs in the page before its own scripts
   * @param {{width: number, height: number}} [options.size] of the window
   * @param {boolean} [options.foreignAnswers] whether a proxy will answer in a service's place
   */
  static async open(context, address, { before, size, foreignAnswers } = {}) {
    const tab = new ChatPage();
    if (foreignAnswers) tab.#expected.push(FOREIGN);
    const page = (tab.#page = await context.newPage());
    page.setDefaultTimeout(PATIENCE);
    await page.setViewport(size ?? { width: 1100, height: 760 });
    page.on("console", (message) => {
      if (message.type() === "error") tab.#complain(message.text());
    });
    page.on("pageerror", (error) => tab.#complain(error.message));
    page.on("dialog", (dialog) => {
      tab.#complain(`dialog: ${dialog.message()}`);
      dialog.dismiss().catch(() => {});
    });
    if (before) await page.evaluateOnNewDocument(before);
    await page.goto(address);
    return tab;
  }

  #complain(words) {
    if (!this.#expected.some((pattern) => pattern.test(words))) this.complaints.push(words);
  }

  get page() {
    return this.#page;
  }

  /** Waits until `condition`, a function of the page, gives something true. */
  async until(condition, ...values) {
    try {
      // A tab in the background paints no frames, so time is the only thing to go by.
      await this.#page.waitForFunction(condition, { polling: 50, timeout: PATIENCE }, ...values);
    } catch (error) {
      const seen = await this.#page.evaluate(() => document.body.innerText).catch(() => "nothing");
      throw new Error(
        `waited in vain for ${condition} (${JSON.stringify(values)}); the page says:\n${seen}`,
        {
          cause: error,
        },
      );
    }
  }

  /** Waits for a state of the connection. */
  async state(state) {
    await this.until((state) => document.getElementById("status").dataset.state === state, state);
  }

  async live() {
    await this.state("live");
  }

  /** Writes a message as a person does. */
  async say(text) {
    await this.#page.bringToFront();
    await this.#page.focus("#text");
    for (const [number, line] of text.split("\n").entries()) {
      if (number > 0) {
        await this.#page.keyboard.down("Shift");
        await this.#page.keyboard.press("Enter");
        await this.#page.keyboard.up("Shift");
      }
      await this.#page.keyboard.type(line);
    }
    await this.#page.keyboard.press("Enter");
  }

  async name(name) {
    await this.#page.$eval("#name", (field) => (field.value = ""));
    await this.#page.bringToFront();
    await this.#page.type("#name", name);
  }

  /** The texts of all messages, from the oldest to the newest. */
  texts() {
    return this.#page.$$eval(".message .text", (all) => all.map((one) => one.textContent));
  }

  /** Waits for exactly these messages, in this order. */
  async shows(...texts) {
    const wanted = JSON.stringify(texts);
    await this.until(
      (wanted) =>
        JSON.stringify(
          [...document.querySelectorAll(".message .text")].map((one) => one.textContent),
        ) === wanted,
      wanted,
    );
  }

  /** Waits for a message, in one of the states `sending`, `sent`, `failed` if that is named. */
  async hasMessage(text, state) {
    await this.until(
      (text, state) =>
        [...document.querySelectorAll(".message")].some(
          (one) =>
            one.querySelector(".text").textContent === text &&
            (!state || one.dataset.state === state),
        ),
      text,
      state ?? null,
    );
  }

  /** Waits for words anywhere on the page. */
  async says(words) {
    await this.until((words) => document.body.innerText.includes(words), words);
  }

  /** How far the list is scrolled from its end, in pixels. */
  fromEnd() {
    return this.#page.$eval("#log", (log) => log.scrollHeight - log.scrollTop - log.clientHeight);
  }

  async scrollTo(place) {
    await this.#page.bringToFront();
    await this.#page.$eval("#log", (log, top) => (log.scrollTop = top), place);
  }

  async screenshot(name) {
    await mkdir(SHOTS, { recursive: true });
    await this.#page.bringToFront();
    await this.#page.screenshot({ path: path.join(SHOTS, `${name}.png`) });
  }

  reload() {
    return this.#page.reload();
  }

  /** Closes the tab; what its console complained about fails the test. */
  async close() {
    if (this.#closed) return;
    this.#closed = true;
    await this.#page.close();
    assert.deepEqual(this.complaints, []);
  }
}

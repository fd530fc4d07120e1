import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import http from "node:http";
import { test } from "node:test";

import { inEveryBrowser } from "../support/suite.js";

const README = new URL("../../../../../README.md", import.meta.url);
const PATIENCE = 30_000;

/** The README's code for a page, with the addresses of this hark. */
async function snippet(hark, channel) {
  const readme = await readFile(README, "utf8");
  const [, code] = readme.match(/```js\n(.*?)```/s);
  assert.match(code, /localhost:8081/);
  return code
    .replace("http://localhost:8081/", hark.addresses.sse.replace(/\/?$/, "/"))
    .replace(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/, channel);
}

/** Runs code in an empty page of its own, and keeps what it writes to the console. */
async function run(world, context, code) {
  const server = http.createServer((_, response) => {
    response.writeHead(200, { "content-type": "text/html" });
    response.end("<!doctype html><title>a page</title>");
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  context.after(() => server.close());
  const page = await (await world.person()).newPage();
  await page.goto(`http://localhost:${server.address().port}/`);
  await page.evaluate(`
    window.said = [];
    for (const kind of ["log", "warn"]) console[kind] = (...words) => said.push(words.join(" "));
    window.Original = EventSource;
    window.EventSource = class extends Original {
      constructor(...options) { super(...options); window.stream = this; this.addEventListener("ready", () => (window.ready = true)); }
    };`);
  await page.addScriptTag({ content: code });
  const until = (condition, ...values) =>
    page.waitForFunction(condition, { polling: 50, timeout: PATIENCE }, ...values);
  await until(() => window.ready);
  return { page, until };
}

/** Stops hark until the page has met a refused connection, and starts it again. */
async function restart(hark, page, until) {
  await page.evaluate(() => {
    window.errors = 0;
    const count = (stream) => stream.addEventListener("error", () => (window.errors += 1));
    count(window.stream);
  });
  await hark.stop();
  // The end of the stream, and then nobody who answers: one or the other browser asks again.
  await until(() => window.errors >= 2);
  await hark.start({ same: true });
}

inEveryBrowser((world) => {
  test("the README's code for a page loses nothing over a restart", async (context) => {
    const hark = await world.ownHark();
    const channel = world.channel();
    const { page, until } = await run(world, context, await snippet(hark, channel));
    const shown = (texts) => until((texts) => window.said.join() === texts, texts.join());
    await hark.post(channel, "before");
    await shown(["before"]);
    await restart(hark, page, until);
    const texts = Array.from({ length: 20 }, (_, number) => `later ${number}`);
    for (const text of texts) await hark.post(channel, text);
    await shown(["before", ...texts]);
  });

  test("a bare EventSource does over a restart what the README says", async (context) => {
    const hark = await world.ownHark();
    const url = `${hark.addresses.sse.replace(/\/$/, "")}/events?c=${world.channel()}`;
    const code = `new EventSource(${JSON.stringify(url)});`;
    const { page, until } = await run(world, context, code);
    await restart(hark, page, until);
    const state = world.name === "firefox" ? 2 : 1;
    await until((state) => window.stream.readyState === state, state);
  });
});

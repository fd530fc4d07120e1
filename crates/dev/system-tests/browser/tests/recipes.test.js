import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import http from "node:http";
import { test } from "node:test";

import { inEveryBrowser } from "../support/suite.js";

const RECIPES = new URL("../../../../../docs/recipes.md", import.meta.url);
const PATIENCE = 20_000;

/** Serves the page of a recipe, with the addresses of this hark, and opens it. */
async function open(world, context, recipe, channel) {
  const recipes = await readFile(RECIPES, "utf8");
  const section = recipes.split(`\n## ${recipe}\n`)[1].split("\n## ")[0];
  const address = (name) => world.hark.addresses[name].replace(/\/$/, "");
  const html = section
    .match(/```html\n(.*?)```/s)[1]
    .replace("http://localhost:8080", address("chat"))
    .replace("http://localhost:8081", address("sse"))
    .replace("c3743620-4b1b-4c2b-9d80-05b0e5a2c1f0", channel);
  const server = http.createServer((_, response) => {
    response.writeHead(200, { "content-type": "text/html; charset=utf-8" });
    response.end(html);
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  context.after(() => server.close());
  const page = await (await world.person()).newPage();
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(error.message));
  await page.goto(`http://localhost:${server.address().port}/`);
  const until = (condition, ...values) =>
    page.waitForFunction(condition, { polling: 50, timeout: PATIENCE }, ...values);
  return { page, until, complaints };
}

inEveryBrowser((world) => {
  test("live comments under an article", async (context) => {
    const channel = world.channel();
    await world.hark.post(channel, "older");
    const { page, until, complaints } = await open(
      world,
      context,
      "Live comments under an article",
      channel,
    );
    const shown = (...texts) =>
      until(
        (wanted) =>
          [...document.querySelectorAll("#comments li")].map((one) => one.textContent).join("|") ===
          wanted,
        texts.join("|"),
      );
    await shown("older");
    await page.type("input", "<b>mine</b>");
    await page.click("button");
    await shown("older", "<b>mine</b>");
    await until(() => document.querySelector("input").value === "");
    await world.hark.post(channel, "another's");
    await shown("older", "<b>mine</b>", "another's");
    assert.deepEqual(complaints, []);
  });

  test("a notification bell", async (context) => {
    const channel = world.channel();
    const { page, until, complaints } = await open(world, context, "A notification bell", channel);
    const counts = (number) =>
      until((number) => document.getElementById("unread").textContent === number, `${number}`);
    await until(() => localStorage.getItem("seen"));
    await world.hark.post(channel, "one");
    await world.hark.post(channel, "two");
    await counts(2);
    const address = page.url();
    await page.goto("about:blank");
    await world.hark.post(channel, "while it was closed");
    await page.goto(address);
    await counts(3);
    await page.click("#bell");
    await counts(0);
    await page.reload();
    await world.hark.post(channel, "four");
    await counts(1);
    assert.deepEqual(complaints, []);
  });
});

import assert from "node:assert/strict";
import { test } from "node:test";

import { Services } from "../support/services.js";
import { inEveryBrowser } from "../support/suite.js";

inEveryBrowser((world) => {
  test("a plain EventSource behind nginx and Caddy misses nothing when broadcast-sse restarts", async () => {
    const services = await Services.start();
    try {
      const channel = world.channel();
      const proxies = [await services.nginx(), await services.caddy()];
      // A page of another origin, without the client library.
      const { page } = await world.enter(await services.page("<title>plain</title>"));
      await page.evaluate(
        (urls) => {
          window.streams = urls.map((url) => {
            const stream = new EventSource(url);
            const heard = { texts: [], errors: 0, ready: 0, state: () => stream.readyState };
            stream.onmessage = ({ data }) => heard.texts.push(JSON.parse(data).text);
            stream.onerror = () => heard.errors++;
            stream.addEventListener("ready", () => heard.ready++);
            return heard;
          });
        },
        proxies.map((url) => `${url}events?c=${channel}`),
      );
      const all = (what, count) =>
        page.waitForFunction(
          (what, count) =>
            window.streams.every((heard) => (heard[what].length ?? heard[what]) >= count),
          { polling: 50, timeout: 40_000 },
          what,
          count,
        );
      await all("ready", 1);
      for (let round = 1; round <= 2; round++) {
        await services.post(channel, `before ${round}`);
        await all("texts", 2 * round - 1);
        await services.killSse();
        await services.post(channel, `during ${round}`);
        // The connection that broke, and an answer of the proxy itself.
        await all("errors", 2 * round);
        await services.startSse();
        await all("texts", 2 * round);
      }
      const heard = await page.evaluate(() =>
        window.streams.map(({ texts, state }) => ({ texts, state: state() })),
      );
      const texts = ["before 1", "during 1", "before 2", "during 2"];
      for (const one of heard) assert.deepEqual(one, { texts, state: 1 });
    } finally {
      await services.stop();
    }
  });
});

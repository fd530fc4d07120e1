import assert from "node:assert/strict";
import { test } from "node:test";

import { DESKTOP } from "../support/sizes.js";
import { Services } from "../support/services.js";
import { inEveryBrowser } from "../support/suite.js";

inEveryBrowser((world) => {
  for (const proxy of ["nginx", "caddy"]) {
    test(`the page works under a path behind ${proxy}`, async () => {
      const services = await Services.start();
      try {
        const url = await services[proxy]({ underAPath: true });
        const channel = world.channel();
        for (let number = 1; number <= 60; number++) await services.post(channel, `old ${number}`);
        // Without the last slash, as people write it.
        const tab = await world.open(`${url.slice(0, -1)}?c=${channel}`, { size: DESKTOP });
        const { page } = tab;
        assert.equal(page.url(), `${url}?c=${channel}`);

        await tab.hasMessage("old 60");
        await page.$eval("#log", (log) => (log.scrollTop = 0));
        await tab.hasMessage("old 1");
        await tab.say("from the page");
        await tab.hasMessage("from the page", "sent");
        await services.post(channel, "from elsewhere");
        await tab.hasMessage("from elsewhere");

        await services.killSse();
        await tab.state("reconnecting");
        await tab.say("while it is away");
        await tab.hasMessage("while it is away", "sent");
        await services.post(channel, "missed");
        await services.startSse();
        await tab.live();
        await tab.hasMessage("missed");
        assert.deepEqual((await tab.texts()).slice(-4), [
          "from the page",
          "from elsewhere",
          "while it is away",
          "missed",
        ]);

        // Nothing was asked for outside the path.
        const asked = await page.evaluate(() =>
          performance.getEntriesByType("resource").map(({ name }) => name),
        );
        assert.ok(asked.length > 10, `${asked.length} requests`);
        const outside = asked.filter((name) => !name.startsWith(url));
        assert.deepEqual(outside, []);

        await page.evaluate(() => {
          navigator.clipboard.writeText = async (text) => void (window.copied = text);
        });
        await page.click("#copy-link");
        await tab.until(() => window.copied);
        assert.equal(await page.evaluate(() => window.copied), page.url());
        await page.click("#new-channel");
        await tab.live();
        await tab.says("Nothing has been said here yet");
        const other = new URL(page.url()).searchParams.get("c");
        assert.equal(page.url(), `${url}?c=${other}`);
        assert.notEqual(other, channel);
        const curl = await page.$eval("#curl", (line) => line.textContent);
        assert.equal(curl, `curl -d hello ${url}channels/${other}/messages`);
        await tab.screenshot(`${world.name}-${proxy}-path`);
      } finally {
        await world.clear();
        await services.stop();
      }
    });
  }
});

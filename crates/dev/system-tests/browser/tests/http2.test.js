import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";

import { selfSigned } from "../support/certificate.js";
import { Services } from "../support/services.js";
import { inEveryBrowser } from "../support/suite.js";

/** Over HTTP/1.1 the seventh would wait. */
const TABS = 20;

inEveryBrowser((world) => {
  test("twenty tabs have streams at once over HTTP/2", async () => {
    await withCertificate(async ({ cert, key }) => {
      const environment = { HARK_TLS__CERT: cert, HARK_TLS__KEY: key };
      const hark = await world.ownHark({ environment });
      assert.match(hark.addresses.demo, /^https:/);
      const address = `${hark.addresses.demo.replace(/\/$/, "")}/?c=${world.channel()}`;
      const person = await world.person();
      const tabs = [];
      for (let tab = 1; tab <= TABS; tab++) tabs.push(await world.open(address, { person }));
      await tabs[0].say("to all of you");
      for (const tab of tabs) await tab.shows("to all of you");
      const protocols = await tabs[0].page.evaluate(() =>
        performance.getEntriesByType("resource").map(({ nextHopProtocol }) => nextHopProtocol),
      );
      // Those of other origins are not told.
      assert.deepEqual([...new Set(protocols.filter(Boolean))], ["h2"]);
    });
  });

  test("twenty tabs have streams at once through nginx and Caddy", async () => {
    await withCertificate(async (tls) => {
      const services = await Services.start();
      try {
        const channel = world.channel();
        const proxies = [await services.nginx({ tls }), await services.caddy({ tls })];
        const plain = await services.page("<title>plain</title>");
        const person = await world.person();
        const tabs = [];
        for (let tab = 1; tab <= TABS; tab++) {
          const { page } = await world.enter(plain, { person });
          await page.evaluate(
            (urls) => {
              window.heard = urls.map((url) => {
                const heard = { ready: 0, texts: [] };
                const stream = new EventSource(url);
                stream.addEventListener("ready", () => heard.ready++);
                stream.onmessage = ({ data }) => heard.texts.push(JSON.parse(data).text);
                return heard;
              });
            },
            proxies.map((url) => `${url}events?c=${channel}`),
          );
          tabs.push(page);
        }
        for (const page of tabs) await all(page, "ready === 1");
        await services.post(channel, "to all of you");
        for (const page of tabs) await all(page, "texts.join() === 'to all of you'");
      } finally {
        await world.clear();
        await services.stop();
      }
    });
  });

  async function all(page, condition) {
    const every = `window.heard.every(({ ready, texts }) => ${condition})`;
    await page.waitForFunction(every, { polling: 50 });
  }

  async function withCertificate(use) {
    const folder = await mkdtemp(path.join(tmpdir(), "hark-certificate-"));
    try {
      await use(await selfSigned(folder));
    } finally {
      await world.clear();
      await rm(folder, { recursive: true });
    }
  }
});

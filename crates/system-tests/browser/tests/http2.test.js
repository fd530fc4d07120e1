import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";

import { selfSigned } from "../support/certificate.js";
import { inEveryBrowser } from "../support/suite.js";

const TABS = 20;

inEveryBrowser((world) => {
  test("twenty tabs have streams at once over HTTP/2", async () => {
    const folder = await mkdtemp(path.join(tmpdir(), "hark-certificate-"));
    try {
      const hark = await world.ownHark({ environment: await selfSigned(folder) });
      assert.match(hark.addresses.demo, /^https:/);
      const address = `${hark.addresses.demo.replace(/\/$/, "")}/?c=${world.channel()}`;
      const person = await world.person();
      const tabs = [];
      // Over HTTP/1.1 the seventh would wait.
      for (let tab = 1; tab <= TABS; tab++) tabs.push(await world.open(address, { person }));
      await tabs[0].say("to all of you");
      for (const tab of tabs) await tab.shows("to all of you");
      const protocols = await tabs[0].page.evaluate(() =>
        performance.getEntriesByType("resource").map(({ nextHopProtocol }) => nextHopProtocol),
      );
      // Those of other origins are not told.
      assert.deepEqual([...new Set(protocols.filter(Boolean))], ["h2"]);
    } finally {
      await world.clear();
      await rm(folder, { recursive: true });
    }
  });
});

import { spawn } from "node:child_process";
import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { inEveryBrowser } from "../support/suite.js";

const DEMO = fileURLToPath(new URL("../../../../../client-demo/", import.meta.url));

inEveryBrowser((world) => {
  test("run.sh serves the page alone, which finds the services by config.json", async (context) => {
    const folder = await mkdtemp(path.join(tmpdir(), "hark-demo-"));
    context.after(() => rm(folder, { recursive: true }));
    await cp(DEMO, folder, { recursive: true });
    const { chat, sse } = world.hark.addresses;
    await writeFile(path.join(folder, "config.json"), JSON.stringify({ chat, sse }));
    const server = spawn(path.join(folder, "run.sh"), ["127.0.0.1:0"], {
      stdio: ["ignore", "pipe", "ignore"],
    });
    context.after(() => server.kill());
    const address = await new Promise((done, fail) => {
      server.once("error", fail);
      server.once("exit", (code) => fail(new Error(`run.sh ended: ${code}`)));
      createInterface(server.stdout).once("line", (line) => done(line.replace(/^demo /, "")));
    });
    const channel = world.channel();
    const tab = await world.open(`${address}/?c=${channel}`);
    await tab.say("served alone");
    await tab.hasMessage("served alone", "sent");
    await world.hark.post(channel, "and heard");
    await tab.shows("served alone", "and heard");
  });
});

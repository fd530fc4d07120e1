import { test } from "node:test";

import { inEveryBrowser } from "../support/suite.js";

inEveryBrowser((world) => {
  test("the seventh tab says that it waits for a connection, and goes on when one is free", async () => {
    const address = world.address(world.channel());
    const person = await world.person();
    const tabs = [];
    for (let tab = 1; tab <= 6; tab++) tabs.push(await world.open(address, { person }));
    const seventh = await world.enter(address, { person });
    await seventh.state("waiting");
    await seventh.says("6 other tabs of this chat use them");
    await seventh.screenshot(`${world.name}-seventh-tab`);
    await tabs[2].close();
    await seventh.live();
    await seventh.say("at last");
    await tabs[0].shows("at last");
  });
});

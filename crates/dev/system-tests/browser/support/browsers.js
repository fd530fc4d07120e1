import { existsSync } from "node:fs";

import puppeteer from "puppeteer-core";

/** The browsers that the page is tested in: Debian's. */
export const BROWSERS = [
  {
    name: "chromium",
    path: "/usr/bin/chromium",
    package: "chromium",
    launch: {
      browser: "chrome",
      args: [
        "--no-sandbox", // as root, in a container
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
      ],
    },
  },
  {
    name: "firefox",
    path: "/usr/bin/firefox-esr",
    package: "firefox-esr",
    launch: {
      browser: "firefox",
      extraPrefsFirefox: {
        "app.update.enabled": false,
        "browser.region.network.url": "",
        "datareporting.policy.dataSubmissionEnabled": false,
        "network.captive-portal-service.enabled": false,
        "network.connectivity-service.enabled": false,
      },
    },
  },
];

/** Starts a browser without a window. */
export async function launch({ path, package: debian, launch }) {
  if (!existsSync(path)) throw new Error(`${path} is missing: apt-get install ${debian}`);
  // Certificates of tests are signed by nobody.
  const ours = { executablePath: path, headless: true, acceptInsecureCerts: true };
  return puppeteer.launch({ ...launch, ...ours });
}

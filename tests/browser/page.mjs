// A page of the dashboard in a real Chromium: nothing on it may fail, and nothing may be asked for outside.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

// The packages are installed outside the repository.
const require = createRequire(`${process.env.COUNTERSIGN_BROWSER}/`);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

/// How long a page may take for what the cluster does, less than the test that runs the story allows it; a story that
/// passes does not wait for it.
const PATIENCE = 200_000;

/// Pages that axe-core inspects just now, whose policy may refuse what it tries.
const inspected = new WeakSet();

/// Opens the printed address and hands the page, and the address that all pages begin with, to a story.
export async function inBrowser(address, story, options = {}) {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM,
    // The test cluster's namespace has no user to give up privileges for, and no large /dev/shm.
    args: ["--no-sandbox", "--disable-dev-shm-usage"],
  });
  try {
    const context = await browser.newContext(options);
    const page = await context.newPage();
    page.setDefaultTimeout(PATIENCE);
    const { origin } = new URL(address);
    const problems = [];
    page.on("pageerror", (error) => problems.push(`script: ${error}`));
    page.on("console", (line) => {
      // An answer that refuses is what some stories are about.
      const isExpected = inspected.has(page) || /status of 4\d\d/.test(line.text());
      if (line.type() === "error" && !isExpected) problems.push(line.text());
    });
    page.on("request", (request) => {
      if (new URL(request.url()).origin !== origin) problems.push(`outside: ${request.url()}`);
    });
    await page.goto(address);
    await page.waitForURL(/\/[0-9a-f]{64}\/$/);
    await story(page, page.url().slice(0, -1));
    assert.deepEqual(problems, []);
  } finally {
    await browser.close();
  }
}

/// No rule of axe-core is violated, in light and in dark.
export async function isAccessible(page) {
  inspected.add(page);
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    await page.evaluate(`${axe}\n;0`);
    const { violations } = await page.evaluate(() => globalThis.axe.run());
    const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" | ")}`);
    assert.deepEqual(found, [], `${colorScheme}, ${page.url()}`);
  }
  inspected.delete(page);
}

/// Waits until a section has a text.
export async function hasText(page, selector, text) {
  await page.locator(selector).filter({ hasText: text }).first().waitFor();
}

/// Prints a line for the test that runs the story.
export const tell = (line) => console.log(line);

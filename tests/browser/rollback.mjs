// rollback.mjs ADDRESS NAMESPACE: a rollback is seen live, on a page that is never loaded again.
import assert from "node:assert/strict";
import { hasText, inBrowser, isAccessible, tell } from "./page.mjs";

const [address, namespace] = process.argv.slice(2);

await inBrowser(address, async (page, base) => {
  await page.goto(`${base}/rollouts/${namespace}/shop`);
  await hasText(page, "#connection", /^live$/);
  await hasText(page, "#summary .phase", "Stable");
  await page.evaluate(() => { globalThis.loadedOnce = true; });
  tell("watching");
  await hasText(page, "#steps", "Step 1");
  await page.locator("#evidence svg.chart path.band.canary").first().waitFor({ state: "attached" });
  await hasText(page, "#risk", "Points");
  await hasText(page, "#summary .phase", /RollingBack|Degraded/);
  await hasText(page, "#story", "AnalysisFailed");
  await hasText(page, "#summary .phase", "Degraded");
  assert.equal(await page.evaluate(() => globalThis.loadedOnce), true, "the page was loaded again");
  assert.match(await page.locator("#news").innerText(), /Degraded|RollingBack/, "it is read aloud");
  await isAccessible(page);
});

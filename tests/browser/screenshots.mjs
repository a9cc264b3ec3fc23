// screenshots.mjs ADDRESS TO: pictures of a rollback of the demo, for docs/dashboard.md.
import { hasText, inBrowser } from "./page.mjs";

const [address, to] = process.argv.slice(2);

await inBrowser(address, async (page) => {
  // The demo's change that fails. Its page is there once its first revision is.
  await page.locator("#rollouts a", { hasText: "/login" }).click();
  await hasText(page, "#summary .phase", /RollingBack|Degraded/);
  await hasText(page, "#story", "AnalysisFailed");
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    await page.screenshot({ path: `${to}/dashboard-${colorScheme}.png` });
  }
}, { viewport: { width: 1200, height: 1500 } });

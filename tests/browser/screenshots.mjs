// screenshots.mjs ADDRESS TO: pictures of a change of the demo in its last step, for docs/dashboard.md.
import { hasText, inBrowser } from "./page.mjs";

const [address, to] = process.argv.slice(2);

await inBrowser(address, async (page) => {
  // The demo's change that takes all steps. Its page is there once its first revision is.
  await page.locator("#rollouts a", { hasText: "/billing" }).click();
  await hasText(page, "#story", "step 4 of 4");
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    await page.screenshot({ path: `${to}/dashboard-${colorScheme}.png` });
  }
}, { viewport: { width: 1200, height: 1500 } });

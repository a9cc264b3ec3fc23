// screenshots.mjs ADDRESS TO: pictures of a change of the demo that waits for people, for docs/dashboard.md.
import { hasText, inBrowser } from "./page.mjs";

const [address, to] = process.argv.slice(2);

await inBrowser(address, async (page) => {
  // The demo's change that needs a sign-off. Its page is there once its first revision is.
  await page.locator("#rollouts a", { hasText: "/billing" }).click();
  await hasText(page, "#summary .phase", "AwaitingSignOff");
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    await page.screenshot({ path: `${to}/dashboard-${colorScheme}.png` });
  }
}, { viewport: { width: 1200, height: 1500 } });

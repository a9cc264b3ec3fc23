// approval.mjs ADDRESS NAMESPACE counts|refused: a sign-off by keyboard and click, which the API server proves or refuses.
import assert from "node:assert/strict";
import { hasText, inBrowser, isAccessible } from "./page.mjs";

const [address, namespace, expected] = process.argv.slice(2);

await inBrowser(address, async (page, base) => {
  const name = `${namespace}/shop`;
  if (expected === "counts") {
    // It waits for this person, who reaches it by the keyboard alone.
    const mine = page.locator("#queue a", { hasText: name });
    await mine.waitFor();
    await isAccessible(page);
    await mine.focus();
    await page.keyboard.press("Enter");
  } else {
    await page.goto(`${base}/rollouts/${name}`);
  }
  await page.locator("#act-approve").click();
  await hasText(page, "#difference-text", "+");
  await isAccessible(page);

  // Without a reason the form is not sent.
  await page.getByRole("button", { name: "Show the exact change" }).click();
  assert.equal(await page.locator("#object, #refusal").count(), 0);
  await page.getByLabel("Reason").fill("reviewed <b>twice</b>");
  await page.getByRole("button", { name: "Show the exact change" }).click();

  if (expected === "refused") {
    await hasText(page, "#refusal", "refused");
    await isAccessible(page);
    return;
  }
  await hasText(page, "#object", "decision: Approve");
  await hasText(page, "#object", "reviewed <b>twice</b>");
  await isAccessible(page);
  await page.getByRole("button", { name: "Create this object" }).click();
  await hasText(page, "#answer", "it counts");
  await isAccessible(page);
});

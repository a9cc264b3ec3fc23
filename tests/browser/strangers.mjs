// strangers.mjs ADDRESS NAMESPACE: other pages, other names of this machine and forged forms are refused.
import assert from "node:assert/strict";
import { createServer, request } from "node:http";
import { inBrowser, isAccessible } from "./page.mjs";

const [address, namespace] = process.argv.slice(2);

/// The status of a request with headers that no browser lets a page choose.
const status = (url, options, body = "") =>
  new Promise((resolve, reject) => {
    const sent = request(url, options, (answer) => {
      answer.resume();
      resolve(answer.statusCode);
    });
    sent.on("error", reject);
    sent.setTimeout(30_000, () => sent.destroy(new Error(`no answer from ${url}`)));
    sent.end(body);
  });

await inBrowser(address, async (page, base) => {
  assert.equal(await status(address, {}), 403, "the address works once");
  const [cookie] = await page.context().cookies();
  assert.equal(cookie.httpOnly, true);
  assert.equal(cookie.sameSite, "Strict");
  const session = `${cookie.name}=${cookie.value}`;
  const { host, origin, pathname, port } = new URL(base);
  assert.equal(cookie.path, pathname);
  const start = `${base}/`;
  assert.equal(await status(start, { headers: { cookie: session } }), 200);
  assert.equal(await status(start, {}), 403, "without the cookie");
  // DNS rebinding: the name of another site that resolves to this machine.
  for (const name of ["evil.example", `evil.example:${port}`, "127.0.0.1"]) {
    assert.equal(await status(start, { headers: { cookie: session, host: name } }), 421, name);
  }
  await page.goto(`${base}/freeze`);
  await isAccessible(page);
  const token = await page.locator("input[name=token]").getAttribute("value");
  const body = new URLSearchParams({ token, reason: "forged", confirmed: "yes" }).toString();
  const forged = { cookie: session, host, "content-type": "application/x-www-form-urlencoded" };
  for (const [headers, form] of [
    [{ ...forged, origin: "https://evil.example" }, body],
    [{ ...forged, origin: "null" }, body],
    [forged, body],
    [{ ...forged, origin }, body.replace(token, "0".repeat(token.length))],
  ]) {
    assert.equal(await status(`${base}/freeze`, { method: "POST", headers }, form), 403);
  }

  // The pages stay open until the browser ends: closing one while it still loads may hang.
  // A page of another port of this machine, which a browser counts as the same site: its server is sent no cookie, and
  // even one that knew the addresses could not use them.
  const received = [];
  const other = createServer(({ headers }, answer) => {
    received.push(`${headers.cookie} ${headers.referer}`);
    answer.setHeader("content-type", "text/html");
    answer.end(`<form method="post" action="${base}/freeze"><input name="token" value="${token}">
      <input name="reason" value="forged"><input name="confirmed" value="yes"><button>Go</button></form>
      <iframe src="${base}/"></iframe>`);
  });
  await new Promise((resolve) => { other.listen(0, "127.0.0.1", resolve); });
  const context = page.context();
  const stranger = await context.newPage();
  const at = `http://127.0.0.1:${other.address().port}/`;
  await stranger.goto(at);
  const read = await stranger.evaluate((url) => fetch(url, { credentials: "include" }).then(() => "read", () => "refused"), start);
  assert.equal(read, "refused");
  const [answer] = await Promise.all([
    stranger.waitForResponse(`${base}/freeze`),
    stranger.getByRole("button", { name: "Go" }).click(),
  ]);
  assert.equal(answer.status(), 403);
  // The browser that has the session goes on from the dashboard to that server.
  const leaving = await context.newPage();
  await leaving.goto(start);
  await leaving.evaluate((url) => { location.assign(url); }, at);
  await leaving.waitForURL(at);
  const learnt = received.filter((it) => it.includes(cookie.value) || it.includes(pathname));
  assert.deepEqual(learnt, [], "a server of another port was sent the session or the path");
  other.closeAllConnections();
  other.close();

  // The keyboard reaches the content and every control, in order.
  await page.goto(start);
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the content");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  await page.getByLabel("Name, namespace or message").fill(`${namespace}/shop`);
  await page.keyboard.press("Enter");
  await page.locator("#rollouts a", { hasText: `${namespace}/shop` }).waitFor();
});

// The page with the real server, `deop serve`, in a process of its own.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import { python } from "../unit/values.mjs";
import { launch, open, root, settled } from "./page.mjs";

const CAT = join(root, "../examples/chelsea.png");
const TOKEN = "a-token-of-the-tests-0123456789";
let server, browser, page, context, errors;

/** Starts a server; `url` is its address, `stop` ends it and waits. */
function deopServe(options = [], environment = {}) {
  const child = spawn(python, ["-m", "deop", "serve", "--threads", "1", ...options], {
    env: { ...process.env, PYTHONPATH: [join(root, "../src"), process.env.PYTHONPATH].filter(Boolean).join(":"), COLUMNS: "200", ...environment },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let log = "";
  return new Promise((ready, fail) => {
    child.stderr.on("data", (data) => {
      log += data;
      const address = /^open (http:\S+) /m.exec(log);
      if (address)
        ready({
          url: address[1] + "/",
          log: () => log,
          metric: async (line) => (await (await fetch(`${address[1]}/metrics`)).text()).split("\n").find((text) => text.startsWith(line))?.split(" ").at(-1),
          stop: () => new Promise((done) => (child.once("exit", done), child.kill("SIGTERM"))),
        });
    });
    child.once("exit", () => fail(new Error(log)));
  });
}

before(async () => {
  [server, browser] = await Promise.all([deopServe(["--port", "0"]), launch()]);
});
afterEach(async () => {
  await context?.close();
  context = null;
});
after(async () => {
  await browser?.close();
  await server?.stop();
});
const start = async (hash = "#names=cat,wall", options = {}, address = server.url) => ({ page, context, errors } = await open(browser, address + hash, options));
const give = (file) => page.setInputFiles('input[type="file"]', file);
const encoded = () => server.metric('deop_requests_total{method="POST",path="/v1/encode",status="201"}');

test("a photo is encoded once and asked often; the page shows what the server answers", { timeout: 120_000 }, async () => {
  const answer = await (await fetch(`${server.url}v1/segment?names=cat,wall`, { method: "POST", body: readFileSync(CAT), headers: { "Content-Type": "image/png" } })).json();
  await start();
  await give(CAT);
  await settled(page);
  assert.match(await page.locator("header .engine").textContent(), /nano · ONNX Runtime, cpu · photos go to this server only/);
  const text = await page.locator(".results").textContent();
  for (const { name, share } of answer.classes) assert.match(text, new RegExp(`${name}\\s*${Math.round(100 * share)}`));
  await page.getByText("Panoptic", { exact: true }).click();
  await settled(page);
  await page.getByRole("button", { name: "Heatmap of cat" }).click();
  await page.waitForSelector(".heat-title");
  assert.equal(await encoded(), "1.0");
  assert.deepEqual(errors, []);
});

test("two people at once, each with names of their own", { timeout: 120_000 }, async () => {
  await start("#names=cat,wall");
  const other = await open(browser, `${server.url}#names=dog,floor`);
  await Promise.all([give(CAT), other.page.setInputFiles('input[type="file"]', CAT)]);
  await Promise.all([settled(page), settled(other.page)]);
  assert.match(await page.locator(".results").textContent(), /cat/);
  assert.match(await other.page.locator(".results").textContent(), /dog/);
  await other.context.close();
});

test("the server is stopped and started again: the photo is encoded again", { timeout: 120_000 }, async () => {
  await start();
  await give(CAT);
  await settled(page);
  const { port } = new URL(server.url);
  await server.stop();
  server = await deopServe(["--port", port]);
  await page.getByText("Panoptic", { exact: true }).click();
  await settled(page);
  assert.equal(await encoded(), "1.0");
});

test("a browser sends the token as a password", { timeout: 120_000 }, async () => {
  const guarded = await deopServe(["--port", "0"], { DEOP_TOKEN: TOKEN });
  try {
    assert.equal((await fetch(`${guarded.url}v1/models`)).status, 401);
    await start("#names=cat,wall", { httpCredentials: { username: "me", password: TOKEN } }, guarded.url);
    await give(CAT);
    await settled(page);
    assert.match(await page.locator(".results").textContent(), /cat/);
    assert.ok(!guarded.log().includes(TOKEN));
  } finally {
    await guarded.stop();
  }
});

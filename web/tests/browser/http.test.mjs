// The page with the HTTP engine, against a small stand-in of the server.
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { launch, open, root, serve } from "./page.mjs";
import { FLAG, stripes } from "./pictures.mjs";

const PNG = stripes([[0, 0, 0], [255, 255, 255]], 2, 1);
const LEFT_HALF = "0`<`<"; // 0, 400, 400 in COCO's form
const IN_FILE = [{ name: "-mug", regions: 2, photos: 1 }, { name: "cup", regions: 5, photos: 2 }];
let server, browser, page, context, log, plan, down;

/** Left half of the photo: the first name; right half: none. A plan answers the next call of a path otherwise. */
async function answer(request, response) {
  const url = new URL(request.url, "http://x");
  if (!url.pathname.startsWith("/v1/")) return false;
  if (down) return request.socket.destroy(), true;
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks);
  const call = { path: `${request.method} ${url.pathname}`, query: url.search, type: request.headers["content-type"], accept: request.headers.accept, body };
  log.push(call);
  const json = (status, value, headers = {}) => response.writeHead(status, { "Content-Type": "application/json", ...headers }).end(JSON.stringify(value));
  const planned = plan[call.path]?.shift();
  if (planned) return json(...planned), true;
  if (call.path === "GET /v1/models")
    json(200, { default: "nano", models: [{ name: "nano", backend: "ONNX Runtime, 2 threads", severances: ["self", "none"], limits: { pixels: 1e6, names: 5, banks: 8 } }] });
  else if (call.path === "POST /v1/encode") json(201, { id: `photo-${log.filter(({ path }) => path === call.path).length}`, size: [40, 20] });
  else if (call.path === "POST /v1/label") {
    const { names, mode, heatmap } = JSON.parse(body);
    if (heatmap !== undefined) response.writeHead(200, { "Content-Type": "image/png" }).end(PNG);
    else
      json(200, {
        photo: null, size: [40, 20], mode, names,
        classes: names.map((name, k) => ({ name, share: k ? 0 : 0.5, score: k ? null : 0.75, colour: "#ff8000" })),
        segments: [{ id: 0, name: names[0], score: 0.75, box: [0, 0, 20, 20], area: 400, share: 0.5, segmentation: { size: [20, 40], counts: [0, 400, 400] } }],
        settings: {}, warnings: [],
      });
  } else if (call.path === "POST /v1/marks") json(200, { size: [40, 20], marks: [{ box: [0, 0, 20, 20], area: 400, segmentation: { size: [20, 40], counts: LEFT_HALF } }] });
  else if (call.path === "POST /v1/banks") json(201, { id: `bank-${count(call.path)}`, names: body.length ? IN_FILE : [] });
  else if (call.path.endsWith("/examples")) {
    const names = JSON.parse(body).examples.map(({ name }) => ({ name, regions: 3, photos: 1 }));
    json(200, { id: call.path.split("/")[3], names });
  } else if (/^POST \/v1\/banks\/bank-\d$/.test(call.path)) json(200, { id: call.path.split("/")[3], names: IN_FILE });
  else if (call.path.endsWith("/file")) response.writeHead(200, { "Content-Type": "application/octet-stream" }).end(`file of ${call.path.split("/")[3]}`);
  else json(204, null);
  return true;
}

before(async () => {
  server = await serve(join(root, "build-http"), answer);
  browser = await launch();
});
beforeEach(() => {
  [log, plan, down] = [[], {}, false];
});
afterEach(() => context.close());
after(async () => {
  await browser.close();
  await server.close();
});
const start = async (hash = "#names=cat,dog") => {
  ({ page, context } = await open(browser, server.url + hash));
  await page.setInputFiles('input[type="file"]', FLAG);
};
const shown = () => page.waitForSelector(".results");
const count = (path) => log.filter((call) => call.path === path).length;

test("encode once, label often", async () => {
  await start("#names=cat,dog&background=sky&threshold=0.2&severance=none");
  await shown();
  assert.match(await page.locator("header .engine").textContent(), /nano · ONNX Runtime, 2 threads · photos go to this server only/);
  const encode = log.find(({ path }) => path === "POST /v1/encode");
  assert.deepEqual([encode.type, encode.query], ["image/png", "?severance=none"]);
  assert.ok(encode.body.equals(FLAG.buffer));
  const label = JSON.parse(log.find(({ path }) => path === "POST /v1/label").body);
  assert.deepEqual(label, { id: "photo-1", names: ["cat", "dog"], mode: "semantic", threshold: 0.2, background: ["sky"], things: null, vocabulary: null });
  const text = await page.locator(".results").textContent();
  assert.match(text, /cat50 %.*0\.75.*dognot found/);
  await page.getByText("Panoptic", { exact: true }).click();
  await page.waitForFunction(() => !document.querySelector(".progress"));
  assert.equal(count("POST /v1/encode"), 1);
  assert.equal(count("POST /v1/label"), 2);
  const [left, right] = await page.evaluate(() => {
    const { width, height } = document.querySelector(".result-layer");
    const context = document.querySelector(".result-layer").getContext("2d");
    return [0.25, 0.75].map((x) => [...context.getImageData(x * width, height / 2, 1, 1).data]);
  });
  assert.deepEqual([left[0], left[3], right[3]], [255, 251, 0]);
  await page.getByRole("button", { name: "Heatmap of cat" }).click();
  await page.waitForSelector(".heat-title");
  const heat = log.at(-1);
  assert.deepEqual([heat.accept, JSON.parse(heat.body).heatmap], ["image/png", 0]);
});

test("another severance encodes again, and one that was chosen before does not", async () => {
  await start("#names=cat,dog&background=sky");
  await shown();
  const choose = async (value, asked) => {
    await page.getByLabel("Severance").selectOption(value);
    await page.waitForFunction(() => !document.querySelector(".progress"));
    assert.equal(count("POST /v1/label"), asked);
  };
  assert.deepEqual(await page.getByLabel("Severance").locator("option").allTextContents(), ["the model’s", "self", "none"]);
  await choose("none", 2);
  await page.waitForURL(/severance=none/);
  await choose("", 3);
  await choose("none", 4);
  assert.deepEqual(log.filter(({ path }) => path === "POST /v1/encode").map(({ query }) => query), ["", "?severance=none"]);
  assert.match(await page.locator("#code pre").first().textContent(), /--severance none/);
});

test("threshold and smoothing begin at the model's settings", async () => {
  const model = { name: "nano", defaults: { threshold: 0.05, smallest_region: 0.0005 }, limits: { pixels: 1e6, names: 5 } };
  plan["GET /v1/models"] = [[200, { default: "nano", models: [model] }]];
  await start();
  await shown();
  assert.deepEqual(await page.locator(".slider output").allTextContents(), ["50 %", "0.05", "under 0.05 %"]);
  await page.getByRole("slider", { name: "Smoothing" }).fill("0");
  await page.getByRole("slider", { name: "Threshold" }).fill("0");
  await page.waitForURL(/threshold=0&smallest-region=0$/);
  await page.waitForFunction(() => !document.querySelector(".progress"));
  const { threshold, smallest_region } = JSON.parse(log.findLast(({ path }) => path === "POST /v1/label").body);
  assert.deepEqual([threshold, smallest_region], [0, 0]);
});

test("a photo that the server has dropped is encoded again", async () => {
  plan["POST /v1/label"] = [[410, { title: "Gone" }]];
  await start();
  await shown();
  assert.equal(count("POST /v1/encode"), 2);
  assert.equal(JSON.parse(log.findLast(({ path }) => path === "POST /v1/label").body).id, "photo-2");
});

test("a busy server is asked again after the time it names", async () => {
  plan["POST /v1/encode"] = [[429, { title: "Too many requests" }, { "Retry-After": "0" }], [503, {}, { "Retry-After": "1" }]];
  await start();
  await shown();
  assert.equal(count("POST /v1/encode"), 3);
});

test("a refusal is shown in the server's words", async () => {
  plan["POST /v1/label"] = [[422, { title: "Unprocessable", detail: "“cat” is both in name 1 and in name 2." }]];
  await start();
  await page.getByRole("alert").filter({ hasText: /both in name 1/ }).waitFor();
});

test("a photo larger than the server takes is not sent", async () => {
  plan["GET /v1/models"] = [[200, { default: "nano", models: [{ name: "nano", limits: { pixels: 100 } }] }]];
  ({ page, context } = await open(browser, server.url));
  await page.waitForFunction(() => document.querySelector(".engine").textContent.startsWith("nano"));
  await page.setInputFiles('input[type="file"]', FLAG);
  await page.getByRole("alert").filter({ hasText: /megapixels/ }).waitFor();
  assert.equal(count("POST /v1/encode"), 0);
});

test("the server is gone and comes back", async () => {
  await start();
  await shown();
  down = true;
  await page.getByRole("textbox", { name: "Names" }).fill("bird");
  await page.keyboard.press("Enter");
  await page.getByRole("alert").filter({ hasText: /does not answer/ }).waitFor();
  assert.equal(await page.locator(".result").count(), 2); // the last result stays
  down = false;
  await page.getByRole("button", { name: "Try again" }).click();
  await page.waitForFunction(() => document.querySelectorAll(".result").length === 3);
  assert.equal(await page.getByRole("alert").count(), 0);
});

test("the server is not there at first", async () => {
  down = true;
  await start();
  await page.getByRole("alert").filter({ hasText: /does not answer/ }).waitFor();
  down = false;
  await shown(); // by itself
});

/** Chooses a file of examples. */
const openBank = async (given) => {
  const [chooser] = await Promise.all([page.waitForEvent("filechooser"), page.getByRole("button", { name: "Open examples" }).click()]);
  await chooser.setFiles(given);
};
const teach = async (x, name) => {
  if (!(await page.locator(".correction").count())) await page.getByRole("button", { name: "Correct", exact: true }).click();
  const box = await page.locator(".frame").boundingBox();
  await page.mouse.click(box.x + x * box.width, box.y + 0.5 * box.height);
  await page.getByRole("combobox", { name: "Name of the marked region" }).fill(name);
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Done" }).waitFor();
  await page.waitForFunction(() => !document.querySelector(".progress"));
};
const bodies = (end) => log.filter(({ path }) => path.endsWith(end)).map(({ body }) => JSON.parse(body));

test("examples: all marks of the photo are sent, questions name the banks, and nothing is encoded again", async () => {
  await start();
  await shown();
  await teach(0.25, "widget");
  await teach(0.75, "part|piece");
  assert.deepEqual(bodies("/examples"), [
    { id: "photo-1", examples: [{ name: "widget", click: [10, 10] }], replace: true },
    { id: "photo-1", examples: [{ name: "widget", click: [10, 10] }, { name: "part|piece", click: [30, 10] }], replace: true },
  ]);
  const question = bodies("/v1/label").at(-1);
  assert.deepEqual([question.names, question.bank, "bank_weight" in question], [["cat", "dog", "widget", "part|piece"], ["bank-1"], false]);
  await page.getByRole("slider", { name: "Examples beside words" }).fill("0.7");
  await page.waitForFunction(() => !document.querySelector(".progress"));
  assert.equal(bodies("/v1/label").at(-1).bank_weight, 0.7);
  await page.getByRole("slider", { name: "Examples beside words" }).fill("0");
  await page.waitForFunction(() => !document.querySelector(".progress"));
  assert.equal("bank" in bodies("/v1/label").at(-1), false);
  await page.getByRole("button", { name: "Undo: last change of the examples" }).click();
  await page.waitForFunction(() => document.querySelectorAll(".examples li").length === 1);
  assert.equal(bodies("/examples").at(-1).examples.length, 1);
  assert.equal(count("POST /v1/encode"), 1);
});

/** Marks the region at a place, without a name. */
const mark = async (x) => {
  if (!(await page.locator(".correction").count())) await page.getByRole("button", { name: "Correct", exact: true }).click();
  const box = await page.locator(".frame").boundingBox();
  await page.mouse.click(box.x + x * box.width, box.y + 0.5 * box.height);
};
const shownMark = async (x) => {
  await mark(x);
  await page.waitForSelector(".marked-layer");
};
/** How dark the photo is left and right while a region is marked: 0 where it is the region. */
const darkened = () =>
  page.evaluate(() => {
    const layer = document.querySelector(".marked-layer");
    return [0.1, 0.45, 0.55, 0.9].map((x) => layer.getContext("2d").getImageData(x * layer.width, layer.height / 2, 1, 1).data[3] > 100);
  });

test("the pixels that a click and a box stand for are shown before they are learned", async () => {
  await start();
  await shown();
  await shownMark(0.25);
  assert.deepEqual(await darkened(), [false, false, true, true]);
  await page.keyboard.press("Escape");
  assert.equal(await page.locator(".marked-layer").count(), 0);
  const frame = await page.locator(".frame").boundingBox();
  await page.mouse.move(frame.x + 0.1 * frame.width, frame.y + 0.1 * frame.height);
  await page.mouse.down();
  await page.mouse.move(frame.x + 0.4 * frame.width, frame.y + 0.9 * frame.height, { steps: 4 });
  await page.mouse.up();
  await page.waitForSelector(".marked-layer");
  const [click, box] = log.filter(({ path }) => path === "POST /v1/marks").map(({ body, type }) => [type, JSON.parse(body)]);
  assert.deepEqual(click, ["application/json", { id: "photo-1", marks: [{ click: [10, 10] }] }]);
  assert.equal(box[1].marks.length, 1);
  await page.getByRole("combobox", { name: "Name of the marked region" }).fill("widget");
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Done" }).waitFor();
  assert.deepEqual(bodies("/examples").at(-1).examples, [{ name: "widget", ...box[1].marks[0] }]);
  assert.equal(await page.locator(".marked-layer").count(), 0);
  assert.equal(count("POST /v1/encode"), 1);
});

test("an older server does not say the pixels: the mark alone is shown, and it is asked once", async () => {
  plan["POST /v1/marks"] = [[404, { title: "Not Found", detail: "there is nothing at this address; /openapi.json describes the interface" }]];
  await start();
  await shown();
  await mark(0.25);
  await page.locator(".mark.pending.point").waitFor();
  await page.waitForFunction(() => performance.getEntriesByType("resource").some(({ name, responseEnd }) => name.endsWith("/v1/marks") && responseEnd > 0));
  await teach(0.25, "widget");
  await teach(0.75, "part");
  assert.equal(count("POST /v1/marks"), 1);
  assert.equal(count("POST /v1/encode"), 1);
  assert.equal(await page.locator(".marked-layer").count() + (await page.getByRole("alert").count()), 0);
  assert.equal(bodies("/examples").at(-1).examples.length, 2);
});

test("a photo that the server has dropped is encoded again for its pixels", async () => {
  plan["POST /v1/marks"] = [[404, { title: "Not Found", missing: "photo" }]];
  await start();
  await shown();
  await shownMark(0.25);
  assert.deepEqual(bodies("/v1/marks").map(({ id }) => id), ["photo-1", "photo-2"]);
});

test("a mark that cannot be learned is refused before it has a name, and only while it is marked", async () => {
  const detail = "the model proposes no mask at (10, 10): give a box or a mask";
  plan["POST /v1/marks"] = [[422, { title: "Unprocessable", detail }]];
  await start();
  await shown();
  await mark(0.25);
  await page.locator(".correction").getByRole("alert").filter({ hasText: detail }).waitFor();
  await shownMark(0.75);
  assert.equal(await page.getByRole("alert").count(), 0);
  let refuse;
  await page.route("**/v1/marks", (route) => (refuse = () => route.fulfill({ status: 422, json: { detail } })), { times: 1 });
  await mark(0.25);
  await page.waitForFunction(() => !document.querySelector(".marked-layer"));
  await page.keyboard.press("Escape");
  await refuse();
  await page.waitForFunction(() => performance.getEntriesByType("resource").filter(({ name }) => name.endsWith("/v1/marks")).length === 3);
  assert.equal(await page.getByRole("alert").count(), 0);
});

test("a bank that is opened stays apart from marks, and both are saved as one", async () => {
  await start();
  await shown();
  await openBank({ name: "shop.safetensors", mimeType: "", buffer: Buffer.from("a bank") });
  await page.waitForFunction(() => document.querySelectorAll(".examples li").length === 1);
  assert.ok(log.find(({ path }) => path === "POST /v1/banks").body.equals(Buffer.from("a bank")));
  await teach(0.25, "widget");
  assert.deepEqual(bodies("/v1/label").at(-1).bank, ["bank-1", "bank-2"]);
  assert.deepEqual(bodies("/v1/label").at(-1).names, ["cat", "dog", "cup", "widget"]);
  const [saved] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Save examples" }).click()]);
  assert.equal(saved.suggestedFilename(), "bank.safetensors");
  const [first, second] = log.filter(({ path, body }) => path.startsWith("POST /v1/banks") && String(body).startsWith("file of")).map(({ path, body }) => [path, String(body)]);
  assert.deepEqual([first, second], [["POST /v1/banks", "file of bank-1"], ["POST /v1/banks/bank-3", "file of bank-2"]]);
  await page.waitForFunction(() => document.querySelector(".toast")?.textContent.includes("saved"));
  assert.equal(count("DELETE /v1/banks/bank-3"), 1);
});

test("a server that has lost the examples is taught again", async () => {
  await start();
  await shown();
  await teach(0.25, "widget");
  plan["POST /v1/label"] = [[404, { title: "Not Found", detail: "no such bank", missing: "bank" }]];
  await page.getByText("Panoptic", { exact: true }).click();
  await page.waitForFunction(() => !document.querySelector(".progress") && !document.querySelector("[role=alert]"));
  assert.deepEqual(bodies("/v1/label").at(-1).bank, ["bank-2"]);
  assert.deepEqual(bodies("/examples").at(-1).examples, [{ name: "widget", click: [10, 10] }]);
});

test("a photo that the server has dropped is encoded again for its examples; a refusal is shown where it was asked", async () => {
  await start();
  await shown();
  plan["POST /v1/banks/bank-1/examples"] = [[404, { title: "Not Found", missing: "photo" }]];
  await teach(0.25, "widget");
  assert.deepEqual(bodies("/examples").map(({ id }) => id), ["photo-1", "photo-2"]);
  plan["POST /v1/banks/bank-1/examples"] = [[422, { title: "Unprocessable", detail: "the names share a word" }]];
  const box = await page.locator(".frame").boundingBox();
  await page.mouse.click(box.x + 0.75 * box.width, box.y + 0.5 * box.height);
  await page.getByRole("combobox", { name: "Name of the marked region" }).fill("widget|dog");
  await page.keyboard.press("Enter");
  await page.locator(".correction").getByRole("alert").filter({ hasText: "the names share a word" }).waitFor();
  assert.equal(await page.locator(".examples li").count(), 1);
});

test("a server without banks is not asked for them", async () => {
  plan["GET /v1/models"] = [[200, { default: "nano", models: [{ name: "nano", limits: { pixels: 1e6, names: 5 } }] }]];
  await start();
  await shown();
  assert.equal(await page.getByRole("button", { name: "Correct", exact: true }).count(), 0);
  assert.equal(await page.getByRole("heading", { name: "Examples" }).count(), 0);
});

// The page with the real server, `deop serve`, in a process of its own.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import { python } from "../unit/values.mjs";
import { launch, open, root, settled } from "./page.mjs";
import { BLUE, file, RED, stripes } from "./pictures.mjs";

const EXAMPLES = join(root, "../examples");
const CAT = join(EXAMPLES, "chelsea.png");
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const TOKEN = "a-token-of-the-tests-0123456789";
let server, browser, page, context, errors, folder;
const environment = { ...process.env, PYTHONPATH: [join(root, "../src"), process.env.PYTHONPATH].filter(Boolean).join(":"), COLUMNS: "200" };

/** Starts a server; `url` is its address, `stop` ends it and waits. */
function deopServe(options = [], more = {}) {
  const child = spawn(python, ["-m", "deop", "serve", "--threads", "1", "--max-seconds", "300", ...options], {
    env: { ...environment, ...more },
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
  folder = mkdtempSync(join(tmpdir(), "deop-page-"));
  [server, browser] = await Promise.all([deopServe(["--port", "0"]), launch()]);
});
afterEach(async () => {
  await context?.close();
  context = null;
});
after(async () => {
  await browser?.close();
  await server?.stop();
  rmSync(folder, { recursive: true, force: true });
});
const start = async (hash = "#names=cat,wall", options = {}, address = server.url) => ({ page, context, errors } = await open(browser, address + hash, options));
const give = (...files) => page.setInputFiles('input[type="file"]', files);
const encoded = () => server.metric('deop_requests_total{method="POST",path="/v1/encode",status="201"}');

test("a photo is encoded once and asked often; the page shows what the server answers", { timeout: 120_000 }, async () => {
  const answer = await (await fetch(`${server.url}v1/segment?names=cat,wall`, { method: "POST", body: readFileSync(CAT), headers: { "Content-Type": "image/png" } })).json();
  await start();
  await give(CAT);
  await settled(page);
  assert.match(await page.locator("header .engine").textContent(), /nano · ONNX Runtime, cpu · photos go to this server only/);
  const text = await page.locator(".results").textContent();
  for (const { name, share } of answer.classes) assert.match(text, new RegExp(`${name}\\s*${share ? Math.round(100 * share) : "not found"}`));
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
  await page.getByText("Panoptic", { exact: true }).click();
  await page.getByRole("alert").filter({ hasText: /does not answer/ }).waitFor();
  assert.equal(await page.locator(".result").count(), 2); // the last result stays
  server = await deopServe(["--port", port]);
  await page.getByRole("alert").waitFor({ state: "detached" }); // by itself
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

test("the command and the Python lines give what the page shows, and the files are those of the command", { timeout: 180_000 }, async () => {
  await start("#sample=rocket&names=sky,tower|mast,fire,light&mode=panoptic&things=tower,fire&background=tree&threshold=0.1,fire%3D0.3&smallest-region=0.002");
  await settled(page);
  const get = async (title) => {
    await page.getByRole("button", { name: "Download" }).click();
    const [download] = await Promise.all([page.waitForEvent("download"), page.locator(".menu").getByRole("button", { name: new RegExp(`^${title}`) }).click()]);
    const path = join(folder, download.suggestedFilename());
    await download.saveAs(path);
    return path;
  };
  const [labels, coco, json] = [await get("Label map"), await get("COCO"), await get("JSON")];
  const [command, lines] = await page.locator("#code pre").allTextContents();
  const [out, cocoOut, jsonOut] = ["labels.png", "coco.json", "lines.json"].map((name) => join(folder, `python.${name}`));
  const words = `${command.replace(/^deop /, `'${python}' -m deop `)} --labels ${out} --coco ${cocoOut} --json ${jsonOut} --rle --quiet`;
  execFileSync("sh", ["-c", words], { env: environment, cwd: join(root, ".."), stdio: ["ignore", "ignore", "inherit"] });
  const compare = "import sys, numpy as np; from PIL import Image; one, other = (np.array(Image.open(path)) for path in sys.argv[1:]); assert one.shape == other.shape; print((one == other).mean())";
  assert.equal(Number(execFileSync(python, ["-c", compare, labels, out], { encoding: "utf8" })), 1);
  const read = (path) => JSON.parse(readFileSync(path, "utf8"));
  const plain = ({ size, mode, names, classes, segments }) => ({ size, mode, names, classes, segments });
  assert.deepEqual(plain(read(json)), plain(read(jsonOut)));
  const annotations = ({ annotations, categories }) => annotations.map(({ bbox, area, segmentation, category_id }) => ({ bbox, area, segmentation, name: categories.find(({ id }) => id === category_id).name }));
  assert.deepEqual(annotations(read(coco)), annotations(read(cocoOut)));
  const script = join(folder, "lines.py");
  writeFileSync(script, lines.replace("examples/rocket.jpg", join(EXAMPLES, "rocket.jpg")).replace("result.png", join(folder, "result.png")));
  execFileSync(python, [script], { env: environment });
  assert.ok(readFileSync(join(folder, "result.png")).length > 10_000);
  assert.deepEqual(errors, []);
});

test("examples: a marked region is learned, the next photo follows, and the code with the saved bank gives the same", { timeout: 300_000 }, async () => {
  await start("#sample=coffee&names=wooden+table,spoon");
  await settled(page);
  const before = Number(await encoded());
  await page.getByRole("button", { name: "Correct", exact: true }).click();
  const learn = async (x, y, name, count) => {
    const box = await page.locator(".frame").boundingBox();
    await page.mouse.click(box.x + x * box.width, box.y + y * box.height);
    await page.waitForSelector(".marked-layer");
    await page.getByRole("combobox", { name: "Name of the marked region" }).fill(name);
    await page.keyboard.press("Enter");
    await page.waitForFunction((wanted) => document.querySelectorAll(".examples li").length === wanted, count, { timeout: 120_000 });
    await settled(page);
  };
  await learn(0.55, 0.4, "widget-7", 1);
  await learn(0.3, 0.6, "猫", 2); // a name that the words of the model lack
  await page.getByRole("button", { name: "Undo: last change of the examples" }).click();
  await page.waitForFunction(() => document.querySelectorAll(".examples li").length === 1);
  await learn(0.3, 0.6, "saucer", 2);
  assert.equal(Number(await encoded()), before, "learning costs no pass");
  await give(join(EXAMPLES, "rocket.jpg"));
  await settled(page);
  const after = Number(await encoded());
  assert.ok(after <= before + 1, "only the next photo is encoded, unless the server knows it already");
  await page.getByRole("button", { name: "coffee.jpg", exact: true }).click();
  await settled(page);
  await page.getByRole("slider", { name: "Examples beside words" }).fill("0.6");
  await settled(page);
  const get = async (open, title) => {
    if (open) await page.getByRole("button", { name: open }).click();
    const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: title }).click()]);
    const path = join(folder, download.suggestedFilename());
    await download.saveAs(path);
    return path;
  };
  const labels = await get("Download", /^Label map/);
  const bank = await get("Code", "Save the examples");
  const [command, lines] = await page.locator("#code pre").allTextContents();
  assert.match(command, / --bank bank\.safetensors --bank-weight 0\.6$/);
  const out = join(folder, "with-bank.png");
  const words = `${command.replace(/^deop /, `'${python}' -m deop `).replace("bank.safetensors", bank)} --labels ${out} --quiet`;
  execFileSync("sh", ["-c", words], { env: environment, cwd: join(root, ".."), stdio: ["ignore", "ignore", "inherit"] });
  const script = join(folder, "with_bank.py");
  const saved = join(folder, "from-lines.png");
  writeFileSync(script, `${lines.replace("examples/coffee.jpg", join(EXAMPLES, "coffee.jpg")).replace("bank.safetensors", bank).replace("result.png", join(folder, "result.png"))}\nfrom PIL import Image\nImage.fromarray((result.label_map + 1).astype("uint8")).save("${saved}")\n`);
  execFileSync(python, [script], { env: environment });
  const compare = "import sys, numpy as np; from PIL import Image; one, *others = (np.array(Image.open(path)) for path in sys.argv[1:]); print(*((one == other).mean() for other in others), len(np.unique(one)))";
  const [byCommand, byLines, count] = execFileSync(python, ["-c", compare, labels, out, saved], { encoding: "utf8" }).split(" ").map(Number);
  assert.deepEqual([byCommand, byLines], [1, 1]);
  assert.ok(count > 2, "several names are found");
  assert.deepEqual(errors, []);
});

test("the pixels that the page shows for a click and a box are those that are learned", { timeout: 180_000 }, async () => {
  await start("#sample=coffee&names=wooden+table,spoon");
  await settled(page);
  await page.getByRole("button", { name: "Correct", exact: true }).click();
  const frame = await page.locator(".frame").boundingBox();
  const at = ([x, y]) => [frame.x + x * frame.width, frame.y + y * frame.height];
  const [click, ...corners] = [[0.55, 0.4], [0.2, 0.1], [0.85, 0.9]];
  const shown = async () => {
    const asked = page.waitForRequest("**/v1/marks");
    return { sent: async () => (await asked).postDataJSON().marks, pixels: () => page.waitForSelector(".marked-layer").then(() => page.evaluate(() => {
      const { width, height } = document.querySelector(".marked-layer");
      const { data } = document.querySelector(".marked-layer").getContext("2d").getImageData(0, 0, width, height);
      // Clear, or a part of the white outline; what is outside is darkened.
      return { width, height, inside: Array.from({ length: width * height }, (_, i) => Number([0, 255].includes(data[4 * i + 3]))) };
    })) };
  };
  const found = [];
  for (const act of [
    () => page.mouse.click(...at(click)),
    async () => {
      await page.mouse.move(...at(corners[0]));
      await page.mouse.down();
      await page.mouse.move(...at(corners[1]), { steps: 5 });
      await page.mouse.up();
    },
  ]) {
    const { sent, pixels } = await shown();
    await act();
    found.push({ marks: await sent(), ...(await pixels()) });
    await page.keyboard.press("Escape");
  }
  writeFileSync(join(folder, "shown.json"), JSON.stringify(found));
  const compare = `
import json, sys
import numpy as np
import deop
from deop.bank.marks import Box, Click, masks_of
(encoded,) = deop.load("nano", engine="onnx", device="cpu").encode([sys.argv[1]])
for shown in json.load(open(sys.argv[2])):
    (mark,) = shown["marks"]
    mark = Click(*mark["click"]) if "click" in mark else Box(*mark["box"])
    (mask,) = masks_of([mark], encoded.photo.shape[:2], encoded.masks, encoded.canvas)
    inside = np.array(shown["inside"], bool).reshape(shown["height"], shown["width"])
    rows, columns = (((np.arange(count) + 0.5) * side / count).astype(int) for count, side in zip(inside.shape, mask.shape))
    print((inside == mask[np.ix_(rows, columns)]).mean(), mask.mean())
`;
  const lines = execFileSync(python, ["-c", compare, join(EXAMPLES, "coffee.jpg"), join(folder, "shown.json")], { encoding: "utf8", env: environment }).trim().split("\n");
  assert.equal(lines.length, 2);
  for (const line of lines) {
    const [equal, share] = line.split(" ").map(Number);
    assert.ok(equal === 1 && share > 0.02 && share < 0.7, line);
  }
  assert.deepEqual(errors, []);
});

test("the server is stopped and started again: it is taught again", { timeout: 300_000 }, async () => {
  await start("#names=cat,wall");
  await give(CAT);
  await settled(page);
  await page.getByRole("button", { name: "Correct", exact: true }).click();
  const box = await page.locator(".frame").boundingBox();
  await page.mouse.click(box.x + 0.5 * box.width, box.y + 0.5 * box.height);
  await page.getByRole("combobox", { name: "Name of the marked region" }).fill("widget-7");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelectorAll(".examples li").length === 1, null, { timeout: 120_000 });
  await settled(page);
  const { port } = new URL(server.url);
  await server.stop();
  server = await deopServe(["--port", port]);
  await page.getByText("Panoptic", { exact: true }).click();
  await page.waitForFunction(() => !document.querySelector(".progress") && !document.querySelector("[role=alert]"), null, { timeout: 60_000 });
  assert.match(await page.locator(".results").textContent(), /widget-7\s*\d/);
});

test("what is no photo is refused in words, and the page goes on", { timeout: 120_000 }, async () => {
  await start("#names=cat,wall");
  await give(file(Buffer.from("hello"), "letter.txt", "text/plain"), file(readFileSync(CAT).subarray(0, 200), "half.png"));
  const text = await page.getByRole("alert").textContent();
  for (const part of ["letter.txt is a text file", "half.png cannot be read"]) assert.ok(text.includes(part), text);
  // A browser shows the first half of a JPEG; the server does not take it.
  await give(file(readFileSync(join(EXAMPLES, "coffee.jpg")).subarray(0, 40_000), "cut.jpg", "image/jpeg"));
  await page.getByRole("alert").filter({ hasText: /cut|damaged|truncated|incomplete/ }).waitFor();
  await give(CAT);
  await settled(page);
  assert.equal(await page.getByRole("alert").count(), 0);
});

test("a photo of 60 megapixels", { timeout: 300_000 }, async () => {
  await start("#names=sky,wall");
  await give(file(stripes([RED, BLUE, [200, 220, 240]], 10_000, 6000), "large.png"));
  await page.waitForSelector(".results", { timeout: 240_000 });
  assert.equal(await page.getByRole("alert").count(), 0);
  assert.deepEqual(errors, []);
});

for (const colorScheme of ["light", "dark"])
  test(`axe-core finds nothing serious, and nothing is wider than a phone: ${colorScheme}`, { timeout: 120_000 }, async () => {
    await start("#names=cat,wall&mode=panoptic&background=grass", { colorScheme, viewport: { width: 360, height: 740 } });
    await give(CAT);
    await settled(page);
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360);
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => window.axe.run());
    assert.deepEqual(violations.filter(({ impact }) => impact === "serious" || impact === "critical").map(({ id, nodes }) => [id, nodes[0].html]), []);
  });

const hasTorch = (() => {
  try {
    execFileSync(python, ["-c", "import torch"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
})();
test("with torch, the severances of the model are offered, and each gives the server's result", { timeout: 300_000, skip: !hasTorch && "torch is not installed" }, async () => {
  const torch = await deopServe(["--port", "0", "--engine", "torch", "--device", "cpu"]);
  try {
    const { severances } = (await (await fetch(`${torch.url}v1/models`)).json()).models[0];
    assert.ok(severances.includes("none") && severances.length > 2, severances.join());
    await start("#names=cat,wall&severance=none", {}, torch.url);
    await give(CAT);
    await settled(page);
    const offered = await page.getByLabel("Severance").locator("option").allTextContents();
    assert.deepEqual(offered.slice(1), severances);
    const answer = await (await fetch(`${torch.url}v1/segment?names=cat,wall&severance=none`, { method: "POST", body: readFileSync(CAT), headers: { "Content-Type": "image/png" } })).json();
    const scores = await page.locator(".results .score").allTextContents();
    assert.deepEqual(scores.sort(), answer.classes.filter(({ score }) => score !== null).map(({ score }) => score.toFixed(2)).sort());
    await page.getByLabel("Severance").selectOption("");
    await settled(page);
    await page.waitForURL((url) => !url.hash.includes("severance"));
  } finally {
    await torch.stop();
  }
});

// The exported page, which runs the model in the browser: labels against Python's, and what people meet.
import assert from "node:assert/strict";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import { runPython } from "../unit/values.mjs";
import { launch, open, root, serve, settled } from "./page.mjs";
import { BLUE, file, RED, stripes } from "./pictures.mjs";

const folder = join(root, "build-site");
const site = join(folder, "site");
const ISOLATED = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
let server, plain, browser, page, context, errors, requests;
before(async () => {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder);
  runPython("../browser/python_labels.py", folder);
  server = await serve(site, undefined, ISOLATED);
  plain = await serve(site);
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await server?.close();
  await plain?.close();
});
const start = async (address, options = {}) => ({ page, context, errors, requests } = await open(browser, address, options));
afterEach(async () => {
  await context?.close();
  context = null;
});
const give = (...files) => page.setInputFiles('input[type="file"]', files);
const ready = () => page.waitForFunction(() => document.querySelector("header .engine")?.textContent.startsWith("nano"), null, { timeout: 120_000 });
const about = () => page.locator("header .engine").textContent();
const result = () => page.waitForSelector(".results", { timeout: 120_000 });

/** The labels of a question, from the engine of the page. */
const ask = (path, names, options) =>
  page.evaluate(
    async ([name, bytes, names, options]) => {
      const engine = window.deopEngine;
      await engine.capabilities();
      const file = new File([Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0))], name);
      const handle = await engine.encode({ file }, { severance: null });
      const result = await engine.label(handle, names, options);
      engine.release(handle);
      const labels = new Uint8Array(Uint16Array.from(result.labels).buffer);
      let text = "";
      for (let at = 0; at < labels.length; at += 32768) text += String.fromCharCode(...labels.subarray(at, at + 32768));
      const segments = result.segments.map(({ classIndex, score, share }) => [result.classes[classIndex].name, score, share]);
      return { size: [result.width, result.height], labels: btoa(text), segments, classes: result.classes };
    },
    [basename(path), readFileSync(path).toString("base64"), names, options],
  );
const numbers = (text) => {
  const bytes = Buffer.from(text, "base64");
  return new Uint16Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
};
const list = (text = "") => text.split(", ").filter(Boolean);

test("labels agree with Python's on 99.5 % of the pixels of every photo", { timeout: 300_000 }, async (t) => {
  await start(server.url);
  await ready();
  for (const { photo, names, options, size, labels, segments } of JSON.parse(readFileSync(join(folder, "labels.json")))) {
    const { mode, background, things, threshold, smallest_region: smallestRegion } = options;
    const found = await ask(photo, list(names), {
      mode,
      background: list(background),
      things: things ? list(things) : null,
      threshold: typeof threshold === "string" ? 0.2 : (threshold ?? null),
      thresholds: typeof threshold === "string" ? { tower: 0.4 } : {},
      smallestRegion: smallestRegion ?? null,
      vocabulary: null,
    });
    assert.deepEqual(found.size, size, photo);
    const [here, python] = [numbers(found.labels), numbers(labels)];
    assert.equal(here.length, python.length);
    let same = 0;
    for (let at = 0; at < here.length; at++) if (here[at] === python[at]) same++;
    t.diagnostic(`${basename(photo)}: ${((100 * same) / here.length).toFixed(3)} % of pixels`);
    assert.ok(same >= 0.995 * here.length, `${photo}: ${same} of ${here.length} pixels agree`);
    if (mode === "semantic") continue;
    const large = (all) => all.filter(([, , share]) => share > 0.01).map(([name]) => name).sort();
    assert.deepEqual(large(found.segments), large(segments), photo);
  }
  assert.deepEqual(errors, []);
});

/** Teaches the engine of the page, or opens a bank; then the labels of photos, and a bank of the page, in base64. */
const askWithExamples = (marked, bank, asked) =>
  page.evaluate(
    async ([marked, bank, asked]) => {
      const engine = window.deopEngine;
      await engine.capabilities();
      const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
      const base64 = (bytes) => {
        let text = "";
        for (let at = 0; at < bytes.length; at += 32768) text += String.fromCharCode(...bytes.subarray(at, at + 32768));
        return btoa(text);
      };
      let taught = [];
      for (const [photo, examples] of marked) {
        const handle = await engine.encode({ file: new Blob([bytesOf(photo)]) }, { severance: null });
        taught = await engine.teach(handle, examples);
        engine.release(handle);
      }
      if (bank) taught = await engine.openBank(new File([bytesOf(bank)], "bank.safetensors"));
      const options = { mode: "semantic", background: [], things: null, threshold: null, thresholds: {}, smallestRegion: null, vocabulary: null, bank: true, bankWeight: null };
      const labels = [];
      for (const [photo, names] of asked) {
        const handle = await engine.encode({ file: new Blob([bytesOf(photo)]) }, { severance: null });
        labels.push(base64(new Uint8Array(Uint16Array.from((await engine.label(handle, names, options)).labels).buffer)));
        engine.release(handle);
      }
      return { taught, labels, file: base64(new Uint8Array(await (await engine.bankFile()).arrayBuffer())) };
    },
    [marked, bank, asked],
  );
const content = (path) => readFileSync(path).toString("base64");
const agreement = (first, second) => {
  const [here, there] = [numbers(first), numbers(second)];
  assert.equal(here.length, there.length);
  return here.reduce((sum, label, at) => sum + Number(label === there[at]), 0) / here.length;
};

test("examples: the same labels as in Python, and banks are exchanged both ways", { timeout: 300_000 }, async (t) => {
  const { marked, asked, answers, without, names } = JSON.parse(readFileSync(join(folder, "examples.json")));
  const questions = asked.map(([path, text]) => [content(path), list(text)]);
  await start(server.url);
  await ready();
  const found = await askWithExamples(marked.map(([path, examples]) => [content(path), examples]), null, questions);
  const counts = Object.entries(names).filter(([name]) => name);
  assert.deepEqual(found.taught.map(({ name }) => name).sort(), counts.map(([name]) => name).sort());
  // The decoders of JPEG differ a little, so that a proposal at a limit may be an example here only.
  for (const { name, regions } of found.taught) assert.ok(Math.abs(regions - names[name][0]) <= 1, `${name}: ${regions}, ${names[name][0]}`);
  found.labels.forEach((labels, at) => {
    const share = agreement(labels, answers[at]);
    t.diagnostic(`${basename(asked[at][0])}: ${(100 * share).toFixed(3)} % of pixels`);
    assert.ok(share >= 0.995, `${asked[at][0]}: ${share}`);
  });
  assert.ok(found.labels.some((labels, at) => agreement(labels, without[at]) < 0.95), "examples change the result");
  const path = join(folder, "page.safetensors");
  writeFileSync(path, Buffer.from(found.file, "base64"));
  const fromPage = JSON.parse(runPython("../browser/python_labels.py", folder, "--bank", path));
  fromPage.forEach((labels, at) => assert.ok(agreement(labels, found.labels[at]) >= 0.995, asked[at][0]));
  assert.deepEqual(errors, []);
  await context.close();

  await start(server.url);
  await ready();
  const opened = await askWithExamples([], content(join(folder, "bank.safetensors")), questions);
  assert.deepEqual(opened.taught.map(({ name, regions, photos }) => [name, [regions, photos]]).sort(), counts.sort());
  opened.labels.forEach((labels, at) => assert.ok(agreement(labels, answers[at]) >= 0.999, asked[at][0]));
  assert.deepEqual(errors, []);
});

test("from a photo that is dropped to the map; names by keyboard alone; nothing leaves the page", async () => {
  await start(server.url);
  await ready();
  assert.match(await about(), /WebAssembly, \d+ threads? · photos stay in this browser/);
  const data = await page.evaluateHandle((bytes) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0))], "coffee.jpg", { type: "image/jpeg" }));
    return transfer;
  }, readFileSync(join(root, "../examples/coffee.jpg")).toString("base64"));
  await page.dispatchEvent("body", "dragover", { dataTransfer: data });
  await page.dispatchEvent("body", "drop", { dataTransfer: data });
  await page.waitForSelector(".frame");
  for (let step = 0; step < 40; step++) {
    if (await page.evaluate(() => document.activeElement?.tagName === "INPUT" && document.activeElement.getAttribute("placeholder")?.startsWith("cat,"))) break;
    await page.keyboard.press("Tab");
  }
  await page.keyboard.type("coffee cup, wooden table");
  await page.keyboard.press("Enter");
  await settled(page);
  assert.deepEqual((await page.locator(".result-name .name").allTextContents()).sort(), ["Isolate coffee cup", "Isolate wooden table"]);
  assert.equal(await page.locator(".share.none").count(), 0);
  const encoded = await page.evaluate(() => window.deopEngine.calls.encode);
  await page.keyboard.type("spoon");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelectorAll(".result").length === 3);
  assert.equal(await page.evaluate(() => window.deopEngine.calls.encode), encoded);
  assert.deepEqual(requests.filter((address) => !address.startsWith(server.url) && !/^(blob|data):/.test(address)), []);
  assert.ok(requests.some((address) => address.includes("model.safetensors")), "the log has the requests of the worker");
  assert.deepEqual(errors, []);
});

test("a built-in vocabulary, a heatmap, COCO annotations, minimum scores by name", async () => {
  await start(`${server.url}#sample=coffee&vocabulary=everyday`);
  await result();
  assert.ok((await page.locator(".result:not(.off)").count()) >= 2);
  await page.getByLabel("Vocabulary").selectOption("");
  await page.getByRole("textbox", { name: "Names" }).fill("coffee cup, wooden table");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelectorAll(".result").length === 2);
  await page.getByRole("button", { name: "Heatmap of coffee cup" }).click();
  await page.waitForSelector(".heat-title");
  await page.getByRole("button", { name: "Download" }).click();
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: /^COCO/ }).click()]);
  const coco = JSON.parse(readFileSync(await download.path(), "utf8"));
  assert.deepEqual(coco.categories.map(({ name }) => name), ["coffee cup", "wooden table"]);
  assert.equal(coco.annotations.length, 2);
  assert.equal(download.suggestedFilename(), "coffee.coco.json");
  await page.getByText("More", { exact: true }).click();
  await page.getByLabel("Minimum scores by name").fill("coffee cup=1");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelectorAll(".share.none").length === 1);
  assert.match(page.url(), /threshold=coffee\+cup%3D1/);
  assert.deepEqual(errors, []);
});

test("what is no photo is refused in words, and the page goes on", async () => {
  await start(server.url + "#names=circle");
  await give(file(Buffer.from("hello"), "letter.jpg", "image/jpeg"));
  await page.getByRole("alert").filter({ hasText: /letter\.jpg cannot be read: it is damaged, or of a type that this browser does not know/ }).waitFor();
  await give(file(readFileSync(join(root, "../examples/coffee.jpg")).subarray(0, 300), "half.jpg", "image/jpeg"));
  await page.getByRole("alert").filter({ hasText: /half\.jpg cannot be read/ }).waitFor();
  await give(join(folder, "clear.png"));
  await result();
  assert.equal(await page.getByRole("alert").count(), 0);
});

test("names that this model cannot read are refused in words", async () => {
  await start(`${server.url}#sample=coffee&names=${encodeURIComponent("猫")}`);
  await page.waitForSelector("[role=alert]", { timeout: 120_000 });
  await page.getByRole("alert").filter({ hasText: /reads nothing of “猫”/ }).waitFor();
  await page.getByRole("textbox", { name: "Names" }).fill("cup");
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Remove 猫" }).click();
  await result();
});

test("without headers, the service worker enables threads; then the page opens without a network", async () => {
  const cut = await serve(site);
  await start(cut.url + "#names=cat,background");
  await ready();
  assert.equal(await page.evaluate(() => crossOriginIsolated), true);
  await page.reload();
  await ready(); // everything has gone through the service worker
  await cut.close();
  await give(join(root, "../examples/chelsea.png"));
  await result();
  await page.reload();
  await ready();
  await give(join(root, "../examples/chelsea.png"));
  await result();
  assert.match(await page.locator(".results").textContent(), /cat\d/);
  const { taught } = await askWithExamples([[content(join(root, "../examples/chelsea.png")), [{ mark: { x: 220, y: 150 }, name: "fur" }]]], null, []);
  assert.deepEqual(taught.map(({ name }) => name), ["fur"]);
});

test("without a service worker, one thread", async () => {
  await start(plain.url + "#names=cat", { serviceWorkers: "block" });
  await ready();
  assert.equal(await page.evaluate(() => crossOriginIsolated), false);
  assert.match(await about(), /WebAssembly, 1 thread /);
  await give(join(root, "../examples/chelsea.png"));
  await result();
});

test("a damaged or missing file is named", async () => {
  for (const [path, answer, message] of [
    ["/model/words.txt", (response) => response.writeHead(404).end(), /model\/words\.txt cannot be fetched: the server answered 404/],
    ["/model/encode.onnx", (response) => response.writeHead(200).end(Buffer.alloc(readFileSync(join(site, "model/encode.onnx")).length)), /model\/encode\.onnx is not the file that was exported/],
  ]) {
    const broken = await serve(site, (request, response) => request.url.split("?")[0] === path && (answer(response), true), ISOLATED);
    await start(broken.url, { serviceWorkers: "block" });
    await page.waitForSelector("[role=alert]", { timeout: 60_000 });
    await page.getByRole("alert").filter({ hasText: message }).waitFor();
    await context.close();
    context = null;
    await broken.close();
  }
});

test("a photo of 60 megapixels", { timeout: 240_000 }, async () => {
  await start(server.url + "#names=sky,wall");
  await ready();
  await give(file(stripes([RED, BLUE, [200, 220, 240]], 10_000, 6000), "large.png"));
  await page.waitForSelector(".results", { timeout: 180_000 });
  assert.equal(await page.getByRole("alert").count(), 0);
  assert.deepEqual(errors, []);
});

for (const colorScheme of ["light", "dark"])
  test(`axe-core finds nothing serious, and nothing is wider than a phone: ${colorScheme}`, async () => {
    await start(`${server.url}#sample=chelsea&names=cat,background&mode=panoptic&background=grass`, { colorScheme, viewport: { width: 360, height: 740 } });
    await ready();
    await result();
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360);
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => window.axe.run());
    assert.deepEqual(violations.filter(({ impact }) => impact === "serious" || impact === "critical").map(({ id, nodes }) => [id, nodes[0].html]), []);
  });

// The page with the mock engine, in a real browser.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import { launch, open, root, serve, settled } from "./page.mjs";
import { BLUE, file, FLAG, GREEN, RED, stripes } from "./pictures.mjs";

let server, browser, page, context, errors;
before(async () => {
  server = await serve(join(root, "build"));
  browser = await launch();
});
after(async () => {
  await browser.close();
  await server.close();
});
const start = async (hash = "", options = {}) => ({ page, context, errors } = await open(browser, server.url + hash, options));
afterEach(async () => {
  await context?.close();
  assert.deepEqual(errors, []);
});

const give = (...files) => page.setInputFiles('input[type="file"]', files);
const field = () => page.getByRole("textbox", { name: "Names" });
const calls = () => page.evaluate(() => ({ ...window.deopEngine.calls }));
const rows = () => page.locator(".result-name").evaluateAll((all) => all.map((each) => each.textContent));
/** The colour on the page at a place of the photo, the right way round: photo and result over it. */
const overlayAt = (x, y) =>
  page.evaluate(
    ([u, v]) => {
      const canvas = document.querySelector(".result-layer");
      return [...canvas.getContext("2d").getImageData(Math.floor(u * canvas.width), Math.floor(v * canvas.height), 1, 1).data];
    },
    [x, y],
  );
const near = (found, expected, tolerance = 3) =>
  assert.ok(expected.every((value, c) => Math.abs(value - found[c]) <= tolerance), `${found} is not ${expected}`);
/** Wait until the page has drawn a colour: it draws after the next frame. */
const shows = async (x, y, expected) => {
  for (let tries = 0; tries < 100; tries++) {
    const found = await overlayAt(x, y);
    if (expected.every((value, c) => Math.abs(value - found[c]) <= 3)) return;
    await page.waitForTimeout(50);
  }
  near(await overlayAt(x, y), expected);
};
/** Two frames later, what has been asked for is drawn. */
const drawn = () => page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
const over = async (x, y) => {
  const box = await page.locator(".frame").boundingBox();
  return [box.x + x * box.width, box.y + y * box.height];
};

const download = async (title) => {
  await page.getByRole("button", { name: "Download" }).click();
  const [file] = await Promise.all([page.waitForEvent("download"), page.locator(".menu").getByRole("button", { name: title }).click()]);
  return { name: file.suggestedFilename(), bytes: readFileSync(await file.path()) };
};
/** Width, height and a pixel of a picture. */
const pixel = (bytes, x, y) =>
  page.evaluate(
    async ([data, u, v]) => {
      const bitmap = await createImageBitmap(new Blob([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))]));
      const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
      context.drawImage(bitmap, 0, 0);
      return [bitmap.width, bitmap.height, ...context.getImageData(u, v, 1, 1).data];
    },
    [bytes.toString("base64"), x, y],
  );

test("a photo and names give labelled pixels, and other names do not encode again", async () => {
  await start();
  await give(FLAG);
  await field().fill("red, blue");
  await page.keyboard.press("Enter");
  await settled(page);
  assert.deepEqual((await rows()).map((row) => row.replace(/, score.*/, "")), ["Isolate red50 % of the photo", "Isolate blue50 % of the photo"]);
  await shows(0.25, 0.5, [...RED, 251]);
  await shows(0.75, 0.5, [...BLUE, 251]);
  await field().fill("spoon");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelectorAll(".result").length === 3);
  assert.equal((await calls()).encode, 1);
  assert.match(await page.locator("p.spoken").textContent(), /red 50 %, blue 50 %/);
});

test("hover reads, a click isolates, switches hide", async () => {
  await start("#names=red,blue");
  await give(FLAG);
  await settled(page);
  await page.mouse.move(...(await over(0.75, 0.5)));
  assert.match(await page.locator(".tip-text").textContent(), /^blue(0\.\d\d|1\.00)$/);
  assert.equal(await page.locator(".result.near .name").evaluate((name) => name.lastChild.data), "blue");
  await page.mouse.click(...(await over(0.75, 0.5)));
  await page.mouse.move(5, 5);
  await shows(0.25, 0.5, [14, 16, 20, 199]);
  await shows(0.75, 0.5, [0, 0, 0, 0]);
  await page.getByRole("button", { name: "Isolate blue" }).click();
  await page.mouse.move(5, 5);
  await page.getByRole("button", { name: "Colour red" }).click();
  await page.mouse.move(5, 5);
  await page.waitForTimeout(50);
  await shows(0.25, 0.5, [0, 0, 0, 0]);
  await shows(0.75, 0.5, [...BLUE, 251]);
  assert.equal(await page.getByRole("button", { name: "Colour red" }).getAttribute("aria-pressed"), "false");
  assert.equal((await calls()).label, 1);
});

test("opacity and style ask the engine nothing, threshold and mode label again", async () => {
  await start("#names=red,blue");
  await give(FLAG);
  await settled(page);
  const before = await calls();
  await page.getByLabel("Opacity").fill("1");
  await shows(0.25, 0.5, [...RED, 255]);
  await page.getByText("Outline", { exact: true }).click();
  await shows(0.25, 0.5, [0, 0, 0, 0]);
  assert.deepEqual(await calls(), before);
  await page.getByRole("slider", { name: "Threshold" }).fill("1");
  await page.waitForFunction(() => document.querySelectorAll(".share.none").length === 2);
  await page.getByRole("slider", { name: "Threshold" }).fill("0");
  await page.getByText("Panoptic", { exact: true }).click();
  await page.waitForFunction(() => document.querySelectorAll(".share.none").length === 0);
  assert.equal((await calls()).encode, before.encode);
  await page.waitForURL(/mode=panoptic/);
});

test("a heatmap", async () => {
  await start("#names=red,blue");
  await give(FLAG);
  await settled(page);
  await page.getByRole("button", { name: "Heatmap of red" }).click();
  await page.waitForSelector(".heat-title");
  await drawn();
  const [hot, cold] = [await overlayAt(0.2, 0.5), await overlayAt(0.8, 0.5)];
  assert.ok(hot[0] + hot[1] > 400 && cold[0] + cold[1] < 60, `${hot} ${cold}`);
  await page.mouse.move(...(await over(0.2, 0.5)));
  assert.match(await page.locator(".tip-text").textContent(), /^red(0\.9|1\.0)\d$/);
});

test("opacity and download are those of the heatmap that is shown; the code asks for it", async () => {
  await start("#names=red,blue");
  await give(FLAG);
  await settled(page);
  await page.getByRole("button", { name: "Heatmap of red" }).click();
  await page.waitForSelector(".heat-title");
  const before = page.url();
  await page.getByLabel("Opacity").fill("1");
  await page.waitForFunction(() => document.querySelector(".result-layer").getContext("2d").getImageData(2, 2, 1, 1).data[3] === 255);
  assert.equal(page.url(), before); // the opacity of the result stays as it is
  await drawn();
  const shown = await overlayAt(0.2, 0.5);
  const { bytes } = await download(/^Picture/);
  near(await pixel(bytes, 8, 10), [40, 20, ...shown.slice(0, 3), 255]);
  assert.match(await page.locator("#code pre").first().textContent(), /--heatmap red --alpha 1 --model mock$/);
  await page.getByRole("button", { name: "Show all" }).click();
  await shows(0.2, 0.5, [...RED, 251]);
});

test("small regions vanish without encoding again, and come back", async () => {
  await start("#names=red,blue");
  await give(file(stripes([...Array(9).fill(RED), BLUE, ...Array(10).fill(RED)], 400, 200)));
  await settled(page);
  assert.equal(await page.locator(".share.none").count(), 0);
  const before = await calls();
  const slider = page.getByRole("slider", { name: "Smoothing" });
  await slider.focus();
  for (let step = 0; step < 8; step++) await page.keyboard.press("ArrowRight");
  await page.waitForURL(/smallest-region=0\.1/);
  await page.waitForFunction(() => document.querySelectorAll(".share.none").length === 1);
  assert.equal(await slider.getAttribute("aria-valuetext"), "under 10 %");
  assert.equal((await calls()).encode, before.encode);
  assert.match(await page.locator("#code pre").first().textContent(), /--smallest-region 0\.1/);
  await page.getByRole("button", { name: "Reset: Smoothing" }).click();
  await page.waitForFunction(() => document.querySelectorAll(".share.none").length === 0);
  assert.equal(await page.getByRole("button", { name: "Reset: Smoothing" }).count(), 0);
  assert.doesNotMatch(page.url(), /smallest/);
});

test("names are written on the photo, and in the picture that is downloaded", async () => {
  await start("#names=red,blue");
  await give(file(stripes([RED, BLUE], 400, 200)));
  await settled(page);
  const plates = () => page.locator(".plates span").allTextContents();
  await page.waitForSelector(".plates span");
  assert.deepEqual((await plates()).sort(), ["blue", "red"]);
  const box = await page.locator(".plates span", { hasText: "blue" }).boundingBox();
  const photo = await page.locator(".frame").boundingBox();
  assert.ok(box.x > photo.x + photo.width / 2 && box.x + box.width < photo.x + photo.width);
  const dark = async (bytes) =>
    page.evaluate(async (data) => {
      const bitmap = await createImageBitmap(new Blob([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))]));
      const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
      context.drawImage(bitmap, 0, 0);
      const pixels = context.getImageData(0, 0, bitmap.width, bitmap.height).data;
      return pixels.filter((value, at) => at % 4 === 0 && value + pixels[at + 1] + pixels[at + 2] < 200).length;
    }, bytes.toString("base64"));
  assert.ok((await dark((await download(/^Picture/)).bytes)) > 200);
  await page.getByRole("button", { name: "Isolate red" }).click();
  assert.deepEqual(await plates(), ["red"]);
  await page.getByRole("button", { name: "Show all" }).click();
  await page.getByRole("switch", { name: "Names on the photo" }).uncheck();
  assert.deepEqual(await plates(), []);
  await page.waitForURL(/written=no/);
  assert.equal(await dark((await download(/^Picture/)).bytes), 0);
});

test("two settings side by side, with a slider", async () => {
  await start("#names=red,blue");
  await give(FLAG);
  await settled(page);
  await page.getByText("These settings", { exact: true }).click();
  await page.getByText(/Now change some/).waitFor();
  await page.getByText("Labels", { exact: true }).click();
  await page.waitForSelector(".left-half");
  assert.deepEqual(await page.locator(".side-title").allTextContents(), ["overlay", "labels"]);
  const clip = () => page.locator(".left-half").evaluate((half) => getComputedStyle(half).clipPath);
  const middle = await clip();
  await page.getByLabel("Position of the comparison").focus();
  await page.keyboard.press("ArrowLeft");
  assert.notEqual(await clip(), middle);
  await page.waitForURL(/left=names/);
  const url = page.url();
  await page.goto("about:blank");
  await page.goto(url);
  await give(FLAG);
  await settled(page);
  await page.waitForSelector(".left-half");
  await page.getByText("Nothing", { exact: true }).click();
  assert.equal(await page.locator(".left-half").count(), 0);
});

test("by keyboard alone", async () => {
  await start();
  await page.keyboard.press("Tab");
  const focused = () => page.evaluate(() => document.activeElement.getAttribute("aria-label") ?? document.activeElement.textContent);
  for (let i = 0; i < 20 && !(await focused()).startsWith("Sample: a cup"); i++) await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await settled(page);
  for (let i = 0; i < 30 && (await page.evaluate(() => document.activeElement.tagName)) !== "INPUT"; i++) await page.keyboard.press("Tab");
  await page.keyboard.type("spoon,");
  assert.equal(await page.locator(".chip").count(), 3);
  await page.keyboard.press("Backspace"); // edits the last one
  await page.keyboard.type("s");
  await page.keyboard.press("Enter");
  assert.equal(await page.locator(".chip-text").last().textContent(), "spoons");
  await page.keyboard.press("ArrowLeft");
  await page.keyboard.press("ArrowLeft");
  await page.keyboard.press("Delete");
  assert.deepEqual(await page.locator(".chip-text").allTextContents(), ["coffee cup", "spoons"]);
  await settled(page);
  await page.locator(".frame").focus();
  await page.keyboard.press("ArrowDown");
  assert.ok((await page.locator(".tip-text[role=status]").textContent()).length > 3);
  await page.keyboard.press("Enter");
  assert.equal(await page.locator(".result.alone").count(), 1);
  await page.getByRole("button", { name: "Download" }).focus();
  await page.keyboard.press("Enter");
  await page.keyboard.press("Tab");
  assert.match(await focused(), /^Picture/);
  await page.keyboard.press("Escape");
  assert.equal(await page.locator("#download:popover-open").count(), 0);
});

test("names: synonyms, lists, repetitions", async () => {
  await start();
  const names = field();
  await names.fill("sofa|couch, cat");
  await names.press("Enter");
  await names.fill("Couch");
  await names.press("Enter");
  assert.deepEqual(await page.locator(".chip-text").allTextContents(), ["sofa | couch", "cat"]);
  assert.match(await page.locator(".remark").first().textContent(), /already there/);
  await names.fill("a car, parked; road");
  await names.press("Enter");
  assert.equal(await page.locator(".chip").count(), 4);
  await page.waitForURL(/names=sofa%7Ccouch%3B/);
  await page.getByRole("button", { name: "Remove cat" }).click();
  assert.equal(await page.locator(".chip").count(), 3);
});

test("of many names that were not found only the number is shown", async () => {
  await start(`#names=red,blue,${Array.from({ length: 300 }, (_, k) => `green ${k}`).join()}`);
  await give(FLAG);
  await settled(page);
  assert.equal(await page.locator(".result").count(), 2);
  await page.getByRole("button", { name: "Show 300 names that were not found" }).click();
  assert.equal(await page.locator(".result").count(), 302);
  await page.getByRole("slider", { name: "Threshold" }).fill("1");
  await page.getByText("None of the names was found.").waitFor();
});

test("files that are no photos are refused by name, the others are shown", async () => {
  await start("#names=red,blue");
  await give(file(Buffer.from("hello"), "notes.txt", "text/plain"), file(FLAG.buffer.subarray(0, 40), "half.png"), file(Buffer.alloc(0), "none.jpg"), FLAG);
  await settled(page);
  const text = await page.getByRole("alert").textContent();
  for (const part of ["notes.txt is a text file", "half.png cannot be read", "none.jpg is empty"]) assert.ok(text.includes(part), text);
  assert.equal(await page.locator(".thumbnail[aria-pressed]").count(), 1);
  await page.getByRole("button", { name: "Close" }).click();
  assert.equal(await page.getByRole("alert").count(), 0);
});

test("photos are dropped and pasted; several make a strip", async () => {
  await start("#names=red,blue,green");
  const send = (kind, buffer, name) =>
    page.evaluate(
      async ([type, url, title]) => {
        const data = new DataTransfer();
        data.items.add(new File([await (await fetch(url)).blob()], title, { type: "image/png" }));
        const event = type === "paste" ? new ClipboardEvent("paste", { clipboardData: data, cancelable: true, bubbles: true }) : new DragEvent("drop", { dataTransfer: data, cancelable: true, bubbles: true });
        document.body.dispatchEvent(event);
      },
      [kind, url(buffer), name],
    );
  const url = (buffer) => {
    context.route("**/given.png", (route) => route.fulfill({ body: buffer, contentType: "image/png" }));
    return "given.png";
  };
  await send("drop", FLAG.buffer, "dropped.png");
  await settled(page);
  await context.unroute("**/given.png");
  await send("paste", stripes([GREEN]), "pasted.png");
  await page.waitForFunction(() => document.querySelectorAll(".thumbnail[aria-pressed]").length === 2);
  await page.waitForFunction(() => document.querySelector(".result .name")?.lastChild.data === "green");
  await page.getByRole("button", { name: "dropped.png", exact: true }).click();
  await page.waitForFunction(() => document.querySelector(".result .name")?.lastChild.data === "red");
  assert.equal((await calls()).encode, 2);
  await page.getByRole("button", { name: "Remove dropped.png" }).click();
  await page.waitForFunction(() => document.querySelector(".result .name")?.lastChild.data === "green");
  assert.equal((await calls()).release, 1);
});

test("several photos are chosen at once; samples then leave the strip", async () => {
  await start("#sample=coffee&names=red,blue");
  await settled(page);
  assert.equal(await page.locator(".thumbnail.faint").count(), 3);
  const [chooser] = await Promise.all([page.waitForEvent("filechooser"), page.getByRole("button", { name: "Add photos" }).click()]);
  assert.ok(chooser.isMultiple());
  await chooser.setFiles([FLAG, file(stripes([GREEN]), "green.png")]);
  await page.waitForFunction(() => document.querySelectorAll(".thumbnail[aria-pressed]").length === 3);
  assert.equal(await page.locator(".thumbnail.faint").count(), 0);
  assert.equal(await page.locator('.thumbnail[aria-pressed="true"]').getAttribute("title"), "flag.png");
  await page.waitForFunction(() => document.title === "flag.png – deop");
});

test("downloads", async () => {
  await start("#names=red,blue");
  await give(FLAG);
  await settled(page);
  const get = download;
  const labels = await get("Label map");
  assert.equal(labels.name, "flag.labels.png");
  near(await pixel(labels.bytes, 30, 10), [40, 20, ...BLUE, 255]);
  const picture = await get("Picture");
  assert.equal(picture.name, "flag.deop.png");
  near(await pixel(picture.bytes, 5, 10), [40, 20, ...RED, 255]);
  await page.getByRole("button", { name: "Isolate red" }).click();
  const cutout = await get("Cut-out");
  near(await pixel(cutout.bytes, 5, 10), [40, 20, ...RED, 255]);
  assert.equal((await pixel(cutout.bytes, 30, 10))[5], 0);
  const json = JSON.parse((await get("JSON")).bytes.toString());
  assert.deepEqual(json.size, [40, 20]);
  assert.deepEqual(json.segments.map(({ name, box, area, share }) => ({ name, box, area, share })), [
    { name: "red", box: [0, 0, 20, 20], area: 400, share: 0.5 },
    { name: "blue", box: [20, 0, 40, 20], area: 400, share: 0.5 },
  ]);
  assert.deepEqual(json.segments[1].segmentation, { size: [20, 40], counts: "`<`<" });
});

test("the command, the Python lines and the link are copied", async () => {
  await start("#sample=rocket&names=sky,tower&threshold=0.2");
  await settled(page);
  const clipboard = () => page.evaluate(() => navigator.clipboard.readText());
  await page.getByRole("button", { name: "Code" }).click();
  await page.getByRole("button", { name: "Copy: Command" }).click();
  await page.waitForSelector(".toast:not(:empty)");
  assert.equal(await clipboard(), "deop segment examples/rocket.jpg --classes 'sky, tower' --threshold 0.2 --model mock");
  await page.getByRole("button", { name: "Copy: Python" }).click();
  await page.waitForTimeout(50);
  assert.match(await clipboard(), /^import deop\n[^]*threshold=0\.2/);
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "Copy link" }).click();
  await page.waitForTimeout(50);
  assert.match(await clipboard(), /#sample=rocket&names=sky,\+tower&threshold=0\.2$/);
});

test("an address that is typed is followed", async () => {
  await start("#sample=rocket&names=sky,tower");
  await settled(page);
  await page.evaluate(() => (location.hash = "#sample=coffee&names=spoon&style=labels"));
  await page.waitForFunction(() => document.querySelector(".thumbnail[aria-pressed=true]")?.title === "coffee.jpg");
  assert.deepEqual(await page.locator(".chip-text").allTextContents(), ["spoon"]);
});

test("a photo of 60 megapixels", { timeout: 120_000 }, async () => {
  await start("#names=red,blue");
  await give(file(stripes([RED, BLUE], 10_000, 6000), "large.png"));
  await page.waitForSelector(".results", { timeout: 60_000 });
  await shows(0.25, 0.5, [...RED, 251]);
  await shows(0.75, 0.5, [...BLUE, 251]);
});

test("nothing is wider than a phone of 360 pixels, and the photo is seen", async () => {
  await start("#sample=chelsea&names=cat,background&mode=panoptic&background=a+very+long+name+of+something+else", { viewport: { width: 360, height: 740 } });
  await settled(page);
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360);
  const box = await page.locator(".frame").boundingBox();
  assert.ok(box.width >= 350 && box.height > 200, JSON.stringify(box));
  // It stays in sight while settings below it change.
  await page.getByRole("slider", { name: "Smoothing" }).scrollIntoViewIfNeeded();
  await page.evaluate(() => window.scrollBy(0, 200));
  const later = await page.locator(".frame").boundingBox();
  assert.ok(later.y >= 50 && later.y < 80, JSON.stringify(later));
});

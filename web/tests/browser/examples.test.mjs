// Marking regions and naming them, with the mock engine in a real browser.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import { launch, open, root, serve, settled } from "./page.mjs";
import { BLUE, file, FLAG, GREEN, RED, stripes } from "./pictures.mjs";

const OTHER = file(stripes([GREEN, BLUE, RED]), "other.png");
let server, browser, page, context, errors;
before(async () => {
  server = await serve(join(root, "build"));
  browser = await launch();
});
after(async () => {
  await browser.close();
  await server.close();
});
afterEach(async () => {
  await context?.close();
  assert.deepEqual(errors, []);
});

const start = async (hash = "#names=green,spoon", options = {}) => {
  ({ page, context, errors } = await open(browser, server.url + hash, options));
  await page.setInputFiles('input[type="file"]', FLAG);
  await settled(page);
};
const calls = () => page.evaluate(() => ({ ...window.deopEngine.calls }));
/** Chooses a file of examples. */
const openBank = async (given) => {
  const [chooser] = await Promise.all([page.waitForEvent("filechooser"), page.getByRole("button", { name: "Open examples" }).click()]);
  await chooser.setFiles(given);
};
const field = () => page.getByRole("combobox", { name: "Name of the marked region" });
const correct = () => page.getByRole("button", { name: "Correct", exact: true }).click();
const over = async (x, y) => {
  const box = await page.locator(".frame").boundingBox();
  return [box.x + x * box.width, box.y + y * box.height];
};
const click = async (x, y = 0.5) => page.mouse.click(...(await over(x, y)));
const drag = async (from, to) => {
  await page.mouse.move(...(await over(...from)));
  await page.mouse.down();
  await page.mouse.move(...(await over(...to)), { steps: 3 });
  await page.mouse.up();
};
/** The name under the pointer. */
const nameAt = async (x, y = 0.5) => {
  await page.mouse.move(...(await over(x, y)));
  return (await page.locator(".tip-text").textContent()).replace(/[01]\.\d\d$/, "");
};
const names = () => page.locator(".chips").first().locator(".chip-text > span:not(.dot):not(.has-examples)").allTextContents();
const examples = () => page.locator(".examples li .name").allTextContents();
const learned = async (count) => {
  await page.waitForFunction((wanted) => document.querySelectorAll(".examples li").length === wanted, count);
  await settled(page);
};
const teach = async (x, name, count) => {
  await click(x);
  await field().fill(name);
  await page.keyboard.press("Enter");
  await learned(count);
};

test("a region is marked once, and this photo and the next ones follow without encoding again", async () => {
  await start();
  await page.setInputFiles('input[type="file"]', OTHER);
  await page.waitForFunction(() => document.querySelectorAll(".strip .thumbnail:not(.add)").length >= 2);
  await page.getByRole("button", { name: "flag.png", exact: true }).click();
  await settled(page);
  await correct();
  const before = await calls();
  await teach(0.75, "widget-7", 1);
  assert.deepEqual(await names(), ["green", "spoon", "widget-7"]);
  assert.equal(await nameAt(0.75), "widget-7");
  assert.notEqual(await nameAt(0.25), "widget-7");
  await page.getByRole("button", { name: "other.png", exact: true }).click();
  await settled(page);
  assert.equal(await nameAt(0.5), "widget-7");
  assert.equal(await nameAt(0.1), "green");
  assert.deepEqual([(await calls()).encode, (await calls()).teach], [before.encode, before.teach + 1]);
  assert.equal(await page.locator(".chip .has-examples").count(), 1);
});

test("clicks mark while “Correct” is on, and isolate when it is off", async () => {
  await start("#names=red,blue");
  await correct();
  assert.equal(await page.getByRole("button", { name: "Correct", exact: true }).getAttribute("aria-pressed"), "true");
  await click(0.75);
  await page.waitForSelector(".marked-layer");
  assert.equal(await page.locator(".result.alone").count(), 0);
  const marked = await page.evaluate(() => {
    const layer = document.querySelector(".marked-layer");
    return [0.25, 0.9].map((x) => layer.getContext("2d").getImageData(x * layer.width, layer.height / 2, 1, 1).data[3]);
  });
  assert.ok(marked[0] > 100 && marked[1] === 0, String(marked));
  await page.keyboard.press("Escape");
  assert.equal(await page.locator(".marked-layer").count(), 0);
  await page.getByRole("button", { name: "Done" }).click();
  await click(0.75);
  await page.waitForSelector(".result.alone");
});

test("what a region is not", async () => {
  await start("#names=red,blue,navy");
  await correct();
  await click(0.75);
  await page.getByText("is not", { exact: true }).click();
  assert.equal(await field().inputValue(), "blue"); // what it is called now
  await page.getByRole("button", { name: "Learn" }).click();
  await learned(1);
  assert.deepEqual(await examples(), ["not blue"]);
  assert.notEqual(await nameAt(0.75), "blue");
  assert.deepEqual(await names(), ["red", "blue", "navy"]);
});

test("a box by dragging, and all of it by keyboard", async () => {
  await start();
  await correct();
  await drag([0.55, 0.2], [0.95, 0.8]);
  await field().fill("widget");
  await page.keyboard.press("Enter");
  await learned(1);
  assert.equal(await nameAt(0.75), "widget");
  assert.ok(await page.locator(".frame").evaluate((frame) => frame === document.activeElement), "the next region can be marked at once");
  for (let step = 0; step < 3; step++) await page.keyboard.press("Shift+ArrowLeft");
  await page.keyboard.press("Enter");
  await page.waitForSelector(".marked-layer");
  assert.ok(await field().evaluate((input) => input === document.activeElement));
  await page.keyboard.type("part");
  await page.keyboard.press("Enter");
  await learned(2);
  assert.equal(await nameAt(0.25), "part");
  await page.locator(".frame").focus();
  await page.keyboard.press("ArrowLeft");
  await page.keyboard.press("b");
  for (let step = 0; step < 2; step++) await page.keyboard.press("Shift+ArrowLeft");
  await page.keyboard.press("Shift+ArrowDown");
  assert.equal(await page.locator(".mark.pending.box").count(), 1);
  await page.keyboard.press("Enter");
  await field().waitFor();
  assert.equal(await page.locator(".mark.pending.box").count(), 1);
  await page.keyboard.press("Escape");
  assert.equal(await page.locator(".mark.pending").count(), 0);
});

test("remove, undo and clear; a name leaves with its last example, unless somebody typed it", async () => {
  await start();
  await correct();
  await teach(0.75, "widget", 1);
  await teach(0.25, "spoon", 2);
  assert.deepEqual(await examples(), ["widget", "spoon"]);
  await page.getByRole("button", { name: "Remove the example: widget in flag.png" }).click();
  await learned(1);
  assert.deepEqual(await names(), ["green", "spoon"]);
  await page.getByRole("button", { name: /^Undo/ }).click();
  await learned(2);
  assert.deepEqual(await names(), ["green", "spoon", "widget"]);
  await page.getByRole("button", { name: /^Clear/ }).click();
  await learned(0);
  assert.deepEqual(await names(), ["green", "spoon"]);
  assert.equal(await page.getByRole("slider", { name: "Examples beside words" }).count(), 0);
  await page.getByRole("button", { name: /^Undo/ }).click();
  await learned(2);
  assert.equal(await nameAt(0.75), "widget");
  for (let left = 2; left > 0; left--) await page.getByRole("button", { name: /^Undo/ }).click();
  await page.getByRole("button", { name: /^Undo/ }).waitFor({ state: "detached" });
  await learned(0);
});

test("examples are saved and opened, also by dropping a file; what is no bank is refused in words", async () => {
  await start();
  await correct();
  await teach(0.75, "widget", 1);
  const [saved] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Save examples" }).click()]);
  assert.equal(saved.suggestedFilename(), "bank.safetensors");
  const bytes = readFileSync(await saved.path());
  await context.close();
  await start();
  assert.equal(await page.getByRole("button", { name: "Save examples" }).isDisabled(), true);
  await openBank({ name: "no.safetensors", mimeType: "", buffer: Buffer.from("hello") });
  await page.getByRole("alert").filter({ hasText: "no.safetensors is no bank of examples" }).waitFor();
  await learned(0);
  const data = await page.evaluateHandle((text) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], "shop.safetensors"));
    return transfer;
  }, bytes.toString("base64"));
  await page.dispatchEvent("body", "drop", { dataTransfer: data });
  await learned(1);
  assert.deepEqual(await names(), ["green", "spoon", "widget"]);
  assert.equal(await nameAt(0.75), "widget");
  await page.getByRole("button", { name: "Remove the examples of shop.safetensors" }).click();
  await learned(0);
  assert.notEqual(await nameAt(0.75), "widget");
});

test("a refused example changes nothing, and can be named otherwise", async () => {
  await start();
  await correct();
  await teach(0.25, "spoon", 1);
  await click(0.75);
  await field().fill("unlearnable");
  await page.keyboard.press("Enter");
  await page.locator(".correction").getByRole("alert").filter({ hasText: "cannot be learned" }).waitFor();
  assert.deepEqual([await examples(), await names()], [["spoon"], ["green", "spoon"]]);
  await field().fill("widget");
  await page.keyboard.press("Enter");
  await learned(2);
  assert.equal(await nameAt(0.25), "spoon");
});

test("words or examples: the slider, the address, the code and the JSON", async () => {
  await start();
  await correct();
  await teach(0.75, "widget", 1);
  const [command, lines] = await page.locator("#code pre").allTextContents();
  assert.match(command, /--classes 'green, spoon, widget' --bank bank\.safetensors --model mock$/);
  assert.match(lines, /bank=deop\.load_bank\("bank\.safetensors"\)/);
  await page.getByRole("slider", { name: "Examples beside words" }).fill("0");
  await page.waitForURL(/bank-weight=0$/);
  await settled(page);
  assert.notEqual(await nameAt(0.75), "widget");
  assert.match((await page.locator("#code pre").allTextContents())[0], /--bank-weight 0 /);
  await page.getByRole("button", { name: "Reset: Examples beside words" }).click();
  await settled(page);
  assert.equal(await nameAt(0.75), "widget");
  await page.getByRole("button", { name: "Download" }).click();
  const [download] = await Promise.all([page.waitForEvent("download"), page.locator(".menu").getByRole("button", { name: /^JSON/ }).click()]);
  const { settings } = JSON.parse(readFileSync(await download.path(), "utf8"));
  assert.deepEqual([settings.bank, settings.bank_weight], ["bank.safetensors", 0.5]);
});

test("a photo without names; a vocabulary without the name", async () => {
  ({ page, context, errors } = await open(browser, server.url));
  assert.equal(await page.getByRole("button", { name: "Correct", exact: true }).isDisabled(), true);
  await page.setInputFiles('input[type="file"]', FLAG);
  await page.waitForSelector(".frame");
  await correct();
  await click(0.75);
  await field().fill("widget");
  await page.keyboard.press("Enter");
  await learned(1);
  assert.deepEqual(await names(), ["widget"]);
  await page.getByLabel("Vocabulary").selectOption("coco");
  await click(0.25);
  await field().fill("gadget");
  await page.keyboard.press("Enter");
  await page.locator(".toast").filter({ hasText: "The vocabulary does not have this name" }).waitFor();
  await page.getByLabel("Vocabulary").selectOption("");
  assert.deepEqual(await names(), ["widget", "gadget"]);
});

test("a photo that is removed leaves its examples, which can be undone and taught again", async () => {
  await start();
  await correct();
  await teach(0.75, "widget", 1);
  await page.setInputFiles('input[type="file"]', OTHER);
  await page.getByRole("button", { name: "Remove flag.png", exact: true }).click();
  await settled(page);
  assert.equal(await nameAt(0.5), "widget");
  await page.getByRole("button", { name: /^Clear/ }).click();
  await learned(0);
  await page.getByRole("button", { name: /^Undo/ }).click();
  await learned(1);
  assert.equal(await nameAt(0.5), "widget");
});

test("on a phone, the photo, the bar and the list fit", async () => {
  await start("#names=green,spoon", { viewport: { width: 360, height: 740 }, hasTouch: true });
  await correct();
  const [x, y] = await over(0.75, 0.5);
  await page.touchscreen.tap(x, y);
  await field().fill("a rather long name of a part, type 7");
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360);
  const [photo, bar] = [await page.locator(".frame").boundingBox(), await page.locator(".correction").boundingBox()];
  assert.ok(bar.y >= photo.y + photo.height - 1 && bar.y + bar.height <= 740, "the bar is below the photo and in sight");
  await page.keyboard.press("Enter");
  await learned(1);
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360);
});

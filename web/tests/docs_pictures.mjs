// The pictures of the page in docs/pictures: node tests/docs_pictures.mjs ADDRESS [NAME ...], of a served export.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { launch, open, root, settled } from "./browser/page.mjs";

const [, , address, ...chosen] = process.argv;
if (!address) throw new Error("usage: node tests/docs_pictures.mjs http://127.0.0.1:8000/ [NAME ...]");
const names = "sample=pagoda&names=sky,pagoda|temple,tree,lake|sea";
/** Marks the cup, and waits for the pixels that it stands for. */
const mark = async (page) => {
  await page.getByRole("button", { name: "Correct", exact: true }).click();
  const box = await page.locator(".frame").boundingBox();
  await page.mouse.click(box.x + 0.55 * box.width, box.y + 0.4 * box.height);
  await page.waitForSelector(".marked-layer");
  await page.keyboard.type("cup");
  await page.mouse.move(5, 5);
};
const PICTURES = [
  ["page", "light", `#${names}`],
  ["page_examples", "light", "#sample=coffee&names=wooden+table,spoon", mark],
  ["page_comparison", "dark", `#${names}&left=${encodeURIComponent("names=sky,building,tree,water")}`],
];
const browser = await launch();
for (const [name, colorScheme, hash, prepare] of PICTURES) {
  if (chosen.length && !chosen.includes(name)) continue;
  const { page, context } = await open(browser, address + hash, { colorScheme, viewport: { width: 1280, height: 800 } });
  await settled(page);
  await prepare?.(page);
  await page.waitForTimeout(300);
  const png = (await page.screenshot()).toString("base64");
  const webp = await page.evaluate(async (data) => {
    const bitmap = await createImageBitmap(new Blob([Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0))]));
    const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    const bytes = new Uint8Array(await (await canvas.convertToBlob({ type: "image/webp", quality: 0.86 })).arrayBuffer());
    return btoa(bytes.reduce((text, byte) => text + String.fromCharCode(byte), ""));
  }, png);
  writeFileSync(join(root, `../docs/pictures/${name}.webp`), Buffer.from(webp, "base64"));
  await context.close();
}
await browser.close();

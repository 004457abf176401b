// The pictures of the page in docs/pictures: node tests/docs_pictures.mjs ADDRESS, of a running `deop serve`.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { launch, open, root, settled } from "./browser/page.mjs";

const [, , address] = process.argv;
if (!address) throw new Error("usage: node tests/docs_pictures.mjs http://127.0.0.1:8000/");
const names = "sample=pagoda&names=sky,pagoda|temple,tree,lake|sea";
const PICTURES = [
  ["page", "light", `#${names}`],
  ["page_comparison", "dark", `#${names}&left=${encodeURIComponent("names=sky,building,tree,water")}`],
];
const browser = await launch();
for (const [name, colorScheme, hash] of PICTURES) {
  const { page, context } = await open(browser, address + hash, { colorScheme, viewport: { width: 1280, height: 800 } });
  await settled(page);
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

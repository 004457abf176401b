// Pictures of the page at three sizes, to look at: node tests/screenshots.mjs FOLDER
import { join } from "node:path";
import { launch, open, root, serve, settled } from "./browser/page.mjs";

const out = process.argv[2];
if (!out) throw new Error("usage: node tests/screenshots.mjs FOLDER");
const server = await serve(join(root, "build"));
const browser = await launch();
const hash = "#sample=coffee&names=coffee+cup|mug,wooden+table,spoon,saucer";
const shots = [
  ["empty-large-light", "", 1440, 900, "light"],
  ["empty-phone-dark", "", 360, 740, "dark"],
  ["large-light", hash, 1440, 900, "light"],
  ["large-dark", hash, 1440, 900, "dark"],
  ["medium-dark", "#sample=rocket&names=sky,tower,smoke,fire&mode=panoptic", 1024, 768, "dark"],
  ["phone-light", "#sample=chelsea&names=cat,background", 360, 740, "light"],
  ["compare-light", `${hash}&mode=panoptic&left=${encodeURIComponent("names=coffee+cup,table&style=outline")}`, 1440, 900, "light"],
];
for (const [name, address, width, height, colorScheme] of shots) {
  const { page, context, errors } = await open(browser, server.url + address, { viewport: { width, height }, colorScheme });
  if (address) await settled(page);
  await page.waitForTimeout(200);
  await page.screenshot({ path: join(out, `${name}.png`), fullPage: width < 500 });
  if (name === "large-dark") {
    const box = await page.locator(".frame").boundingBox();
    await page.mouse.move(box.x + 0.55 * box.width, box.y + 0.4 * box.height);
    await page.waitForTimeout(100);
    await page.screenshot({ path: join(out, "hover-dark.png") });
    await page.locator(".result-name:enabled").first().click();
    await page.getByRole("button", { name: "Download" }).click();
    await page.waitForTimeout(100);
    await page.screenshot({ path: join(out, "isolated-dark.png") });
  }
  if (name === "large-light") {
    await page.getByRole("button", { name: /^Heatmap/ }).first().click();
    await page.waitForTimeout(300);
    await page.getByRole("button", { name: "Code" }).click();
    await page.waitForTimeout(100);
    await page.screenshot({ path: join(out, "heatmap-code-light.png") });
  }
  if (errors.length) console.log(name, errors);
  await context.close();
}
await browser.close();
await server.close();

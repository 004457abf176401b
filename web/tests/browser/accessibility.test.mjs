// axe-core finds nothing serious, in light and dark, in every state of the page.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { launch, open, root, serve, settled } from "./page.mjs";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const RESULT = "#sample=coffee&names=coffee+cup|mug,wooden+table,spoon&mode=panoptic&background=wall";
const mark = async (page) => {
  await settled(page);
  await page.getByRole("button", { name: "Correct", exact: true }).click();
  const box = await page.locator(".frame").boundingBox();
  await page.mouse.click(box.x + 0.5 * box.width, box.y + 0.5 * box.height);
  await page.waitForSelector(".marked-layer");
};
const STATES = {
  empty: ["", async () => {}],
  result: [RESULT, async (page) => settled(page)],
  isolated: [RESULT, async (page) => (await settled(page), page.locator(".result-name:enabled").first().click())],
  heatmap: [RESULT, async (page) => (await settled(page), page.getByRole("button", { name: /^Heatmap/ }).first().click(), page.waitForSelector(".heat-title"))],
  comparison: [`${RESULT}&left=names%3Dcup`, async (page) => settled(page)],
  marked: [RESULT, mark],
  refused: [
    RESULT,
    async (page) => {
      await mark(page);
      await page.keyboard.type("unlearnable");
      await page.keyboard.press("Enter");
      await page.getByRole("alert").waitFor();
    },
  ],
  learned: [
    RESULT,
    async (page) => {
      await mark(page);
      await page.keyboard.type("widget");
      await page.keyboard.press("Enter");
      await page.waitForSelector(".examples li");
      await settled(page);
    },
  ],
  downloads: [RESULT, async (page) => (await settled(page), page.getByRole("button", { name: "Download" }).click())],
  code: [RESULT, async (page) => (await settled(page), page.getByRole("button", { name: "Code" }).click())],
  failure: ["#sample=unknown", async (page) => page.waitForSelector("[role=alert]")],
};

let server, browser;
before(async () => {
  server = await serve(join(root, "build"));
  browser = await launch();
});
after(async () => {
  await browser.close();
  await server.close();
});

for (const colorScheme of ["light", "dark"])
  for (const [state, [hash, prepare]] of Object.entries(STATES))
    test(`${state}, ${colorScheme}`, async () => {
      const viewport = ["result", "marked", "learned"].includes(state) && colorScheme === "dark" ? { width: 360, height: 740 } : { width: 1280, height: 800 };
      const { page, context } = await open(browser, server.url + hash, { colorScheme, viewport });
      try {
        await prepare(page);
        await page.evaluate(axe);
        const { violations, passes } = await page.evaluate(() => window.axe.run());
        const found = violations.map(({ id, impact, nodes }) => ({ id, impact, nodes: nodes.map(({ html, failureSummary }) => `${html.slice(0, 160)} ${failureSummary}`) }));
        assert.ok(passes.length > 10);
        assert.deepEqual(found.filter(({ impact }) => impact === "serious" || impact === "critical"), []);
        if (found.length) console.log(state, JSON.stringify(found, null, 1));
      } finally {
        await context.close();
      }
    });

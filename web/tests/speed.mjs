// Seconds from a dropped photo to its map, with one thread and with all: node tests/speed.mjs [PHOTO...]
// Uses the page that `node --test tests/browser/site.test.mjs` exported to build-site; run it on a quiet machine.
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { basename, join } from "node:path";
import { launch, open, root, serve } from "./browser/page.mjs";

const photos = process.argv.slice(2);
if (!photos.length) photos.push(join(root, "../examples/astronaut.jpg"), join(root, "../examples/coffee.jpg"), join(root, "build-site/large.jpg"));
const names = "person, coffee cup, wooden table, background";
const REPEATS = 5;
const server = await serve(join(root, "build-site/site"), undefined, { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" });
const browser = await launch();
const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
const rows = [];
for (const threads of [1, availableParallelism()]) {
  const { page, context } = await open(browser, `${server.url}?backend=wasm&threads=${threads}#names=${encodeURIComponent(names)}`, { serviceWorkers: "block" });
  const loaded = await page.evaluate(async () => (await window.deopEngine.capabilities(), performance.now()));
  for (const photo of photos) {
    const bytes = readFileSync(photo).toString("base64");
    const times = [];
    for (let turn = 0; turn < REPEATS; turn++) {
      times.push(
        await page.evaluate(
          async ([name, bytes]) => {
            document.querySelectorAll(".remove").forEach((button) => button.click());
            await new Promise((done) => setTimeout(done, 300));
            const labelled = window.deopEngine.calls.label;
            const transfer = new DataTransfer();
            transfer.items.add(new File([Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0))], name));
            const marks = {};
            const engine = window.deopEngine;
            const { encode, label } = Object.getPrototypeOf(engine);
            engine.encode = async (...given) => {
              const begin = performance.now();
              const value = await encode.apply(engine, given);
              marks.encode = performance.now() - begin;
              return value;
            };
            engine.label = async (...given) => {
              const begin = performance.now();
              const value = await label.apply(engine, given);
              marks.label = performance.now() - begin;
              return value;
            };
            const begin = performance.now();
            document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
            while (!document.querySelector(".results") || engine.calls.label === labelled || document.querySelector(".progress")) await new Promise(requestAnimationFrame);
            await new Promise(requestAnimationFrame);
            return { all: performance.now() - begin, ...marks };
          },
          [basename(photo), bytes],
        ),
      );
    }
    const of = (key) => (median(times.map((time) => time[key])) / 1000).toFixed(2);
    rows.push({ photo: basename(photo), threads, "start, s": (loaded / 1000).toFixed(1), "drop to map, s": of("all"), "networks, s": of("encode"), "labelling, s": of("label"), first: (times[0].all / 1000).toFixed(2) });
  }
  await context.close();
}
console.table(rows);
await browser.close();
await server.close();

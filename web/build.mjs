// Builds the page: node build.mjs [--out DIR] [--engine mock|http|wasm] [--serve]
import { build, context } from "esbuild";
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { vocabularies } from "./vocabularies.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const { values } = parseArgs({
  options: {
    out: { type: "string", default: join(here, "../src/deop/web") },
    engine: { type: "string", default: "http" },
    serve: { type: "boolean", default: false },
  },
});
const out = resolve(values.out);
if (out === here || here.startsWith(`${out}/`)) throw new Error(`--out ${out} would delete the sources`);
const samples = ["pagoda.jpg", "chelsea.png", "coffee.jpg", "rocket.jpg"];

/** @type {import("esbuild").BuildOptions} */
const options = {
  absWorkingDir: here,
  entryPoints: { page: "src/main.tsx", style: "src/style.css", engine: "src/engine/wasm/worker.ts", service: "src/service.ts" },
  outdir: out,
  bundle: true,
  minify: !values.serve,
  sourcemap: values.serve ? "inline" : false,
  target: ["chrome114", "firefox125", "safari17"],
  format: "iife", // a classic script also runs when the page is opened as a file
  plugins: [vocabularies],
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none",
  charset: "utf8",
};
// Before anything is deleted: a mistake in the sources must not cost the last page.
const built = values.serve ? null : await build({ ...options, write: false });

rmSync(out, { recursive: true, force: true });
mkdirSync(join(out, "samples"), { recursive: true });
for (const name of samples) copyFileSync(join(here, "../examples", name), join(out, "samples", name));
// Of the table, the rows of these photos.
const credits = readFileSync(join(here, "../examples/CREDITS.md"), "utf8").split("\n");
const isOther = (line) => line.startsWith("| `") && !samples.some((name) => line.startsWith(`| \`${name}\``));
writeFileSync(join(out, "samples", "CREDITS.md"), credits.filter((line) => !isOther(line)).join("\n"));
const page = readFileSync(join(here, "src/index.html"), "utf8");
writeFileSync(join(out, "index.html"), page.replace('content="http"', `content="${values.engine}"`));
copyFileSync(join(here, "src/icon.svg"), join(out, "icon.svg"));
const licence = (name) => readFileSync(join(here, "node_modules", name, "LICENSE"), "utf8");
const licences = [
  `page.js contains Preact (https://preactjs.com):\n\n${licence("preact")}`,
  `page.js and engine.js contain noble-hashes (https://paulmillr.com/noble/):\n\n${licence("@noble/hashes")}`,
];
writeFileSync(join(out, "LICENSES.txt"), licences.join("\n\n"));

if (built) {
  for (const { path, contents } of built.outputFiles) writeFileSync(path, contents);
} else {
  const watching = await context(options);
  await watching.watch();
  const { hosts, port } = await watching.serve({ servedir: out, host: "127.0.0.1" });
  console.log(`http://${hosts[0]}:${port}`);
}

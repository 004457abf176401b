// Imports a module of the page, which is TypeScript, in Node.
import { build } from "esbuild";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { vocabularies } from "../../vocabularies.mjs";

const source = fileURLToPath(new URL("../../src/", import.meta.url));

export async function load(module) {
  const { outputFiles } = await build({ entryPoints: [join(source, module)], bundle: true, format: "esm", write: false, platform: "neutral", logLevel: "error", plugins: [vocabularies] });
  return import(`data:text/javascript;base64,${Buffer.from(outputFiles[0].contents).toString("base64")}`);
}

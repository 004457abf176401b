// The built-in vocabularies, read from the Python sources when the page is built, so that they exist once.
import { readFileSync } from "node:fs";

const text = new URL("../src/deop/text/", import.meta.url);
const LISTS = { coco: "coco-stuff", ade20k: "ade20k-150", cityscapes: "cityscapes" };

/** As `deop.text.builtin.builtin_vocabulary`: each list as names ("sofa|couch") and flags of things. */
export function readVocabularies() {
  const source = readFileSync(new URL("everyday.py", text), "utf8");
  const everyday = ["THINGS", "STUFF"].flatMap((part) => {
    const [, names] = source.match(new RegExp(`^${part} = """([^"]*)"""`, "m"));
    return names.split(/[,\n]/).map((name) => name.trim()).filter(Boolean).map((name) => [name, part === "THINGS"]);
  });
  const lists = { everyday };
  for (const [name, file] of Object.entries(LISTS)) {
    const { classes } = JSON.parse(readFileSync(new URL(`classes/${file}.json`, text), "utf8"));
    lists[name] = classes.map((entry) => [entry.plain || entry.name, Boolean(entry.isthing)]);
  }
  return Object.fromEntries(
    Object.entries(lists).map(([name, entries]) => [name, { names: entries.map(([entry]) => entry), things: entries.map(([, isThing]) => (isThing ? "1" : "0")).join("") }]),
  );
}

/** For esbuild: `import lists from "deop:vocabularies"`. */
export const vocabularies = {
  name: "vocabularies",
  setup(build) {
    build.onResolve({ filter: /^deop:vocabularies$/ }, ({ path }) => ({ path, namespace: "deop" }));
    build.onLoad({ filter: /.*/, namespace: "deop" }, () => ({ contents: JSON.stringify(readVocabularies()), loader: "json" }));
  },
};

// The files in src/deop/web are those that the sources give.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { root } from "./page.mjs";

const files = (folder) => readdirSync(folder, { recursive: true, withFileTypes: true }).filter((each) => each.isFile()).map((each) => join(each.parentPath ?? each.path, each.name).slice(folder.length + 1)).sort();

test("src/deop/web is built from these sources", () => {
  const [shipped, fresh] = [join(root, "../src/deop/web"), join(root, "build-http")];
  assert.deepEqual(files(shipped), files(fresh));
  for (const name of files(fresh)) assert.ok(readFileSync(join(shipped, name)).equals(readFileSync(join(fresh, name))), `${name}: npm run build`);
});

// Run lengths against those of deop.images.rle (tests/unit/rle.json), and label maps as PNG files.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { inflateSync } from "node:zlib";
import { load } from "./load.mjs";

const { compressCounts, countsOf, decompressCounts, paintCounts } = await load("engine/rle.ts");
const { labelPng } = await load("png.ts");
const cases = JSON.parse(readFileSync(new URL("rle.json", import.meta.url), "utf8"));

test("run lengths are those of the Python code", () => {
  for (const { size, rows, counts } of cases) {
    const [height, width] = size;
    const mask = Uint16Array.from(rows.join(""), Number);
    assert.equal(compressCounts(countsOf(mask, width, height, 1)), counts);
    const painted = new Uint16Array(width * height);
    assert.equal(paintCounts(painted, width, height, decompressCounts(counts), 1), mask.reduce((a, b) => a + b));
    assert.deepEqual(painted, mask);
  }
});

test("long runs survive", () => {
  const counts = [0, 1, 60_000_000, 2 ** 28, 1, 5];
  assert.deepEqual(decompressCounts(compressCounts(counts)), counts);
});

test("damaged run lengths are refused", () => {
  const map = new Uint16Array(4);
  for (const counts of [[1, 2], [0, 5], [2, -1, 3], [NaN]]) assert.throws(() => paintCounts(map, 2, 2, counts, 1), RangeError);
  for (const text of ["P", "\u00e9", "0\n"]) assert.throws(() => decompressCounts(text), RangeError);
});

for (const count of [3, 300])
  test(`a label map of ${count} names as PNG`, async () => {
    const map = Uint16Array.of(0, 1, 2, 3, count, 0);
    const bytes = Buffer.from(await (await labelPng(map, 3, 2, Array(count).fill([1, 2, 3]))).arrayBuffer());
    const chunks = {};
    for (let at = 8; at < bytes.length; at += 12 + bytes.readUInt32BE(at))
      chunks[bytes.toString("latin1", at + 4, at + 8)] = bytes.subarray(at + 8, at + 8 + bytes.readUInt32BE(at));
    const [depth, kind] = chunks.IHDR.subarray(8);
    assert.deepEqual([depth, kind], count > 255 ? [16, 0] : [8, 3]);
    const rows = inflateSync(chunks.IDAT);
    const size = depth / 8;
    const read = [...map.keys()].map((i) => rows.readUIntBE(Math.floor(i / 3) * (1 + 3 * size) + 1 + (i % 3) * size, size));
    assert.deepEqual(read, [...map]);
    if (count < 256) assert.equal(chunks.PLTE.length, 3 * (count + 1));
  });

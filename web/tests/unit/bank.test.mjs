// Examples beside words in TypeScript against Python, which computes its values when the tests run.
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { load } from "./load.mjs";
import { numbers, runPython } from "./values.mjs";

const folder = mkdtempSync(join(tmpdir(), "deop-banks-"));
after(() => rmSync(folder, { recursive: true, force: true }));
const values = JSON.parse(runPython("python_banks.py", folder));
const WIDTH = 24;

const close = (found, expected, tolerance, what) => {
  assert.equal(found.length, expected.length, what);
  for (let i = 0; i < found.length; i++) assert.ok(found[i] === expected[i] || Math.abs(found[i] - expected[i]) <= tolerance, `${what}: ${found[i]} is not ${expected[i]} at ${i}`);
};
const bankOf = ({ regions, nameOf, photoOf, marked, area, ...texts }) => ({ ...texts, regions: Uint16Array.from(numbers(regions)), nameOf: numbers(nameOf), photoOf: numbers(photoOf), marked: numbers(marked), area: numbers(area) });
const same = (found, expected, what) => {
  for (const key of ["width", "names", "photos"]) assert.deepEqual(found[key], expected[key], `${what}: ${key}`);
  for (const key of ["nameOf", "photoOf", "marked", "regions"]) assert.deepEqual([...found[key]], [...expected[key]], `${what}: ${key}`);
};

test("numbers of 16 bits are rounded as in numpy", async () => {
  const { fromHalf, toHalf } = await load("engine/wasm/bank/half.ts");
  const bits = numbers(values.halves.bits);
  numbers(values.halves.values).forEach((value, i) => assert.equal(toHalf(value), bits[i], String(value)));
  for (let each = 0; each < 0x7c00; each++) assert.equal(toHalf(fromHalf(each)), each);
});

test("logits by words and examples, and the fitted weights", async () => {
  const { adjust, prepare } = await load("engine/wasm/bank/scoring.ts");
  const { readVocabulary } = await load("engine/wasm/vocabulary.ts");
  for (const each of values.scores) {
    const rows = numbers(each.rows);
    const columns = each.rows.shape[0];
    const score = (regions) =>
      Float32Array.from({ length: (regions.length / WIDTH) * columns }, (_, at) => {
        const [n, k] = [Math.floor(at / columns), at % columns];
        if (each.missing.includes(k)) return -Infinity;
        let sum = 0;
        for (let c = 0; c < WIDTH; c++) sum += regions[n * WIDTH + c] * rows[k * WIDTH + c];
        return 20 * sum;
      });
    const vocabulary = readVocabulary(each.asked, { background: each.background, things: null });
    const [bank, regions] = [bankOf(each.bank), numbers(each.regions)];
    for (const { weight, weights, logits } of each.answers) {
      const prepared = prepare(bank, vocabulary, score, weight);
      const { words, examples, odds, similar } = prepared.weights;
      close([words, examples, ...odds, similar], weights, 2e-3, `weights, ${each.asked}`);
      close(adjust(prepared, score(regions), regions), numbers(logits), 2e-2, `logits, ${each.asked}, ${weight}`);
    }
    assert.equal(prepare(bank, vocabulary, score, 0), null);
    assert.equal(prepare(bank, readVocabulary(["something else"], { background: [], things: null }), score, 0.5), null);
  }
});

test("clicks and boxes mark the same pixels, and the same examples are learned", async () => {
  const { cellLogits, drawnPicture, learnPhoto } = await load("engine/wasm/bank/learning.ts");
  const { regionOf } = await load("engine/wasm/bank/marks.ts");
  const size = ([height, width]) => ({ height, width });
  for (const each of values.learned) {
    const canvas = { photo: size(each.canvas[0]), resized: size(each.canvas[1]), padded: size(each.canvas[2]) };
    const [count, height, width] = each.logits.shape;
    const masks = { count, height, width, logits: numbers(each.logits) };
    const pixels = canvas.photo.height * canvas.photo.width;
    const python = numbers(each.masks);
    const exact = each.marks.map((_, m) => python.slice(m * pixels, (m + 1) * pixels));
    each.marks.forEach((mark, m) => {
      const found = regionOf(mark, masks, canvas);
      const differ = found.reduce((sum, value, at) => sum + Number(value !== exact[m][at]), 0);
      assert.ok(differ <= 0.001 * pixels, `${JSON.stringify(mark)} in ${each.canvas[0]}: ${differ} of ${pixels} pixels`);
    });
    const logits = cellLogits(exact, canvas, height, width);
    close(logits, numbers(each.cells), 1e-4, "shares of cells");
    const bank = learnPhoto("0".repeat(32), { masks, regions: numbers(each.regions) }, { names: each.names, areas: exact.map((mask) => mask.reduce((sum, value) => sum + value, 0) / pixels), cells: logits, regions: numbers(each.given) }, canvas);
    const expected = bankOf(each.bank);
    same(bank, expected, `learned from ${each.canvas[0]}`);
    close(bank.area, expected.area, 1e-4, "areas");
    assert.throws(() => regionOf({ x: canvas.photo.width, y: 0 }, masks, canvas), /outside the photo/);
    assert.throws(() => regionOf({ left: 4, top: 4, right: 4, bottom: 9 }, masks, canvas), /empty/);
    assert.throws(() => regionOf({ left: -9, top: 4, right: -2, bottom: 9 }, masks, canvas), /outside the photo/);
  }
  const { pixels, masks } = drawnPicture();
  assert.deepEqual([...pixels], [...numbers(values.drawn.picture)]);
  assert.deepEqual(masks.flatMap((mask) => [...mask]), [...numbers(values.drawn.masks)]);
});

test("the order of banks and repeated examples do not matter", async () => {
  const { countsOf, joinBanks } = await load("engine/wasm/bank/bank.ts");
  const whole = bankOf(values.merged.whole);
  const parts = values.merged.parts.map(bankOf);
  for (const banks of [parts, [...parts].reverse(), [...parts, parts[0]], [whole]]) same(joinBanks(banks), whole, `${banks.length} banks`);
  assert.deepEqual(countsOf(whole).map(({ name }) => name), whole.names);
  assert.equal(countsOf(whole).reduce((sum, { regions }) => sum + regions, 0), whole.nameOf.length);
  const clash = { ...parts[0], names: parts[0].names.map((name) => (name === "zebra" ? "mug|zebra" : name)) };
  assert.throws(() => joinBanks([clash]), /share a word but are not the same/);
});

test("a bank of Python is read, and one that is written here loads in Python", async () => {
  const { checkSame, readBank, writeBank } = await load("engine/wasm/bank/storage.ts");
  const file = new Uint8Array(readFileSync(join(folder, "0.safetensors")));
  const { bank, space } = readBank(file, "0.safetensors");
  same(bank, bankOf(values.merged.whole), "read");
  assert.deepEqual([space.model, space.license, space.note, space.precision], ["small", "CC0", "a note; drawn", "float32"]);
  const path = join(folder, "written.safetensors");
  writeFileSync(path, writeBank(bank, space, "0.1"));
  const [[digest, names, model, note, encoding]] = JSON.parse(runPython("python_banks.py", "--check", path));
  assert.deepEqual([digest, names, model, note, encoding], [values.merged.digest, bank.names, "small", "a note; drawn", space.encoding]);

  const broken = file.slice();
  broken[broken.length - 3] ^= 1;
  assert.throws(() => readBank(broken, "b"), /b is damaged: its SHA-256/);
  assert.throws(() => readBank(file.slice(0, 900), "b"), /is no bank|damaged/);
  assert.throws(() => readBank(new TextEncoder().encode("hello, this is no bank"), "b"), /b is no bank/);
  assert.throws(() => readBank(new Uint8Array(readFileSync(new URL("../../../src/deop/assets/nano/model.safetensors", import.meta.url))), "b"), /b is no bank/);
  checkSame(space, space, "b");
  assert.throws(() => checkSame({ ...space, precision: "int8" }, space, "b"), /learned in int8/);
  assert.throws(() => checkSame({ ...space, probe: space.probe.map((value) => -value) }, space, "b"), /another version of small/);
  assert.throws(() => checkSame({ ...space, encoding: { ...space.encoding, residual: 0.5 } }, space, "b"), /residual 0.5/);
});

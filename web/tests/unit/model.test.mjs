// The model in TypeScript against Python, step by step; Python computes its values when the tests run.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { load } from "./load.mjs";
import { numbers, pythonValues } from "./values.mjs";

const values = pythonValues();
const nano = (name) => readFileSync(new URL(`../../../src/deop/assets/nano/${name}`, import.meta.url));
const close = (found, expected, tolerance, what) => {
  assert.equal(found.length, expected.length, what);
  for (let i = 0; i < found.length; i++) assert.ok(Math.abs(found[i] - expected[i]) <= tolerance, `${what}: ${found[i]} is not ${expected[i]} at ${i}`);
};
const OPTIONS = { mode: "semantic", threshold: null, thresholds: {}, smallestRegion: null, background: [], things: null, vocabulary: null };

test("letters are folded", async () => {
  const { fold, unreadLetters } = await load("engine/wasm/folding.ts");
  for (const [text, folded, unread] of values.texts.folded) assert.deepEqual([text, fold(text), unreadLetters(fold(text))], [text, folded, unread]);
});

test("things, and names of everything else", async () => {
  const { isThing } = await load("engine/wasm/things.ts");
  const { meansEverythingElse } = await load("names.ts");
  for (const [name, thing, rest] of values.texts.names) assert.deepEqual([name, isThing(name), meansEverythingElse(name)], [name, thing, rest]);
});

test("built-in vocabularies", async () => {
  const { VOCABULARIES, namesOfList, thingsOfList } = await load("vocabularies.ts");
  assert.deepEqual(VOCABULARIES.map(({ id }) => id).sort(), Object.keys(values.texts.lists).sort());
  for (const [id, entries] of Object.entries(values.texts.lists))
    assert.deepEqual(namesOfList(id).map((name, k) => [name, thingsOfList(id)[k]]), entries);
});

test("thresholds of single names", async () => {
  const { formatThresholds, limitsOf, parseThresholds, unknownThresholds } = await load("thresholds.ts");
  const { asked, thresholds } = values.texts;
  for (const [text, limits] of thresholds) {
    const { all, named, wrong } = parseThresholds(text);
    assert.equal(wrong, null);
    assert.deepEqual(unknownThresholds(asked, named), []);
    const found = limitsOf(asked, { threshold: all, thresholds: named }).map((limit) => limit ?? 0.05);
    assert.deepEqual(found, limits, text);
    assert.deepEqual(parseThresholds(formatThresholds(all, named)), { all, named, wrong });
  }
  assert.equal(parseThresholds("dog=2, 0.3").wrong, "dog=2");
  assert.equal(parseThresholds("dog").wrong, "dog");
  assert.deepEqual(unknownThresholds(asked, { Couch: 1, bird: 0.1 }), ["bird"]);
});

test("colours", async () => {
  const { classColours } = await load("colours.ts");
  for (const { names, colours } of values.colours) assert.deepEqual(classColours(names), colours, names.slice(0, 3).join());
});

test("words and vocabularies in the joint space", async () => {
  const { readConfig } = await load("engine/wasm/config.ts");
  const { readTensors } = await load("engine/wasm/tensors.ts");
  const { WordTable } = await load("engine/wasm/words.ts");
  const { embedVocabulary } = await load("engine/wasm/embedding.ts");
  const { readVocabulary } = await load("engine/wasm/vocabulary.ts");
  const { classLogits, softmax } = await load("engine/wasm/classification.ts");
  const classProbabilities = (regions, classes, names, none, temperature) => softmax(classLogits(regions, config.width, classes, names, none, temperature), names + 1);
  const config = readConfig(nano("config.json").toString());
  const tensors = readTensors(new Uint8Array(nano(config.table)));
  const table = new WordTable(nano("words.txt").toString().trimEnd().split("\n"), tensors.get("text.rows"), tensors.get("text.rows::scale"), config.width);
  for (const [text, listed, unread, knows, head] of values.words.read) {
    const units = listed.map(([name, rows]) => ({ name, rows }));
    assert.deepEqual([text, table.read(text), table.knows(text), table.head(text)], [text, { pieces: units.flatMap(({ rows }) => rows), units, unread }, knows, head]);
  }
  const [regions, none] = [numbers(values.words.regions), numbers(values.words.no_object)];
  for (const each of values.words.vocabularies) {
    const vocabulary = readVocabulary(each.names, { ...OPTIONS, background: each.background });
    assert.deepEqual(vocabulary.things, each.things);
    const [seenSimilarity, farSimilarity] = each.similarities;
    const classes = embedVocabulary(vocabulary, table, { ...config.calibration, seenSimilarity, farSimilarity, groups: values.words.groups }, []);
    assert.deepEqual(classes.owner, each.owner);
    close(classes.rows.flatMap((row) => [...row]), numbers(each.rows), 1e-6, "rows");
    close(classes.offset, numbers(each.offset), 0, "offset");
    close(classProbabilities(regions, classes, each.names.length, null, 100), numbers(each.probabilities), 1e-4, "probabilities");
    close(classProbabilities(regions, classes, each.names.length, none, 100), numbers(each.with_no_object), 1e-4, "with a no-object vector");
  }
  assert.throws(() => embedVocabulary(readVocabulary(["猫"], OPTIONS), table, config.calibration, []), /reads nothing of “猫”/);
  const remarks = [];
  embedVocabulary(readVocabulary(["cat ☕", "cats and", "cat"], OPTIONS), table, config.calibration, remarks);
  assert.match(remarks[0], /does not read “☕” in “cat ☕”/);
});

test("names that cannot be used are refused in words", async () => {
  const { checkMode, readVocabulary } = await load("engine/wasm/vocabulary.ts");
  assert.throws(() => readVocabulary(["cat", "dog|Cat"], OPTIONS), /“Cat” is there twice/);
  assert.throws(() => readVocabulary(["cat"], { ...OPTIONS, background: ["CAT"] }), /twice/);
  assert.throws(() => readVocabulary(["cat"], { ...OPTIONS, things: ["dog"] }), /not among the names/);
  const instance = { ...OPTIONS, mode: "instance" };
  assert.throws(() => checkMode(readVocabulary(["sky"], instance), instance), /countable things only/);
  assert.match(checkMode(readVocabulary(["cat", "sky"], instance), instance)[0], /not looked for: sky/);
  assert.deepEqual(checkMode(readVocabulary(["cat", "other"], instance), instance), []);
});

test("calibration curves", async () => {
  const { calibrated, rawScore } = await load("engine/wasm/calibration.ts");
  const [curve, pairs] = values.curves;
  for (const [value, score, raw] of pairs) close([calibrated({ curve }, value), rawScore({ curve }, value)], [score, raw], 1e-7, String(value));
  assert.deepEqual([calibrated({ curve: [] }, 0.3), rawScore({ curve: [] }, 0.3)], [0.3, 0.3]);
});

test("photos are resized as Pillow does, and normalised", async () => {
  const { canvasOf } = await load("engine/wasm/canvas.ts");
  const { normalise, resizePhoto } = await load("engine/wasm/resize.ts");
  for (const each of values.pictures) {
    const [height, width] = each.photo.shape;
    const rgb = numbers(each.photo);
    const canvas = canvasOf({ height, width }, each.rule);
    const read = (first, count) => Uint8ClampedArray.from({ length: 4 * count * width }, (_, i) => (i % 4 === 3 ? 255 : rgb[3 * (first * width + (i >> 2)) + (i % 4)]));
    const resized = resizePhoto({ height, width }, canvas.resized, read, 37);
    assert.deepEqual([canvas.resized.height, canvas.resized.width, 3], each.resized.shape);
    const expected = numbers(each.resized);
    close(resized, expected, 1, "resized"); // the order of the two passes, which some releases of Pillow change
    if (height < 2 * width) close(resized, expected, 0, "resized");
    assert.deepEqual([3, canvas.padded.height, canvas.padded.width], each.pixels.shape);
    close(normalise(expected, canvas, [127, 120.5, 103.53], [128, 57.12, 58]), numbers(each.pixels), 1e-6, "pixels");
  }
});

const same = (found, expected, least, what) => {
  let count = 0;
  for (let i = 0; i < expected.length; i++) count += Number(found[i]) === Number(expected[i]) + 1 ? 1 : 0;
  assert.ok(count >= least * expected.length, `${what}: ${count} of ${expected.length} pixels agree`);
};

test("results of all modes", async () => {
  const { assemble, heatmapOf } = await load("engine/wasm/label.ts");
  const { keepPresent } = await load("engine/wasm/present.ts");
  const size = ([height, width]) => ({ height, width });
  for (const each of values.results) {
    const canvas = { photo: size(each.canvas[0]), resized: size(each.canvas[1]), padded: size(each.canvas[2]) };
    const [count, height, width] = each.logits.shape;
    const masks = { count, height, width, logits: numbers(each.logits) };
    const scores = numbers(each.probabilities);
    const settings = { calibration: { curve: each.curve }, claim: 0.05, smallestRegion: 0.002, smallestThing: 0.01, thingScore: 0.3 };
    const vocabulary = { names: each.names, background: each.background, things: each.things, everythingElse: each.everything_else };
    const what = `${each.names.length} names, ${each.canvas[0]}`;
    for (const [mode, answer] of Object.entries(each.answers)) {
      const result = assemble(scores, masks, canvas, vocabulary, settings, mode, each.thresholds);
      same(result.labels, numbers(answer.labels), 0.999, `${mode}, ${what}`);
      assert.deepEqual(result.classes.map(({ score }) => score === null), answer.classes.map(([, score]) => score === null));
      close(result.classes.map(({ share }) => share), answer.classes.map(([share]) => share), 2e-3, `shares, ${mode}, ${what}`);
      close(result.classes.map(({ score }) => score ?? 0), answer.classes.map(([, score]) => score ?? 0), 2e-3, `scores, ${mode}, ${what}`);
      if (mode === "semantic") continue;
      same(result.segmentMap, numbers(answer.segment_map), 0.999, `segments, ${mode}, ${what}`);
      assert.deepEqual(result.segments.map(({ classIndex }) => classIndex), answer.segments.map(([k]) => k));
      close(result.segments.map(({ score }) => score), answer.segments.map(([, score]) => score), 2e-3, "scores of segments");
    }
    const heatmap = heatmapOf(scores, each.names.length, 0, masks, canvas, settings);
    assert.deepEqual([heatmap.height, heatmap.width], each.heatmap.shape);
    close(heatmap.values, numbers(each.heatmap), 2e-5, "heatmap");
    close(keepPresent(scores, each.names.length, masks, canvas, 0.05), numbers(each.present), 1e-5, "present names");
  }
});

test("no masks", async () => {
  const { assemble } = await load("engine/wasm/label.ts");
  const canvas = { photo: { height: 3, width: 4 }, resized: { height: 3, width: 4 }, padded: { height: 64, width: 64 } };
  const masks = { count: 0, height: 16, width: 16, logits: new Float32Array() };
  const vocabulary = { names: ["cat"], background: [], things: [true], everythingElse: null };
  const settings = { calibration: { curve: [] }, claim: 0, smallestRegion: 0.01, smallestThing: 0.01, thingScore: 0 };
  for (const mode of ["semantic", "panoptic", "instance"])
    assert.deepEqual([...assemble(new Float32Array(), masks, canvas, vocabulary, settings, mode, [0]).labels], Array(12).fill(0));
});

test("small regions and things of label maps", async () => {
  const { absorbSmallRegions, paintRuns, RunsBuilder } = await load("engine/wasm/regions.ts");
  const { divideThings } = await load("engine/wasm/segments.ts");
  for (const each of values.maps) {
    const [height, width] = each.labels.shape;
    const builder = new RunsBuilder({ height, width });
    builder.add(numbers(each.labels), numbers(each.confidence));
    const runs = builder.finish();
    const absorbed = absorbSmallRegions(runs, () => each.smallest);
    same(paintRuns(absorbed, 9, (run) => absorbed.labels[run]), numbers(each.absorbed), 1, "absorbed");
    const divided = divideThings(runs, each.things, 0.02 * height * width, null);
    same(paintRuns(divided.runs, 9, (run) => divided.piece[run]), numbers(each.segments), 1, "segments");
    assert.deepEqual(divided.pieces.map(({ name }) => name), each.pieces.map(([k]) => k));
    close(divided.pieces.map(({ score }) => score), each.pieces.map(([, score]) => score), 1e-5, "scores");
  }
});

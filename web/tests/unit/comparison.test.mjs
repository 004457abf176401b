import assert from "node:assert/strict";
import { test } from "node:test";
import { load } from "./load.mjs";

const { titlesOf } = await load("comparison.ts");
const { DEFAULTS } = await load("settings.ts");
const CAT = { ...DEFAULTS, names: ["cat", "sofa|couch"] };

test("titles name what differs", () => {
  assert.deepEqual(titlesOf(CAT, CAT), ["Kept", "Now"]);
  assert.deepEqual(titlesOf(CAT, { ...CAT, mode: "panoptic" }), ["semantic", "panoptic"]);
  assert.deepEqual(titlesOf(CAT, { ...CAT, names: ["dog"] }), ["cat, sofa", "dog"]);
  assert.deepEqual(titlesOf(CAT, { ...CAT, names: ["cat", "sofa"] }), ["cat, sofa|couch", "cat, sofa"]);
  assert.deepEqual(titlesOf({ ...CAT, bankWeight: 0 }, CAT), ["examples 0.00", "examples as fitted"]);
  assert.deepEqual(titlesOf(CAT, { ...CAT, vocabulary: "coco" })[0], "cat, sofa");
  assert.deepEqual(titlesOf({ ...CAT, threshold: 0.3 }, { ...CAT, smallestRegion: 0.0005 }), ["threshold 0.3 · default smoothing", "default threshold · smoothing 0.05 %"]);
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { load } from "./load.mjs";

const { DEFAULTS, fromHash, toHash } = await load("settings.ts");

const FULL = {
  names: ["a cat, asleep", "sofa|couch", "50 % + more & #1=2", "日本"],
  background: ["road"],
  things: ["a cat, asleep"],
  mode: "panoptic",
  vocabulary: "coco",
  threshold: 0.3,
  thresholds: { "a cat, asleep": 0.6, 日本: 0.1 },
  smallestRegion: 0.005,
  severance: "gate",
  bankWeight: 0.75,
  style: "outline",
  alpha: 0.25,
  written: false,
};

test("an address gives the settings back", () => {
  const left = { ...DEFAULTS, names: ["dog"], threshold: 0.1, smallestRegion: 0 };
  assert.deepEqual(fromHash(`#${toHash(FULL, "coffee", left)}`), { settings: FULL, sample: "coffee", left });
  assert.equal(toHash(DEFAULTS, null), "");
  assert.equal(toHash({ ...DEFAULTS, names: ["coffee cup", "wall"] }, null), "names=coffee+cup,+wall");
});

test("a threshold of 0 is one, and not the model's", () => {
  assert.equal(fromHash("#threshold=0").settings.threshold, 0);
  assert.equal(fromHash("").settings.threshold, null);
  assert.equal(toHash({ ...DEFAULTS, threshold: 0 }, null), "threshold=0");
});

test("what an address has wrong is ignored", () => {
  const { settings } = fromHash("#mode=x&bank-weight=1.5&vocabulary=x&threshold=7&alpha=nan&smallest-region=1&written=&style=&names=cat,cat,|&background=cat,dog&unknown=%zz");
  assert.deepEqual(settings, { ...DEFAULTS, names: ["cat"], background: ["dog"] });
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { load } from "./load.mjs";

const { addNames, cleanName, joinNames, meansEverythingElse, splitNames } = await load("names.ts");

test("names are split as deop.text.vocabulary splits them", () => {
  assert.deepEqual(splitNames("cat, sofa|couch,  wall ,"), ["cat", "sofa|couch", "wall"]);
  assert.deepEqual(splitNames("a red car, parked; a road"), ["a red car, parked", "a road"]);
  assert.deepEqual(splitNames("cat\ndog"), ["cat", "dog"]);
  assert.deepEqual(splitNames(" , ,\n "), []);
});

test("a name has single spaces, and each synonym once", () => {
  assert.equal(cleanName("  a   red\tcar | A RED car | bus |"), "a red car|bus");
  assert.equal(cleanName("c\u200bat\u00ad"), "cat");
  assert.equal(cleanName(" | "), "");
});

test("what is joined is split again", () => {
  for (const names of [["cat", "sofa|couch"], ["a car, parked", "road"], ["a car, parked"], ["cat"]])
    assert.deepEqual(splitNames(joinNames(names)), names);
});

test("two names may not have the same text", () => {
  assert.deepEqual(addNames(["cat", "sofa|couch"], ["Couch", "dog", "DOG|puppy"]), {
    names: ["cat", "sofa|couch", "dog"],
    repeated: ["Couch", "DOG|puppy"],
  });
});

test("everything else, as deop.text.everything_else has it", () => {
  assert.deepEqual(["Background", "the rest", "other people", "(none of these)"].map(meansEverythingElse), [true, true, false, true]);
});

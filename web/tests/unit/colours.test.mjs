import assert from "node:assert/strict";
import { test } from "node:test";
import { load } from "./load.mjs";

const { classColours, hexColour } = await load("colours.ts");

test("colours depend on the names alone, not on their order", () => {
  const names = ["sky", "grass", "dog", "spoon", "background", "lamp", "toy"];
  const colours = Object.fromEntries(classColours(names).map((colour, k) => [names[k], hexColour(colour)]));
  const turned = [...names].reverse();
  assert.deepEqual(Object.fromEntries(classColours(turned).map((colour, k) => [turned[k], hexColour(colour)])), colours);
  assert.equal(new Set(Object.values(colours)).size, names.length);
  assert.equal(colours.sky, "#8cc8f4");
  assert.equal(colours.background, "#808080");
});

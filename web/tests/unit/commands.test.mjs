import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { load } from "./load.mjs";

const { commandLine, pythonLines } = await load("commands.ts");
const { DEFAULTS } = await load("settings.ts");

test("a shell reads the command as it was meant", () => {
  const settings = { ...DEFAULTS, names: ["it's $HOME `x`", "sofa|couch"], background: ["a road"], threshold: 0.3, mode: "panoptic", smallestRegion: 0.01 };
  const line = commandLine("-my photo's.jpg", settings, "nano");
  const words = execFileSync("sh", ["-c", `for word in ${line}; do printf '%s\\0' "$word"; done`], { encoding: "utf8" }).split("\0").slice(0, -1);
  assert.deepEqual(words, [
    "deop", "segment", "./-my photo's.jpg", "--classes", "it's $HOME `x`, sofa|couch",
    "--background", "a road", "--mode", "panoptic", "--threshold", "0.3", "--smallest-region", "0.01",
  ]);
});

test("defaults are left out", () => {
  assert.equal(commandLine("photo.jpg", { ...DEFAULTS, names: ["cat"] }, "nano"), "deop segment photo.jpg --classes cat");
  assert.equal(
    pythonLines("photo.jpg", { ...DEFAULTS, names: ["cat", 'a "b"'], style: "outline" }, "clip-b16"),
    'import deop\n\nmodel = deop.load("clip-b16")\nresult = model.segment("photo.jpg", ["cat", "a \\"b\\""])\nresult.overlay(style="outline").save("result.png")',
  );
});

test("a built-in vocabulary and thresholds by name", () => {
  const settings = { ...DEFAULTS, vocabulary: "coco", things: ["cat"], threshold: 0.3, thresholds: { "a dog": 0.6 } };
  assert.equal(commandLine("photo.jpg", settings, "nano"), "deop segment photo.jpg --vocabulary coco --threshold '0.3, a dog=0.6'");
  const lines = pythonLines("photo.jpg", settings, "nano").split("\n");
  assert.equal(lines[1], "from deop.text.builtin import builtin_vocabulary");
  assert.deepEqual(lines.slice(4, 9), ["result = model.segment(", '    "photo.jpg",', '    builtin_vocabulary("coco"),', '    threshold={"*": 0.3, "a dog": 0.6},', ")"]);
});

test("a heatmap", () => {
  const settings = { ...DEFAULTS, names: ["cat", "a dog|hound"], smallestRegion: 0, style: "outline" };
  const heat = { name: "a dog", alpha: 0.7 };
  assert.equal(commandLine("photo.jpg", settings, "nano", heat), "deop segment photo.jpg --classes 'cat, a dog|hound' --smallest-region 0 --heatmap 'a dog'");
  assert.match(commandLine("photo.jpg", settings, "nano", { ...heat, alpha: 0.4 }), /--heatmap 'a dog' --alpha 0\.4$/);
  const lines = pythonLines("photo.jpg", settings, "nano", heat).split("\n");
  assert.deepEqual(lines.slice(3), ["result = model.segment(", '    "photo.jpg",', '    ["cat", "a dog|hound"],', "    smallest_region=0,", '    heatmaps=["a dog"],', ")", 'result.heatmap("a dog").save("result.png")']);
});

test("things are part of modes that separate them", () => {
  const settings = { ...DEFAULTS, names: ["cat"], things: ["cat"] };
  assert.equal(commandLine("photo.jpg", settings, "nano"), "deop segment photo.jpg --classes cat");
  assert.match(commandLine("photo.jpg", { ...settings, mode: "instance" }, "nano"), /--mode instance --things cat$/);
});

test("examples are in a file that the page saves", () => {
  const settings = { ...DEFAULTS, names: ["cup"], bankWeight: 0.75 };
  assert.equal(commandLine("photo.jpg", settings, "nano", null, true), "deop segment photo.jpg --classes cup --bank bank.safetensors --bank-weight 0.75");
  assert.equal(commandLine("photo.jpg", settings, "nano", null, false), "deop segment photo.jpg --classes cup");
  assert.match(commandLine("photo.jpg", { ...settings, bankWeight: null }, "nano", null, true), /--bank bank\.safetensors$/);
  const lines = pythonLines("photo.jpg", settings, "nano", null, true);
  assert.match(lines, /bank=deop\.load_bank\("bank\.safetensors"\),\n {4}bank_weight=0\.75,\n/);
});

// CPU seconds of one thread for each step of the page, in Node, which has Chromium's engine: node tests/cpu.mjs [PHOTO...]
// Unlike the time on a clock (speed.mjs), they hardly depend on what else the machine does.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";
import { load } from "./unit/load.mjs";
import { python } from "./unit/values.mjs";

const at = (path) => fileURLToPath(new URL(path, import.meta.url));
const nano = (name) => readFileSync(at(`../../src/deop/assets/nano/${name}`));
const ort = await import("../node_modules/onnxruntime-web/dist/ort.node.min.mjs");
const { readConfig } = await load("engine/wasm/config.ts");
const { canvasOf } = await load("engine/wasm/canvas.ts");
const { normalise, resizePhoto } = await load("engine/wasm/resize.ts");
const { readTensors } = await load("engine/wasm/tensors.ts");
const { WordTable } = await load("engine/wasm/words.ts");
const { embedVocabulary } = await load("engine/wasm/embedding.ts");
const { readVocabulary } = await load("engine/wasm/vocabulary.ts");
const { classProbabilities } = await load("engine/wasm/classification.ts");
const { assemble } = await load("engine/wasm/label.ts");

const seconds = () => Object.values(process.cpuUsage()).reduce((sum, value) => sum + value / 1e6, 0);
const config = readConfig(nano("config.json").toString());
const weights = new Uint8Array(nano(config.table));
const tensors = readTensors(weights);
const table = new WordTable(nano("words.txt").toString().trimEnd().split("\n"), tensors.get("text.rows"), tensors.get("text.rows::scale"), config.width);
ort.env.wasm.numThreads = 1;
const started = seconds();
const session = await ort.InferenceSession.create(new Uint8Array(nano(config.graph)), {
  executionProviders: ["wasm"],
  externalData: [{ path: config.table, data: weights }],
  enableMemPattern: false,
  enableCpuMemArena: false,
  logSeverityLevel: 3,
  extra: { session: { disable_quant_qdq: "1" } },
});
console.log(`loading the graph: ${(seconds() - started).toFixed(2)} s`);
const photos = process.argv.slice(2);
if (!photos.length) photos.push(...["astronaut.jpg", "coffee.jpg", "rocket.jpg"].map((name) => at(`../../examples/${name}`)));
const names = ["person", "coffee cup", "wooden table", "sky", "background"];
const options = { mode: "semantic", threshold: null, thresholds: {}, background: [], things: null, vocabulary: null };
const script = "import sys; from PIL import Image; i = Image.open(sys.argv[1]).convert('RGBA'); sys.stdout.buffer.write(i.size[0].to_bytes(4, 'little') + i.size[1].to_bytes(4, 'little') + i.tobytes())";
const rows = [];
for (const photo of photos) {
  const raw = execFileSync(python, ["-c", script, photo], { maxBuffer: 1e9 });
  const size = { width: raw.readUInt32LE(0), height: raw.readUInt32LE(4) };
  const rgba = new Uint8ClampedArray(raw.subarray(8));
  const best = { resizing: Infinity, networks: Infinity, labelling: Infinity };
  const timed = async (step, work) => {
    const begin = seconds();
    const value = await work();
    best[step] = Math.min(best[step], seconds() - begin);
    return value;
  };
  for (let turn = 0; turn < 4; turn++) {
    const canvas = canvasOf(size, config);
    const read = (first, count) => rgba.subarray(4 * first * size.width, 4 * (first + count) * size.width);
    const pixels = await timed("resizing", () => normalise(resizePhoto(size, canvas.resized, read), canvas, config.mean, config.std));
    const { masks, regions } = await timed("networks", () =>
      session.run({
        pixels: new ort.Tensor("float32", pixels, [1, 3, canvas.padded.height, canvas.padded.width]),
        size: new ort.Tensor("int64", BigInt64Array.of(BigInt(canvas.resized.height), BigInt(canvas.resized.width)), [2]),
      }),
    );
    const [count, height, width] = masks.dims;
    await timed("labelling", () => {
      const vocabulary = readVocabulary(names, options);
      const classes = embedVocabulary(vocabulary, table, config.calibration, []);
      const scores = classProbabilities(regions.data, classes, names.length, config.noObject, config.temperature);
      return assemble(scores, { count, height, width, logits: masks.data }, canvas, vocabulary, config, "semantic", names.map(() => config.threshold));
    });
  }
  const steps = Object.fromEntries(Object.entries(best).map(([step, value]) => [`${step}, s`, value.toFixed(2)]));
  rows.push({ photo: `${basename(photo)} ${size.width} x ${size.height}`, ...steps, "sum, s": Object.values(best).reduce((a, b) => a + b).toFixed(2) });
}
console.table(rows);

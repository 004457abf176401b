/** Which names of a built-in vocabulary a photo shows: `deop.labelling.present_names`. */

import type { Canvas } from "./canvas";
import { labelStrips } from "./semantic";
import type { Masks } from "./windows";

const SHARE = 0.005; // of the photo
const SCORE = 0.4; // mean

/**
 * Drops the names that a photo does not show: the weaker half of those below the limits, until all are kept.
 *
 * @param probabilities (N, K + 1) in rows
 * @returns the softmax over the names that are kept and "none of these"; 0 for the others
 */
export function keepPresent(probabilities: Float32Array, names: number, masks: Masks, canvas: Canvas, claim: number): Float32Array {
  const kept = new Uint8Array(names).fill(1);
  const rule = { limits: new Float32Array(names), claim, noneCompetes: false, rest: -1 };
  const total = canvas.photo.width * canvas.photo.height;
  for (let remaining = probabilities; ; ) {
    const [pixels, sums] = [new Float64Array(names), new Float64Array(names)];
    labelStrips(remaining, names, masks, canvas, rule, (_, labels, confidence) => {
      for (let at = 0; at < labels.length; at++) {
        if (labels[at] < 0) continue;
        pixels[labels[at]]++;
        sums[labels[at]] += confidence[at];
      }
    });
    const scores = sums.map((sum, k) => sum / Math.max(1, pixels[k]));
    const largest = pixels.indexOf(Math.max(...pixels));
    if (!pixels[largest]) return remaining;
    const isPresent = (k: number): boolean => pixels[k] > 0 && (k === largest || (pixels[k] >= SHARE * total && scores[k] >= SCORE));
    const weak = Array.from({ length: names }, (_, k) => k).filter((k) => pixels[k] && !isPresent(k));
    const dropped = new Set(weak.sort((a, b) => scores[a] - scores[b]).slice(0, Math.ceil(weak.length / 2)));
    let changed = false;
    for (let k = 0; k < names; k++)
      if (kept[k] && (!pixels[k] || dropped.has(k))) {
        kept[k] = 0;
        changed = true;
      }
    if (!changed) return remaining;
    remaining = only(probabilities, names, kept);
  }
}

function only(probabilities: Float32Array, names: number, kept: Uint8Array): Float32Array {
  const columns = names + 1;
  const result = new Float32Array(probabilities.length);
  for (let row = 0; row < result.length; row += columns) {
    let sum = probabilities[row + names];
    for (let k = 0; k < names; k++) if (kept[k]) sum += probabilities[row + k];
    sum = Math.max(sum, 1.1754944e-38);
    for (let k = 0; k < columns; k++) if (k === names || kept[k]) result[row + k] = probabilities[row + k] / sum;
  }
  return result;
}

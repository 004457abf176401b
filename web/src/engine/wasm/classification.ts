/** Probabilities of names for regions, `deop.labelling.classification`. */

import { dot, type Classes } from "./embedding";

/**
 * The logits of the names and, last, "none of these"; -Infinity for a name without a row.
 *
 * @param regions (N, C), L2-normalised
 * @param noObject (C,) the learned "no object" vector, or null
 * @returns (N, K + 1) in rows
 */
export function classLogits(regions: Float32Array, channels: number, classes: Classes, names: number, noObject: Float32Array | null, temperature: number): Float32Array {
  const { rows, owner, offset, rest } = classes;
  const columns = names + 1;
  const count = channels ? regions.length / channels : 0;
  const result = new Float32Array(count * columns).fill(-Infinity);
  const scale = noObject ? temperature / Math.max(Math.sqrt(dot(noObject, noObject)), 1e-12) : 0;
  for (let n = 0; n < count; n++) {
    const region = regions.subarray(n * channels, (n + 1) * channels);
    const logits = result.subarray(n * columns, (n + 1) * columns);
    for (let row = 0; row < rows.length; row++) {
      const logit = temperature * dot(region, rows[row]) + offset[row];
      if (logit > logits[owner[row]]) logits[owner[row]] = logit;
    }
    if (noObject) logits[rest] = Math.max(logits[rest], scale * dot(region, noObject));
  }
  return result;
}

/** The softmax of rows of logits. */
export function softmax(logits: Float32Array, columns: number): Float32Array {
  const result = new Float32Array(logits.length);
  const values = new Float64Array(columns);
  for (let from = 0; from < logits.length; from += columns) {
    let highest = -Infinity;
    for (let k = 0; k < columns; k++) highest = Math.max(highest, logits[from + k]);
    let sum = 0;
    for (let k = 0; k < columns; k++) sum += values[k] = Math.exp(logits[from + k] - highest);
    for (let k = 0; k < columns; k++) result[from + k] = values[k] / sum;
  }
  return result;
}

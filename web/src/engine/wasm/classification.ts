/** Probabilities of names for regions, `deop.labelling.classification`. */

import { dot, type Classes } from "./embedding";

/**
 * The softmax over the names and, last, "none of these".
 *
 * @param regions (N, C), L2-normalised
 * @param noObject (C,) the learned "no object" vector, or null
 * @returns (N, K + 1) in rows
 */
export function classProbabilities(regions: Float32Array, classes: Classes, names: number, noObject: Float32Array | null, temperature: number): Float32Array {
  const { rows, owner, offset, rest } = classes;
  const columns = names + 1;
  const channels = rows[0]?.length ?? noObject?.length ?? 0;
  const count = channels ? regions.length / channels : 0;
  const result = new Float32Array(count * columns);
  const logits = new Float64Array(columns);
  const scale = noObject ? temperature / Math.max(Math.sqrt(dot(noObject, noObject)), 1e-12) : 0;
  for (let n = 0; n < count; n++) {
    const region = regions.subarray(n * channels, (n + 1) * channels);
    logits.fill(-Infinity);
    for (let row = 0; row < rows.length; row++) {
      const logit = temperature * dot(region, rows[row]) + offset[row];
      if (logit > logits[owner[row]]) logits[owner[row]] = logit;
    }
    if (noObject) logits[rest] = Math.max(logits[rest], scale * dot(region, noObject));
    let highest = -Infinity;
    for (const logit of logits) highest = Math.max(highest, logit);
    let sum = 0;
    for (let k = 0; k < columns; k++) sum += logits[k] = Math.exp(logits[k] - highest);
    for (let k = 0; k < columns; k++) result[n * columns + k] = logits[k] / sum;
  }
  return result;
}

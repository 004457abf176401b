/** Calibrated scores, `deop.text.calibration`: linear interpolation between the pairs of a curve. */

import type { Calibration } from "./config";

function interpolate(value: number, pairs: readonly (readonly [number, number])[], from: 0 | 1, to: 0 | 1): number {
  if (value <= pairs[0][from]) return pairs[0][to];
  for (let i = 1; i < pairs.length; i++) {
    const [low, high] = [pairs[i - 1], pairs[i]];
    if (value < high[from]) return low[to] + ((value - low[from]) / (high[from] - low[from])) * (high[to] - low[to]);
  }
  return pairs[pairs.length - 1][to];
}

/** The calibrated score of a raw score, both in [0, 1]. */
export const calibrated = ({ curve }: Calibration, raw: number): number => (curve.length ? interpolate(raw, curve, 0, 1) : raw);

/** The smallest raw score whose calibrated score reaches `score`; above 1 if none does. */
export function rawScore({ curve }: Calibration, score: number): number {
  if (!curve.length) return score;
  if (score > curve[curve.length - 1][1]) return 1 + 2 ** -23;
  return score <= curve[0][1] ? 0 : interpolate(score, curve, 1, 0);
}

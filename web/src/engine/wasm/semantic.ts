/** The name that the masks vote for at each pixel: `deop.labelling.assembly.semantic`. */

import type { Canvas } from "./canvas";
import { strips, type Masks, type Window } from "./windows";

export interface Rule {
  /** Minimum score of each of the K names. */
  readonly limits: Float32Array;
  /** Pixels with a sum of masks up to this get no name. */
  readonly claim: number;
  /** Whether "none of these", the last column, takes part, so that pixels that it wins get no name. */
  readonly noneCompetes: boolean;
  /** The name of pixels that would have none because of `limits` or `claim`; -1: none. */
  readonly rest: number;
}

const SLACK = 1e-5; // relative difference of votes that rounding can cause
const FEW_NAMES = 4; // up to this number, all are compared

/** Sides of windows: with many names, small windows exclude more of them. */
const sideFor = (names: number): number => (names <= 12 ? 64 : names <= 60 ? 32 : 16);

/**
 * Labels strip after strip.
 *
 * @param probabilities (N, K + 1) in rows, the last column "none of these"
 * @param take receives the first row of a strip, its labels (-1 is none), and the share of the masks over each pixel
 *   that vote for this name; both arrays are used again for the next strip
 */
export function labelStrips(
  probabilities: Float32Array,
  names: number,
  masks: Masks,
  canvas: Canvas,
  rule: Rule,
  take: (first: number, labels: Int32Array, confidence: Float32Array) => void,
): void {
  const { height, width } = canvas.photo;
  if (!masks.count || !names) {
    take(0, new Int32Array(height * width).fill(rule.rest), new Float32Array(height * width));
    return;
  }
  const columns = names + 1;
  const voting = rule.noneCompetes ? columns : names;
  // Votes by name: (voting, N) in rows.
  const votes = new Float32Array(voting * masks.count);
  for (let n = 0; n < masks.count; n++) for (let k = 0; k < voting; k++) votes[k * masks.count + n] = probabilities[n * columns + k];
  let [labels, confidence] = [new Int32Array(0), new Float32Array(0)];
  const voter = new Voter(votes, voting, masks.count);
  for (const strip of strips(masks, canvas, sideFor(voting))) {
    if (labels.length !== strip.rows * width) [labels, confidence] = [new Int32Array(strip.rows * width), new Float32Array(strip.rows * width)];
    for (const window of strip.windows) {
      voter.vote(window);
      const { winner, best, coverage } = voter;
      for (let y = 0, at = 0; y < window.row.pixels; y++)
        for (let x = 0, to = y * width + window.column.first; x < window.column.pixels; x++, at++, to++) {
          const score = best[at] / Math.max(1, coverage[at]);
          const name = winner[at];
          const unsure = coverage[at] <= rule.claim || (name < names && score < rule.limits[name]);
          labels[to] = unsure ? rule.rest : name < names ? name : -1;
          confidence[to] = Math.min(1, Math.max(0, score));
        }
    }
    take(strip.first, labels, confidence);
  }
}

/** Finds the name with the highest vote at each pixel of a window. */
class Voter {
  winner = new Int32Array(0);
  best = new Float32Array(0);
  /** The sum of the masks. */
  coverage = new Float32Array(0);
  private readonly offset: Float64Array;
  private readonly least: Float64Array;
  private mask = new Float32Array(0);
  private sum = new Float32Array(0);
  private maps: Float32Array[] = [];
  private enlarged = new Float32Array(0);

  constructor(
    private readonly votes: Float32Array,
    private readonly names: number,
    private readonly masks: number,
  ) {
    this.offset = new Float64Array(names);
    this.least = new Float64Array(names);
  }

  vote(window: Window): void {
    const { pixels, places } = window;
    if (this.winner.length < pixels) [this.winner, this.best, this.coverage, this.enlarged] = [new Int32Array(pixels), new Float32Array(pixels), new Float32Array(pixels), new Float32Array(pixels)];
    if (this.mask.length < places) {
      [this.mask, this.sum] = [new Float32Array(places), new Float32Array(places)];
      this.maps = [];
    }
    const varying: number[] = [];
    let covered = 0;
    for (let n = 0; n < this.masks; n++)
      if (window.low[n] < window.high[n]) varying.push(n);
      else covered += window.low[n];
    const kept = this.possible(window, varying);
    const { winner, best, coverage } = this;
    if (!varying.length) {
      const name = kept.reduce((first, k) => (this.offset[k] > this.offset[first] ? k : first), kept[0]);
      winner.fill(name, 0, pixels);
      best.fill(this.offset[name], 0, pixels);
      coverage.fill(covered, 0, pixels);
      return;
    }
    while (this.maps.length < kept.length) this.maps.push(new Float32Array(this.mask.length));
    kept.forEach((k, i) => this.maps[i].fill(this.offset[k], 0, places));
    this.sum.fill(covered, 0, places);
    for (const n of varying) {
      window.probabilities(n, this.mask);
      add(this.sum, this.mask, 1, places);
      for (let i = 0; i < kept.length; i++) add(this.maps[i], this.mask, this.votes[kept[i] * this.masks + n], places);
    }
    const sum = window.enlarge(this.sum, coverage);
    if (sum !== coverage) coverage.set(sum.subarray(0, pixels));
    best.fill(-Infinity, 0, pixels);
    for (const i of this.unbeaten(kept.length, places)) {
      const map = window.enlarge(this.maps[i], this.enlarged);
      for (let at = 0; at < pixels; at++)
        if (map[at] > best[at]) {
          best[at] = map[at];
          winner[at] = kept[i];
        }
    }
  }

  /**
   * The names that can win a pixel, ascending; sets `offset`, the votes of the masks that are constant.
   *
   * With j the name whose least vote is the highest, name k can win only if the sum of (P_n(k) - P_n(j)) M_n reaches 0
   * somewhere. A bound of it takes the positive terms at the highest M_n and the negative ones at the lowest.
   */
  private possible({ low, high }: Window, varying: readonly number[]): number[] {
    const { votes, masks, offset, least } = this;
    let j = 0;
    const isConstant = new Uint8Array(masks).fill(1);
    for (const n of varying) isConstant[n] = 0;
    for (let k = 0; k < this.names; k++) {
      let [constant, lowest] = [0, 0];
      for (let n = 0, at = k * masks; n < masks; n++, at++) {
        const value = votes[at] * low[n];
        lowest += value;
        if (isConstant[n]) constant += value;
      }
      offset[k] = constant;
      least[k] = lowest;
      if (lowest > least[j]) j = k;
    }
    const kept: number[] = [];
    const limit = -SLACK * (1 + least[j]);
    for (let k = 0; k < this.names; k++) {
      if (this.names > FEW_NAMES && k !== j) {
        let bound = offset[k] - offset[j];
        for (const n of varying) {
          const lead = votes[k * masks + n] - votes[j * masks + n];
          bound += lead > 0 ? lead * high[n] : lead * low[n];
        }
        if (bound < limit) continue;
      }
      kept.push(k);
    }
    return kept;
  }

  /** A name that another one exceeds at all places also loses at every pixel between them. */
  private unbeaten(count: number, places: number): number[] {
    if (count === 1) return [0];
    let [strongest, highest] = [0, -Infinity];
    for (let i = 0; i < count; i++) {
      let sum = 0;
      const map = this.maps[i];
      for (let at = 0; at < places; at++) sum += map[at];
      if (sum > highest) [strongest, highest] = [i, sum];
    }
    const top = this.maps[strongest];
    const kept: number[] = [];
    for (let i = 0; i < count; i++) {
      const map = this.maps[i];
      let leads = i === strongest;
      for (let at = 0; at < places && !leads; at++) leads = map[at] - top[at] >= -SLACK * (1 + top[at]);
      if (leads) kept.push(i);
    }
    return kept;
  }
}

function add(to: Float32Array, values: Float32Array, factor: number, length: number): void {
  for (let at = 0; at < length; at++) to[at] += factor * values[at];
}

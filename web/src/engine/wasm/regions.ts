/** Label maps as runs of equal pixels, their connected regions, and the removal of small ones: `deop.images.connected_regions`, `deop.labelling.small_regions`. */

import type { PixelMap } from "../types";
import type { Size } from "./canvas";

/** A label map in runs, each within a row; neighbours in a row may have one label. */
export interface Runs extends Size {
  /** Flat index of the first pixel of each run; one more entry, the number of pixels, at the end. */
  readonly starts: Int32Array;
  /** -1 is none. */
  readonly labels: Int32Array;
  /** The sum of the confidence over each run. */
  readonly sums: Float64Array;
}

/** Collects the runs of a map that comes in strips. */
export class RunsBuilder {
  private starts = new Int32Array(1 << 14);
  private labels = new Int32Array(1 << 14);
  private sums = new Float64Array(1 << 14);
  private count = 0;
  private at = 0;

  constructor(private readonly size: Size) {}

  /** Adds rows, each value the label of a pixel. */
  add(labels: ArrayLike<number>, confidence: ArrayLike<number>): void {
    const { width } = this.size;
    for (let row = 0; row < labels.length; row += width) {
      for (let x = 0, last = NaN; x < width; x++, this.at++) {
        const label = labels[row + x];
        if (label !== last) {
          if (this.count + 1 >= this.starts.length) this.grow();
          this.starts[this.count] = this.at;
          this.labels[this.count++] = label;
          last = label;
        }
        this.sums[this.count - 1] += confidence[row + x];
      }
    }
  }

  finish(): Runs {
    const { count } = this;
    this.starts[count] = this.at;
    return { ...this.size, starts: this.starts.slice(0, count + 1), labels: this.labels.slice(0, count), sums: this.sums.slice(0, count) };
  }

  private grow(): void {
    const larger = <T extends Int32Array | Float64Array>(old: T): T => {
      const result = new (old.constructor as new (length: number) => T)(2 * old.length);
      result.set(old);
      return result;
    };
    [this.starts, this.labels, this.sums] = [larger(this.starts), larger(this.labels), larger(this.sums)];
  }
}

/** Connected regions, at the sides of pixels, numbered by their first pixel in reading order. */
export interface Regions {
  readonly count: number;
  /** The region of each run. */
  readonly region: Int32Array;
  /** Of each region. */
  readonly labels: Int32Array;
  readonly areas: Float64Array;
  readonly sums: Float64Array;
}

/** Calls `touch(upper, lower, sides)` for each pair of runs that touch between two rows, or (left, right, 1) within one. */
function eachBorder({ starts, labels, width }: Runs, touch: (first: number, second: number, sides: number) => void): void {
  let upper = 0;
  for (let run = 0; run < labels.length; run++) {
    const [start, end] = [starts[run], starts[run + 1]];
    if (start % width) touch(run - 1, run, 1);
    if (start < width) continue;
    while (starts[upper + 1] <= start - width) upper++;
    for (let above = upper; starts[above] < end - width; above++)
      touch(above, run, Math.min(starts[above + 1], end - width) - Math.max(starts[above], start - width));
  }
}

export function connectedRegions(runs: Runs): Regions {
  const { labels, starts, sums } = runs;
  const root = Int32Array.from(labels, (_, run) => run);
  const find = (run: number): number => {
    while (root[run] !== run) run = root[run] = root[root[run]];
    return run;
  };
  eachBorder(runs, (first, second) => {
    if (labels[first] !== labels[second]) return;
    const [a, b] = [find(first), find(second)];
    if (a < b) root[b] = a;
    else root[a] = b;
  });
  const region = new Int32Array(labels.length);
  let count = 0;
  for (let run = 0; run < labels.length; run++) region[run] = root[run] === run ? count++ : region[find(run)];
  const result = { count, region, labels: new Int32Array(count), areas: new Float64Array(count), sums: new Float64Array(count) };
  for (let run = 0; run < labels.length; run++) {
    result.labels[region[run]] = labels[run];
    result.areas[region[run]] += starts[run + 1] - starts[run];
    result.sums[region[run]] += sums[run];
  }
  return result;
}

/**
 * Gives each connected region that is too small the label that it shares the longest border with. Small regions that
 * only touch other small ones follow after these; if all are small, nothing changes.
 *
 * @param minArea the least area, in pixels, of regions of a label (-1 too); up to 1: none is small
 */
export function absorbSmallRegions(runs: Runs, minArea: (label: number) => number): Runs {
  const regions = connectedRegions(runs);
  const label = regions.labels.slice();
  const pending = Uint8Array.from(label, (value, r) => (regions.areas[r] < minArea(value) ? 1 : 0));
  if (!pending.includes(1) || !pending.includes(0)) return runs;
  // Of each small region, its neighbours with the length of the border.
  let borders: { small: number; neighbour: number; sides: number }[] = [];
  const { region } = regions;
  eachBorder(runs, (one, other, sides) => {
    const [first, second] = [region[one], region[other]];
    if (first === second) return;
    if (pending[first]) borders.push({ small: first, neighbour: second, sides });
    if (pending[second]) borders.push({ small: second, neighbour: first, sides });
  });
  for (;;) {
    const totals = new Map<number, Map<number, number>>();
    const waiting: typeof borders = [];
    for (const border of borders) {
      if (!pending[border.small]) continue;
      if (pending[border.neighbour]) {
        waiting.push(border);
        continue;
      }
      const shared = totals.get(border.small) ?? new Map<number, number>();
      const name = label[border.neighbour];
      shared.set(name, (shared.get(name) ?? 0) + border.sides);
      totals.set(border.small, shared);
    }
    if (!totals.size) break;
    for (const [small, shared] of totals) {
      let [best, longest] = [0, 0];
      for (const [name, sides] of shared) if (sides > longest || (sides === longest && name < best)) [best, longest] = [name, sides];
      label[small] = best;
      pending[small] = 0;
    }
    borders = waiting;
  }
  return { ...runs, labels: Int32Array.from(region, (r) => label[r]) };
}

/** A map with `value(run) + 1` at the pixels of each run. */
export function paintRuns({ starts, labels, width, height }: Runs, largest: number, value: (run: number) => number): PixelMap {
  const map = largest < 65535 ? new Uint16Array(width * height) : new Int32Array(width * height);
  for (let run = 0; run < labels.length; run++) map.fill(value(run) + 1, starts[run], starts[run + 1]);
  return map;
}

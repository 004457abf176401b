/** Which pieces of a map are one thing, those of one name in one mask: `deop.labelling.same_thing`. */

import type { Canvas } from "./canvas";
import type { Runs } from "./regions";
import type { Masks } from "./windows";

export interface MaskCells {
  /** The photo's pixel at the centre of each cell. */
  readonly pixels: Float64Array;
  /** The mask with the highest logit there, or -1. */
  readonly masks: Int32Array;
}

export function maskCells(masks: Masks, { photo, resized, padded }: Canvas): MaskCells {
  const down = centres(masks.height, padded.height, resized.height, photo.height);
  const across = centres(masks.width, padded.width, resized.width, photo.width);
  const [pixels, owner] = [new Float64Array(down.length * across.length), new Int32Array(down.length * across.length).fill(-1)];
  const best = new Float32Array(owner.length);
  down.forEach((y, row) => across.forEach((x, column) => (pixels[row * across.length + column] = y * photo.width + x)));
  for (let n = 0; n < masks.count; n++)
    for (let row = 0, at = 0; row < down.length; row++)
      for (let column = 0, cell = (n * masks.height + row) * masks.width; column < across.length; column++, cell++, at++)
        if (masks.logits[cell] > best[at]) [best[at], owner[at]] = [masks.logits[cell], n];
  return { pixels, masks: owner };
}

function centres(cells: number, padded: number, resized: number, photo: number): number[] {
  return Array.from({ length: cells }, (_, cell) => Math.floor(((2 * cell + 1) * padded * photo) / (2 * cells * resized))).filter((place) => place < photo);
}

/** The first region of those that are one thing with each region: four fifths of each lie in the same mask. */
export function joinPieces(runs: Runs, regions: { readonly count: number; readonly region: Int32Array; readonly labels: ArrayLike<number> }, cells: MaskCells): Int32Array {
  const root = Int32Array.from({ length: regions.count }, (_, r) => r);
  const total = new Int32Array(regions.count);
  const shared = new Map<number, Map<number, number>>();
  cells.pixels.forEach((pixel, cell) => {
    let [low, high] = [0, runs.starts.length - 1]; // the last start is the end of the map
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (runs.starts[middle] <= pixel) low = middle;
      else high = middle;
    }
    const r = regions.region[low];
    total[r]++;
    if (cells.masks[cell] < 0) return;
    let counts = shared.get(r);
    if (!counts) shared.set(r, (counts = new Map()));
    counts.set(cells.masks[cell], (counts.get(cells.masks[cell]) ?? 0) + 1);
  });
  const first = new Map<string, number>();
  for (let r = 0; r < regions.count; r++)
    for (const [mask, count] of shared.get(r) ?? []) {
      if (count * 5 < total[r] * 4) continue;
      const key = `${regions.labels[r]} ${mask}`;
      if (!first.has(key)) first.set(key, r);
      root[r] = first.get(key)!;
    }
  return root;
}

/** From marked regions of a photo to a bank: `deop.bank.learning`. */

import type { Canvas } from "../canvas";
import type { Masks } from "../windows";
import { type Bank, joinBanks, UNMARKED } from "./bank";
import { toHalves } from "./half";

const PURITY = 0.6; // share of a proposal that must lie in a marked region, so that it is an example of its name
const FOREIGN = 0.05; // share of a proposal that may lie in marked regions, so that it counts as unmarked
const SMALLEST = 0.002; // share of the photo that a proposal covers at least
const PROPOSALS = 12; // proposals of a photo that are examples of one name, the largest ones
const LIMIT = 20; // logit of a cell that a mask covers

/**
 * Masks at the size of a photo as logits over the cells of the networks' input: `deop.images.masks.cell_logits`.
 *
 * @param masks one byte for each pixel of the photo
 * @returns (masks, height, width), the logit of the share of each cell that a mask covers
 */
export function cellLogits(masks: readonly Uint8Array[], { photo, resized, padded }: Canvas, height: number, width: number): Float32Array {
  const [rows, columns] = [sharesOf(height, padded.height, resized.height, photo.height), sharesOf(width, padded.width, resized.width, photo.width)];
  const result = new Float32Array(masks.length * height * width);
  const line = new Float64Array(photo.width);
  masks.forEach((mask, m) =>
    rows.forEach((row, y) => {
      line.fill(0);
      row.shares.forEach((share, place) => {
        for (let x = 0, at = (row.first + place) * photo.width; x < photo.width; x++, at++) if (mask[at]) line[x] += share;
      });
      columns.forEach((column, x) => {
        let covered = 0;
        column.shares.forEach((share, place) => (covered += share * line[column.first + place]));
        covered = Math.min(1, Math.max(0, Math.round(1e6 * covered) / 1e6));
        result[(m * height + y) * width + x] = Math.min(LIMIT, Math.max(-LIMIT, Math.log(covered) - Math.log1p(-covered)));
      });
    }),
  );
  return result;
}

/** 1 for cells in the photo, 0 for those in the padding. */
function insideOf({ photo, resized, padded }: Canvas, height: number, width: number): Float32Array {
  const result = new Float32Array(height * width);
  const [rows, columns] = [sharesOf(height, padded.height, resized.height, photo.height), sharesOf(width, padded.width, resized.width, photo.width)];
  for (let at = 0; at < result.length; at++) result[at] = rows[Math.floor(at / width)].shares.length && columns[at % width].shares.length ? 1 : 0;
  return result;
}

/** The pixels of the photo in each cell along one side, and their shares of it; cells in the padding have none. */
function sharesOf(cells: number, padded: number, resized: number, photo: number): { first: number; shares: number[] }[] {
  const stride = padded / cells;
  const edge = (cell: number): number => Math.min(cell * stride, resized) * (photo / resized);
  return Array.from({ length: cells }, (_, cell) => {
    const [start, end] = [edge(cell), edge(cell + 1)];
    if (!(end > start)) return { first: 0, shares: [] };
    const first = Math.floor(start);
    const overlaps = Array.from({ length: Math.min(photo, Math.ceil(end)) - first }, (_, place) => Math.min(first + place + 1, end) - Math.max(first + place, start));
    const sum = overlaps.reduce((total, value) => total + value, 0);
    return { first, shares: overlaps.map((value) => value / sum) };
  });
}

const sigmoid = (value: number): number => 1 / (1 + Math.exp(-value));

export interface Proposals {
  readonly masks: Masks;
  /** (N, C) in rows, L2-normalised. */
  readonly regions: Float32Array;
}

/** The marked regions of a photo. */
export interface Marked {
  /** Names, cleaned; "-cup" is not a cup. */
  readonly names: readonly string[];
  /** Share of the photo that each covers. */
  readonly areas: readonly number[];
  /** (n, height, width), their logits over the cells of the proposals, from `cellLogits`. */
  readonly cells: Float32Array;
  /** (n, C) in rows, the embeddings of these masks. */
  readonly regions: Float32Array;
}

/**
 * The examples of one photo: the marked regions, the proposals inside them, and those outside all of them.
 *
 * @param digest of the photo
 */
export function learnPhoto(digest: string, { masks, regions }: Proposals, marked: Marked, canvas: Canvas): Bank {
  const cells = masks.height * masks.width;
  const width = masks.count ? regions.length / masks.count : marked.regions.length / marked.names.length;
  const rows: { name: string; row: Float32Array; marked: boolean; area: number }[] = [];
  marked.names.forEach((name, m) => rows.push({ name, row: marked.regions.subarray(m * width, (m + 1) * width), marked: true, area: marked.areas[m] }));
  const whole = insideOf(canvas, masks.height, masks.width);
  const shares = marked.cells.map(sigmoid);
  const [count, total] = [marked.names.length, whole.reduce((sum, value) => sum + value, 0)];
  const mass = new Float64Array(masks.count);
  const inside = new Float64Array(masks.count * count);
  for (let n = 0; n < masks.count; n++) {
    for (let cell = 0, at = n * cells; cell < cells; cell++, at++) {
      const probability = sigmoid(masks.logits[at]);
      mass[n] += probability * whole[cell];
      for (let m = 0; m < count; m++) inside[n * count + m] += probability * shares[m * cells + cell];
    }
    for (let m = 0; m < count; m++) inside[n * count + m] /= Math.max(mass[n], 1e-6);
  }
  const large = Array.from(mass.keys()).filter((n) => mass[n] >= SMALLEST * total);
  const add = (name: string, chosen: readonly number[]): void => {
    const largest = [...chosen].sort((a, b) => mass[b] - mass[a] || a - b).slice(0, PROPOSALS);
    for (const n of largest) rows.push({ name, row: regions.subarray(n * width, (n + 1) * width), marked: false, area: mass[n] / total });
  };
  marked.names.forEach((name, m) => add(name, large.filter((n) => inside[n * count + m] >= PURITY)));
  add(UNMARKED, large.filter((n) => inside.subarray(n * count, (n + 1) * count).reduce((sum, value) => sum + value, 0) <= FOREIGN));
  const names = [...new Set(rows.map(({ name }) => name))];
  const values = new Float32Array(rows.length * width);
  rows.forEach(({ row }, place) => values.set(row, place * width));
  return joinBanks([
    {
      width,
      names,
      photos: [digest],
      regions: toHalves(values),
      nameOf: Int32Array.from(rows, ({ name }) => names.indexOf(name)),
      photoOf: new Int32Array(rows.length),
      marked: Uint8Array.from(rows, (row) => Number(row.marked)),
      area: Float32Array.from(rows, ({ area }) => area),
    },
  ]);
}

/** A picture (96, 128) of RGB pixels with a disc, stripes and a gradient, and their masks, by which models are recognised. */
export function drawnPicture(): { height: number; width: number; pixels: Uint8ClampedArray; masks: Uint8Array[] } {
  const [height, width] = [96, 128];
  const pixels = new Uint8ClampedArray(3 * height * width);
  const masks = [0, 1, 2].map(() => new Uint8Array(height * width));
  for (let y = 0, at = 0; y < height; y++)
    for (let x = 0; x < width; x++, at++) {
      const disc = (y - 48) ** 2 + (x - 36) ** 2 < 30 ** 2;
      const stripes = x >= 76 && y < 60;
      const light = Math.floor(x / 6) % 2 === 1;
      pixels.set(stripes ? (light ? [240, 240, 235] : [30, 60, 150]) : disc ? [200, 40, 30] : [2 * y, 2 * x - 1, 255 - 2 * y], 3 * at);
      masks[stripes ? 1 : disc ? 0 : 2][at] = 1;
    }
  return { height, width, pixels, masks };
}

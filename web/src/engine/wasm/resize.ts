/**
 * Pillow's antialiased bilinear resize of 8-bit pixels, in strips; normalising and padding.
 *
 * Columns are resized before rows. Pillow 13 sometimes begins with the rows, which changes pixels by one level.
 */

import type { Canvas, Size } from "./canvas";

const BITS = 22; // of the weights' fractions, as in Pillow's Resample.c

/** For each place of a side: its first source, and its weights as integers with `BITS` of fraction. */
interface Weights {
  readonly first: Int32Array;
  readonly count: Int32Array;
  /** (places, most) in rows. */
  readonly weights: Int32Array;
  readonly most: number;
}

function weightsOf(source: number, target: number): Weights {
  const scale = source / target;
  const filter = Math.max(1, scale);
  const most = Math.ceil(filter) * 2 + 1;
  const [first, count, weights] = [new Int32Array(target), new Int32Array(target), new Int32Array(target * most)];
  const values = new Float64Array(most);
  for (let place = 0; place < target; place++) {
    const centre = (place + 0.5) * scale;
    const from = Math.max(0, Math.trunc(centre - filter + 0.5));
    const to = Math.min(source, Math.trunc(centre + filter + 0.5));
    let sum = 0;
    for (let x = 0; x < to - from; x++) sum += values[x] = Math.max(0, 1 - Math.abs((x + from - centre + 0.5) / filter));
    for (let x = 0; x < to - from; x++) weights[place * most + x] = Math.trunc(0.5 + (sum ? values[x] / sum : 0) * 2 ** BITS);
    first[place] = from;
    count[place] = to - from;
  }
  return { first, count, weights, most };
}

/**
 * Resizes a photo of which rows are read in strips, so that a large photo is never in memory as a whole.
 *
 * @param readRows gives RGBA pixels of some rows of the photo
 * @returns RGB pixels in rows
 */
export function resizePhoto(photo: Size, target: Size, readRows: (first: number, count: number) => Uint8ClampedArray, strip = 256): Uint8ClampedArray {
  const [columns, rows] = [weightsOf(photo.width, target.width), weightsOf(photo.height, target.height)];
  const half = 1 << (BITS - 1);
  const narrow = new Uint8ClampedArray(photo.height * target.width * 3);
  for (let top = 0; top < photo.height; top += strip) {
    const height = Math.min(strip, photo.height - top);
    const pixels = readRows(top, height);
    for (let y = 0; y < height; y++) {
      let to = (top + y) * target.width * 3;
      if (photo.width === target.width) {
        for (let from = 4 * y * photo.width, x = 0; x < photo.width; x++, from += 4, to += 3) {
          narrow[to] = pixels[from];
          narrow[to + 1] = pixels[from + 1];
          narrow[to + 2] = pixels[from + 2];
        }
        continue;
      }
      for (let x = 0; x < target.width; x++, to += 3) {
        let [red, green, blue] = [half, half, half];
        let from = 4 * (y * photo.width + columns.first[x]);
        for (let at = x * columns.most, end = at + columns.count[x]; at < end; at++, from += 4) {
          const weight = columns.weights[at];
          red += pixels[from] * weight;
          green += pixels[from + 1] * weight;
          blue += pixels[from + 2] * weight;
        }
        narrow[to] = red >> BITS;
        narrow[to + 1] = green >> BITS;
        narrow[to + 2] = blue >> BITS;
      }
    }
  }
  if (photo.height === target.height) return narrow;
  const stride = target.width * 3;
  const result = new Uint8ClampedArray(target.height * stride);
  const sums = new Int32Array(stride);
  for (let y = 0; y < target.height; y++) {
    sums.fill(half);
    for (let place = 0; place < rows.count[y]; place++) {
      const weight = rows.weights[y * rows.most + place];
      for (let x = 0, from = (rows.first[y] + place) * stride; x < stride; x++, from++) sums[x] += narrow[from] * weight;
    }
    for (let x = 0, to = y * stride; x < stride; x++, to++) result[to] = sums[x] >> BITS;
  }
  return result;
}

/** (3, H, W) float32 of the padded size: (pixel - mean) / std, and 0 outside the photo. */
export function normalise(pixels: Uint8ClampedArray, { resized, padded }: Canvas, mean: readonly number[], std: readonly number[]): Float32Array {
  const result = new Float32Array(3 * padded.height * padded.width);
  for (let c = 0; c < 3; c++) {
    const table = Float32Array.from({ length: 256 }, (_, value) => Math.fround(value - Math.fround(mean[c])) / Math.fround(std[c]));
    for (let y = 0; y < resized.height; y++)
      for (let x = 0, from = 3 * y * resized.width + c, to = (c * padded.height + y) * padded.width; x < resized.width; x++, from += 3, to++)
        result[to] = table[pixels[from]];
  }
  return result;
}

/** The region of a photo that a click or a box marks: `deop.bank.marks`. */

import { EngineError, type Mark } from "../../types";
import type { Canvas } from "../canvas";
import { type Masks, type Side, strips, type Window } from "../windows";

const INSIDE = 0.75; // share of a proposal that must lie in a box, so that it is part of what the box marks
const WINDOW = 64; // side of the windows in which masks are enlarged, in places of the networks' input

/**
 * @param mark in pixels of the photo
 * @returns one byte for each pixel of the photo
 * @throws EngineError the mark is outside the photo, or no mask is there
 */
export const regionOf = (mark: Mark, masks: Masks, canvas: Canvas): Uint8Array => ("x" in mark ? clicked(mark, masks, canvas) : boxed(mark, masks, canvas));

function clicked(mark: Extract<Mark, { x: number }>, masks: Masks, canvas: Canvas): Uint8Array {
  const { height, width } = canvas.photo;
  const [x, y] = [Math.floor(mark.x), Math.floor(mark.y)];
  if (!(x >= 0 && x < width && y >= 0 && y < height)) throw new EngineError(`The point (${mark.x}, ${mark.y}) is outside the photo of ${width} × ${height} pixels.`);
  let [best, highest] = [-1, 0];
  for (const { row, column, at } of pixelsOf(masks, canvas)) {
    if (y < row.first || y >= row.first + row.pixels || x < column.first || x >= column.first + column.pixels) continue;
    const place = (y - row.first) * column.pixels + x - column.first;
    for (let n = 0; n < masks.count; n++) {
      const value = at(n)[place];
      if (value > highest) [best, highest] = [n, value];
    }
    break;
  }
  if (best < 0) throw new EngineError("The model sees no region there. Drag a box around it instead.");
  return addHalf(best, masks, canvas, new Uint8Array(width * height));
}

function boxed(mark: Extract<Mark, { left: number }>, masks: Masks, canvas: Canvas): Uint8Array {
  const { height, width } = canvas.photo;
  if (mark.right <= mark.left || mark.bottom <= mark.top) throw new EngineError("The box is empty.");
  const inside = (value: number, side: number): number => Math.min(side, Math.max(0, halfEven(value)));
  const [left, top, right, bottom] = [inside(mark.left, width), inside(mark.top, height), inside(mark.right, width), inside(mark.bottom, height)];
  const area = (right - left) * (bottom - top);
  if (area <= 0) throw new EngineError(`The box is outside the photo of ${width} × ${height} pixels.`);
  const [mass, within] = [new Float64Array(masks.count), new Float64Array(masks.count)];
  const buffer = new Float32Array(256 * 256);
  for (const strip of strips(masks, canvas, WINDOW))
    for (const window of strip.windows) {
      const { row, column } = window;
      const [down, across] = [weightsOf(row, 0, height), weightsOf(column, 0, width)];
      const [downInside, acrossInside] = [weightsOf(row, top, bottom), weightsOf(column, left, right)];
      for (let n = 0; n < masks.count; n++) {
        const map = mapOf(window, n, buffer);
        for (let y = 0, at = 0; y < row.places; y++) {
          let [line, lineInside] = [0, 0];
          for (let x = 0; x < column.places; x++, at++) {
            line += map[at] * across[x];
            lineInside += map[at] * acrossInside[x];
          }
          mass[n] += line * down[y];
          within[n] += lineInside * downInside[y];
        }
      }
    }
  const chosen = Array.from(mass.keys()).filter((n) => within[n] >= INSIDE * Math.max(mass[n], 1e-6));
  const union = new Uint8Array(width * height);
  for (const n of chosen) addHalf(n, masks, canvas, union);
  const box = new Uint8Array(width * height);
  let sum = 0;
  for (let y = top; y < bottom; y++)
    for (let x = left, at = y * width + left; x < right; x++, at++) {
      box[at] = 1;
      sum += union[at];
    }
  // A union that fills little of the box means that the model does not see the object: the box is a better mask.
  if (4 * sum < area) return box;
  for (let at = 0; at < union.length; at++) union[at] &= box[at];
  return union;
}

/** Adds the pixels of a mask whose probability exceeds half of its highest. */
function addHalf(n: number, masks: Masks, canvas: Canvas, to: Uint8Array): Uint8Array {
  let highest = 0;
  // Two passes, since the probabilities of a large photo would need much memory.
  for (const { row, column, at } of pixelsOf(masks, canvas)) {
    const values = at(n);
    for (let place = 0; place < row.pixels * column.pixels; place++) if (values[place] > highest) highest = values[place];
  }
  const { width } = canvas.photo;
  for (const { row, column, at } of pixelsOf(masks, canvas)) {
    const values = at(n);
    for (let y = 0, from = 0; y < row.pixels; y++)
      for (let x = 0, place = (row.first + y) * width + column.first; x < column.pixels; x++, from++, place++) if (values[from] > highest / 2) to[place] = 1;
  }
  return to;
}

/** The windows of a photo, with the probabilities of a mask at each of their pixels; an array is used again. */
function* pixelsOf(masks: Masks, canvas: Canvas): Generator<{ row: Side; column: Side; at(mask: number): Float32Array }> {
  let [map, pixels] = [new Float32Array(0), new Float32Array(0)];
  for (const strip of strips(masks, canvas, WINDOW))
    for (const window of strip.windows) {
      if (map.length < window.places) map = new Float32Array(window.places);
      if (pixels.length < window.pixels) pixels = new Float32Array(window.pixels);
      const at = (n: number): Float32Array => (window.low[n] < window.high[n] ? window.enlarge(mapOf(window, n, map), pixels) : pixels.fill(window.low[n]));
      yield { row: window.row, column: window.column, at };
    }
}

/** The probabilities of a mask at the size of the networks' input. */
function mapOf(window: Window, n: number, to: Float32Array): Float32Array {
  if (window.low[n] < window.high[n]) window.probabilities(n, to);
  else to.fill(window.low[n], 0, window.places);
  return to;
}

/** What each place of a side adds to the sum over some pixels of the photo. */
function weightsOf({ first, pixels, places, outer }: Side, from: number, to: number): Float64Array {
  const weights = new Float64Array(places);
  for (let pixel = Math.max(first, from); pixel < Math.min(first + pixels, to); pixel++) {
    const place = pixel - first;
    if (!outer) weights[place]++;
    else {
      weights[outer.upper[place]] += 1 - outer.weight[place];
      weights[outer.lower[place]] += outer.weight[place];
    }
  }
  return weights;
}

/** Rounds as Python does: ties to the even number. */
function halfEven(value: number): number {
  const rounded = Math.round(value);
  return Math.abs(value % 1) === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}

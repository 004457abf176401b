/** The masks of a photo one window at a time, at the photo's own size: `deop.labelling.windows`. */

import type { Canvas } from "./canvas";

export interface Masks {
  readonly count: number;
  readonly height: number;
  readonly width: number;
  /** (count, height, width) mask logits over the padded input of the networks. */
  readonly logits: Float32Array;
}

/** Places of a side of the photo: which two places of a coarser side they lie between, and the weight of the second. */
export interface Places {
  readonly upper: Int32Array;
  readonly lower: Int32Array;
  readonly weight: Float32Array;
}

/** Bilinear resizing of a part of a side, equal to that of torch without aligned corners. */
export function placesOf(source: number, target: number, first: number, last: number): Places {
  const scale = Math.fround(source / target);
  const [upper, lower, weight] = [new Int32Array(last - first), new Int32Array(last - first), new Float32Array(last - first)];
  for (let place = first; place < last; place++) {
    const position = Math.max(0, Math.fround(Math.fround(Math.fround(place + 0.5) * scale) - 0.5));
    const low = Math.min(Math.floor(position), source - 1);
    upper[place - first] = low;
    lower[place - first] = Math.min(low + 1, source - 1);
    weight[place - first] = position - low;
  }
  return { upper, lower, weight };
}

/** Some rows, or columns, of the photo. */
export interface Side {
  /** First pixel of the photo, and number of pixels. */
  readonly first: number;
  readonly pixels: number;
  /** First place at the size of the networks' input, and number of places. */
  readonly place: number;
  readonly places: number;
  /** First cell of the masks, and number of cells. */
  readonly cell: number;
  readonly cells: number;
  /** From cells to places, and from places to pixels (null: they are the same); relative to the first ones. */
  readonly inner: Places;
  readonly outer: Places | null;
}

function relative(places: Places, first: number): Places {
  return { upper: places.upper.map((at) => at - first), lower: places.lower.map((at) => at - first), weight: places.weight };
}

function sideOf(cells: number, padded: number, resized: number, photo: number, first: number, last: number): Side {
  let [low, high] = [first, last];
  let outer: Places | null = null;
  if (resized !== photo) {
    const places = placesOf(resized, photo, first, last);
    [low, high] = [places.upper[0], places.lower[places.lower.length - 1] + 1];
    outer = relative(places, low);
  }
  const inner = placesOf(cells, padded, low, high);
  const [from, to] = [inner.upper[0], inner.lower[inner.lower.length - 1] + 1];
  return { first, pixels: last - first, place: low, places: high - low, cell: from, cells: to - from, inner: relative(inner, from), outer };
}

/** The sides of the windows along one side of the photo. */
function sidesOf(cells: number, padded: number, resized: number, photo: number, window: number): Side[] {
  const step = Math.min(MAX_SIDE, Math.max(MIN_SIDE, Math.round(window * (photo / resized))));
  const sides: Side[] = [];
  for (let first = 0; first < photo; first += step) sides.push(sideOf(cells, padded, resized, photo, first, Math.min(first + step, photo)));
  return sides;
}

const MAX_SIDE = 256;
const MIN_SIDE = 16;

const STEPS = 256; // of the table of the sigmoid, per unit
const RANGE = 18;
const SIGMOID = Float32Array.from({ length: 2 * RANGE * STEPS + 2 }, (_, i) => 1 / (1 + Math.exp(RANGE - i / STEPS)));

/** 1 / (1 + exp(-x)), from a table: within 3e-7. */
export function sigmoid(value: number): number {
  const place = Math.min(2 * RANGE, Math.max(0, value + RANGE)) * STEPS;
  const low = place | 0;
  return SIGMOID[low] + (place - low) * (SIGMOID[low + 1] - SIGMOID[low]);
}

/** A part of the photo. */
export class Window {
  constructor(
    private readonly masks: Masks,
    readonly row: Side,
    readonly column: Side,
    /** Bounds of the probabilities of each mask in the window. */
    readonly low: Float32Array,
    readonly high: Float32Array,
  ) {}

  /** Number of places at the size of the networks' input. */
  get places(): number {
    return this.row.places * this.column.places;
  }

  get pixels(): number {
    return this.row.pixels * this.column.pixels;
  }

  /** Writes the probabilities of a mask at the size of the networks' input into `to`. */
  probabilities(mask: number, to: Float32Array): void {
    const { masks, row, column } = this;
    const wide = this.scratch(row.cells * column.places);
    for (let y = 0; y < row.cells; y++) {
      const from = (mask * masks.height + row.cell + y) * masks.width + column.cell;
      for (let x = 0, at = y * column.places; x < column.places; x++, at++) {
        const first = masks.logits[from + column.inner.upper[x]];
        wide[at] = first + column.inner.weight[x] * (masks.logits[from + column.inner.lower[x]] - first);
      }
    }
    for (let y = 0, at = 0; y < row.places; y++) {
      const [upper, lower, weight] = [row.inner.upper[y] * column.places, row.inner.lower[y] * column.places, row.inner.weight[y]];
      for (let x = 0; x < column.places; x++, at++) {
        const first = wide[upper + x];
        to[at] = sigmoid(first + weight * (wide[lower + x] - first));
      }
    }
  }

  /** A map at the size of the networks' input at that of the photo: in `to`, or the map itself if the sizes are equal. */
  enlarge(map: Float32Array, to: Float32Array): Float32Array {
    const { row, column } = this;
    if (!row.outer && !column.outer) return map;
    let wide = map;
    if (column.outer) {
      wide = this.scratch(row.places * column.pixels);
      const { upper, lower, weight } = column.outer;
      for (let y = 0, at = 0; y < row.places; y++) {
        const from = y * column.places;
        for (let x = 0; x < column.pixels; x++, at++) {
          const first = map[from + upper[x]];
          wide[at] = first + weight[x] * (map[from + lower[x]] - first);
        }
      }
      if (!row.outer) {
        to.set(wide.subarray(0, this.pixels));
        return to;
      }
    }
    const outer = row.outer!;
    for (let y = 0, at = 0; y < row.pixels; y++) {
      const [upper, lower, weight] = [outer.upper[y] * column.pixels, outer.lower[y] * column.pixels, outer.weight[y]];
      for (let x = 0; x < column.pixels; x++, at++) {
        const first = wide[upper + x];
        to[at] = first + weight * (wide[lower + x] - first);
      }
    }
    return to;
  }

  private static buffer = new Float32Array(0);

  private scratch(length: number): Float32Array {
    if (Window.buffer.length < length) Window.buffer = new Float32Array(length);
    return Window.buffer;
  }
}

/** The windows of some rows of the photo, from left to right. */
export interface Strip {
  readonly first: number;
  readonly rows: number;
  readonly windows: readonly Window[];
}

/**
 * The masks in strips of windows that together cover the photo, from top to bottom.
 *
 * Logits are resized bilinearly to the networks' input and cropped to the photo; their sigmoid is resized to the photo.
 *
 * @param side of a window, in places of the networks' input
 */
export function* strips(masks: Masks, canvas: Canvas, side: number): Generator<Strip> {
  const rows = sidesOf(masks.height, canvas.padded.height, canvas.resized.height, canvas.photo.height, side);
  const columns = sidesOf(masks.width, canvas.padded.width, canvas.resized.width, canvas.photo.width, side);
  for (const row of rows) {
    const windows = columns.map((column) => new Window(masks, row, column, new Float32Array(masks.count), new Float32Array(masks.count)));
    for (let mask = 0; mask < masks.count; mask++)
      for (const { column, low, high } of windows) {
        let [least, most] = [Infinity, -Infinity];
        for (let y = 0; y < row.cells; y++)
          for (let x = 0, at = (mask * masks.height + row.cell + y) * masks.width + column.cell; x < column.cells; x++, at++) {
            const value = masks.logits[at];
            if (value < least) least = value;
            if (value > most) most = value;
          }
        low[mask] = sigmoid(least);
        high[mask] = sigmoid(most);
      }
    yield { first: row.first, rows: row.pixels, windows };
  }
}

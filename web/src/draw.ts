/** Drawing of results over photos. Everything is one look-up per pixel, so that opacity, hover and toggles are live. */

import type { Colour, Heatmap, Labelling, PixelMap } from "./engine/types";
import type { Style } from "./settings";
import { SHOWN_LONGEST } from "./photo";

const SHOWN_SHORTEST = 1400; // small photos are drawn larger, so that edges are smooth
const LARGEST_FACTOR = 4;

export interface Size {
  readonly width: number;
  readonly height: number;
}

/** The size at which a photo is drawn on the page. */
export function shownSize({ width, height }: Size): Size {
  const longer = Math.max(width, height);
  const factor = longer > SHOWN_LONGEST ? SHOWN_LONGEST / longer : Math.min(LARGEST_FACTOR, Math.max(1, SHOWN_SHORTEST / longer));
  return { width: Math.max(1, Math.round(width * factor)), height: Math.max(1, Math.round(height * factor)) };
}

/** A labelling at the size of a canvas. */
export interface Prepared extends Size {
  /** 0: none; else an index into `classOf`, plus 1: of classes, or of segments where there are some. */
  readonly ids: PixelMap;
  readonly classOf: readonly number[];
  /** 1 or 2: that many pixels from the edge of a region, 0 elsewhere. */
  readonly edges: Uint8Array;
  readonly colours: readonly Colour[];
  /** The photo's lightness at each pixel, and of each id its mean and standard deviation. */
  readonly grey: Uint8Array;
  readonly means: Float64Array;
  readonly deviations: Float64Array;
}

/** @param photo the photo, of the same size */
export function prepare(labelling: Labelling, photo: ImageData): Prepared {
  const size = { width: photo.width, height: photo.height };
  const map = labelling.segmentMap ?? labelling.labels;
  const ids = resample(map, labelling, size);
  const classOf = labelling.segmentMap ? labelling.segments.map(({ classIndex }) => classIndex) : labelling.classes.map((_, k) => k);
  const turn = new Map<number, number>();
  const colours = classOf.map((k) => {
    const nth = turn.get(k) ?? 0;
    turn.set(k, nth + 1);
    return shade(labelling.classes[k].colour, nth);
  });
  const grey = new Uint8Array(ids.length);
  const counts = new Float64Array(classOf.length + 1);
  const means = new Float64Array(classOf.length + 1);
  const deviations = new Float64Array(classOf.length + 1);
  for (let at = 0; at < grey.length; at++) {
    const value = (299 * photo.data[4 * at] + 587 * photo.data[4 * at + 1] + 114 * photo.data[4 * at + 2]) / 1000;
    grey[at] = value;
    counts[ids[at]]++;
    means[ids[at]] += value;
    deviations[ids[at]] += value * value;
  }
  for (let id = 0; id < counts.length; id++) {
    means[id] /= Math.max(1, counts[id]);
    deviations[id] = Math.sqrt(Math.max(0, deviations[id] / Math.max(1, counts[id]) - means[id] ** 2));
  }
  return { ...size, ids, classOf, edges: findEdges(ids, size), colours, grey, means, deviations };
}

/** The pixels of a picture at a size. */
export function pixelsOf(picture: ImageBitmap, { width, height }: Size): ImageData {
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true })!;
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}

const SHADES = [0, 0.28, -0.24, 0.14, -0.13];

/** Segments of one name have shades of one colour. */
function shade(colour: Colour, nth: number): Colour {
  const change = SHADES[nth % SHADES.length];
  const to = change > 0 ? 255 : 0;
  const [red, green, blue] = colour.map((value) => value + Math.abs(change) * (to - value));
  return [red, green, blue];
}

/** A map at another size: enlarged with smooth borders, reduced by the nearest pixel. */
function resample(map: PixelMap, from: Size, to: Size): PixelMap {
  if (from.width === to.width && from.height === to.height) return map;
  const result = map instanceof Uint16Array ? new Uint16Array(to.width * to.height) : new Int32Array(to.width * to.height);
  if (to.width < from.width || to.height < from.height) reduce(map, from, to, result);
  else enlarge(map, from, to, result);
  return result;
}

function reduce(map: PixelMap, from: Size, to: Size, result: PixelMap): void {
  const columns = Int32Array.from({ length: to.width }, (_, x) => Math.floor(((x + 0.5) * from.width) / to.width));
  for (let y = 0, at = 0; y < to.height; y++) {
    const row = Math.floor(((y + 0.5) * from.height) / to.height) * from.width;
    for (let x = 0; x < to.width; x++) result[at++] = map[row + columns[x]];
  }
}

/**
 * Each pixel gets the id with the largest weight among the 3 x 3 pixels around its place, weighted by a quadratic
 * B-spline: steps between pixels become smooth lines.
 */
function enlarge(map: PixelMap, from: Size, to: Size, result: PixelMap): void {
  const { width, height } = from;
  const inside = uniform(map, from);
  const across = taps(width, to.width);
  const down = taps(height, to.height);
  const ids = new Int32Array(9);
  const votes = new Float64Array(9);
  for (let y = 0, at = 0; y < to.height; y++)
    for (let x = 0; x < to.width; x++, at++) {
      const [column, row] = [across.centre[x], down.centre[y]];
      const middle = row * width + column;
      if (inside[middle]) {
        result[at] = map[middle];
        continue;
      }
      let count = 0;
      for (let dy = -1; dy <= 1; dy++) {
        const line = Math.min(height - 1, Math.max(0, row + dy)) * width;
        const vertical = down.weights[3 * y + dy + 1];
        for (let dx = -1; dx <= 1; dx++) {
          const id = map[line + Math.min(width - 1, Math.max(0, column + dx))];
          const weight = vertical * across.weights[3 * x + dx + 1];
          let place = 0;
          while (place < count && ids[place] !== id) place++;
          if (place === count) [ids[count], votes[count++]] = [id, 0];
          votes[place] += weight;
        }
      }
      let best = 0;
      for (let place = 1; place < count; place++) if (votes[place] > votes[best]) best = place;
      result[at] = ids[best];
    }
}

/** For each of `to` places on a line of `from` pixels: the pixel that it lies in, and the weights of that one and its neighbours. */
function taps(from: number, to: number): { centre: Int32Array; weights: Float64Array } {
  const [centre, weights] = [new Int32Array(to), new Float64Array(3 * to)];
  for (let i = 0; i < to; i++) {
    const place = ((i + 0.5) * from) / to;
    centre[i] = Math.floor(place);
    const shift = place - centre[i] - 0.5;
    weights.set([0.5 * (0.5 - shift) ** 2, 0.75 - shift ** 2, 0.5 * (0.5 + shift) ** 2], 3 * i);
  }
  return { centre, weights };
}

/** 1 where a pixel and all eight around it have one id. */
function uniform(map: PixelMap, { width, height }: Size): Uint8Array {
  const flags = new Uint8Array(map.length);
  for (let y = 1; y < height - 1; y++)
    for (let x = 1, at = y * width + 1; x < width - 1; x++, at++) {
      const id = map[at];
      const [above, below] = [at - width, at + width];
      flags[at] = Number(
        map[at - 1] === id && map[at + 1] === id &&
        map[above - 1] === id && map[above] === id && map[above + 1] === id &&
        map[below - 1] === id && map[below] === id && map[below + 1] === id,
      );
    }
  return flags;
}

function findEdges(ids: PixelMap, { width, height }: Size): Uint8Array {
  const edges = new Uint8Array(ids.length);
  const mark = (first: number, second: number, distance: number): void => {
    if (ids[first] === ids[second]) return;
    if (!edges[first] || edges[first] > distance) edges[first] = distance;
    if (!edges[second] || edges[second] > distance) edges[second] = distance;
  };
  for (let y = 0, at = 0; y < height; y++)
    for (let x = 0; x < width; x++, at++) {
      if (x + 1 < width) mark(at, at + 1, 1);
      if (y + 1 < height) mark(at, at + width, 1);
      if (x + 2 < width) mark(at, at + 2, 2);
      if (y + 2 < height) mark(at, at + 2 * width, 2);
    }
  return edges;
}

export interface View {
  readonly style: Style;
  /** Whether names are written on the regions. */
  readonly written: boolean;
  readonly alpha: number;
  /** Indices of classes that are switched off. */
  readonly hidden: ReadonlySet<number>;
  /** The class that is shown alone: the rest of the photo is darkened. */
  readonly isolated: number | null;
  /** The class under the pointer. */
  readonly emphasised: number | null;
}

const SCRIM: Colour = [14, 16, 20];
const SCRIM_ALPHA = 0.78;
const UNNAMED: Colour = [128, 128, 128]; // in the style "labels"

const word = (colour: Colour, alpha: number): number =>
  ((Math.round(255 * alpha) << 24) | (Math.round(colour[2]) << 16) | (Math.round(colour[1]) << 8) | Math.round(colour[0])) >>> 0;

const LARGEST_DEVIATION = 24; // with more, the colours of regions could not be told apart

/**
 * The picture that lies over the photo. As in `deop.results.blending`, hue and chroma of a region come from its name,
 * and so does its mean lightness, around which the photo's varies with its contrast reduced to 1 - alpha: a region has
 * the colour of its swatch on dark and on bright photos.
 */
export function paint(prepared: Prepared, view: View): ImageData {
  const { ids, edges, classOf, colours, grey, means, deviations, width, height } = prepared;
  const fill = new Uint32Array(256 * (classOf.length + 1));
  const line = new Uint32Array(classOf.length + 1);
  const alpha = view.style === "labels" ? 1 : view.style === "outline" ? 0 : view.alpha;
  const covering = 1 - (1 - alpha) ** 6;
  const isolating = view.isolated !== null;
  const flat = (id: number, value: number): void => {
    fill.fill(value, 256 * id, 256 * (id + 1));
    line[id] = value;
  };
  flat(0, isolating ? word(SCRIM, SCRIM_ALPHA) : view.style === "labels" ? word(UNNAMED, 0.25) : 0);
  classOf.forEach((k, s) => {
    const id = s + 1;
    const colour = colours[s];
    if (isolating && view.isolated !== k) flat(id, word(SCRIM, SCRIM_ALPHA));
    else if (!isolating && view.hidden.has(k)) flat(id, 0);
    else {
      const near = view.emphasised === k && !isolating;
      const faint = view.emphasised !== null && !near && !isolating ? 0.5 : 1;
      line[id] = word(near ? mix(colour, [255, 255, 255], 0.5) : colour, faint);
      if (isolating) return;
      const contrast = Math.min(1 - alpha, LARGEST_DEVIATION / Math.max(1, deviations[id]));
      for (let level = 0; level < 256; level++) {
        const change = contrast * (level - means[id]);
        const clip = (value: number): number => Math.min(255, Math.max(0, value + change));
        fill[256 * id + level] = word([clip(colour[0]), clip(colour[1]), clip(colour[2])], covering * faint);
      }
    }
  });
  const wide = view.style === "outline" || isolating;
  const image = new ImageData(width, height);
  const words = new Uint32Array(image.data.buffer);
  for (let at = 0; at < words.length; at++) {
    const id = ids[at];
    const edge = edges[at];
    words[at] = edge === 1 || (edge === 2 && wide) ? line[id] : fill[256 * id + grey[at]];
  }
  return image;
}

function mix(colour: Colour, other: Colour, weight: number): Colour {
  const [red, green, blue] = colour.map((value, c) => value + weight * (other[c] - value));
  return [red, green, blue];
}

/** The colours of heatmaps, from 0 to 1: black over red to pale yellow. */
const HEAT: readonly Colour[] = [[8, 6, 20], [62, 15, 92], [140, 30, 96], [208, 60, 64], [245, 125, 30], [250, 195, 60], [252, 250, 190]];

/** A heatmap as a picture of its own size. */
export function paintHeat(heatmap: Heatmap): ImageData {
  const table = new Uint32Array(256);
  for (let level = 0; level < 256; level++) {
    const place = (level / 255) * (HEAT.length - 1);
    const step = Math.min(HEAT.length - 2, Math.floor(place));
    table[level] = word(mix(HEAT[step], HEAT[step + 1], place - step), 1);
  }
  const image = new ImageData(heatmap.width, heatmap.height);
  const words = new Uint32Array(image.data.buffer);
  for (let at = 0; at < words.length; at++) words[at] = table[Math.round(255 * Math.min(1, Math.max(0, heatmap.values[at])))];
  return image;
}

/** Puts the picture of a heatmap into a canvas of another size, smoothly. */
export function stretchInto(canvas: HTMLCanvasElement | OffscreenCanvas, image: ImageData, alpha: number): void {
  const source = new OffscreenCanvas(image.width, image.height);
  source.getContext("2d")!.putImageData(image, 0, 0);
  const context = canvas.getContext("2d") as CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D;
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.globalAlpha = alpha;
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  context.globalAlpha = 1;
}

/** A marked region at the size of a canvas: darker around it, with a white edge. */
export function paintMarked(pixels: Uint8Array, photo: Size, { width, height }: Size): ImageData {
  const inside = new Uint8Array(width * height);
  for (let y = 0, at = 0; y < height; y++) {
    const row = Math.floor(((y + 0.5) * photo.height) / height) * photo.width;
    for (let x = 0; x < width; x++, at++) inside[at] = pixels[row + Math.floor(((x + 0.5) * photo.width) / width)];
  }
  const image = new ImageData(width, height);
  const words = new Uint32Array(image.data.buffer);
  const [outside, edge] = [word(SCRIM, 0.55), word([255, 255, 255], 1)];
  for (let y = 0, at = 0; y < height; y++)
    for (let x = 0; x < width; x++, at++) {
      if (!inside[at]) words[at] = outside;
      else if ((x && !inside[at - 1]) || (x < width - 1 && !inside[at + 1]) || (y && !inside[at - width]) || (y < height - 1 && !inside[at + width])) words[at] = edge;
    }
  return image;
}

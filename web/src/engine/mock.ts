/**
 * An engine without a model, to build and test the page with. It divides a photo into regions of similar colour, and
 * gives each region the name whose colour is nearest: names of colours have theirs, other names one from a hash.
 * An example names all regions whose colour is near that of the region that it marks.
 * Deterministic: the same photo and names give the same result on every machine.
 */

import { colourOf, classColours } from "../colours";
import { cleanName, displayName, meansEverythingElse, synonyms } from "../names";
import { EngineError } from "./types";
import { absorbSmallRegions, paintRuns, RunsBuilder } from "./wasm/regions";
import type { Capabilities, Colour, EncodeOptions, Engine, Example, Handle, Heatmap, LabelOptions, Labelling, Mark, Photo, Taught } from "./types";

const REGIONS = 14;
const LONGEST = 320;
const ROUNDS = 8;
const SHARPNESS = 1 / 1400;
const NONE_OF_THESE = 90 ** 2; // squared distance from which "background" is nearer than a name
const STUFF = new Set("sky wall floor grass road water sea sand table ground snow tree building wood wooden".split(" "));

const ALIKE = 40 ** 2; // squared distance up to which regions have the name of an example

interface Lesson {
  readonly name: string;
  readonly colour: Colour;
}

interface Encoded extends Handle {
  /** The photo that it is of. */
  readonly file: Blob;
  readonly columns: number;
  readonly rows: number;
  /** (rows, columns): region of each cell. */
  readonly cells: Uint8Array;
  /** (REGIONS, 3): mean colours. */
  readonly means: Float64Array;
}

export interface MockOptions {
  /** Milliseconds that encoding takes. */
  readonly delay?: number;
}

export class MockEngine implements Engine {
  /** Number of calls, for tests: changing names must not encode again. */
  readonly calls = { encode: 0, label: 0, heatmap: 0, release: 0, teach: 0 };
  private readonly lessons = new Map<Blob | null, readonly Lesson[]>();

  constructor(private readonly options: MockOptions = {}) {}

  async capabilities(): Promise<Capabilities> {
    return {
      model: "mock",
      backend: "no model: regions of similar colour",
      local: true,
      modes: ["semantic", "panoptic", "instance"],
      severances: ["self", "gate", "none"],
      heatmaps: true,
      defaults: { threshold: 0, smallestRegion: 0 },
      maxPixels: 200e6,
      maxNames: 10_000,
      examples: true,
    };
  }

  async encode(photo: Photo, _options: EncodeOptions, signal?: AbortSignal): Promise<Encoded> {
    this.calls.encode++;
    const pixels = await photo.pixels(LONGEST);
    if (this.options.delay) await new Promise((done) => setTimeout(done, this.options.delay));
    signal?.throwIfAborted();
    return { file: photo.file, width: photo.width, height: photo.height, ...cluster(pixels) };
  }

  async label(handle: Handle, names: readonly string[], options: LabelOptions, signal?: AbortSignal): Promise<Labelling> {
    this.calls.label++;
    signal?.throwIfAborted();
    const encoded = handle as Encoded;
    const { width, height, columns, rows, cells } = encoded;
    check(names);
    const scores = regionScores(encoded, names, options.background, this.bank(options));
    const best = scores.map((row) => {
      let winner = 0;
      for (let k = 1; k < row.length; k++) if (row[k] > row[winner]) winner = k;
      return winner < names.length && row[winner] >= (options.threshold ?? 0) ? winner + 1 : 0;
    });
    const things = names.map((name) => isThing(name, options.things));
    const remarks: string[] = [];
    if (options.mode === "instance") {
      if (!things.some(Boolean)) throw new EngineError("Instance mode finds countable things only, and no name is a thing. Use semantic or panoptic mode, or say which names are things.");
      for (let r = 0; r < best.length; r++) if (best[r] && !things[best[r] - 1]) best[r] = 0;
      const stuff = names.filter((_, k) => !things[k]).map(displayName);
      if (stuff.length) remarks.push(`Instance mode finds countable things only; taken for stuff: ${stuff.join(", ")}.`);
    }
    const builder = new RunsBuilder({ width: columns, height: rows });
    builder.add(Int32Array.from(cells, (region) => best[region] - 1), new Float32Array(cells.length));
    const runs = absorbSmallRegions(builder.finish(), () => (options.smallestRegion ?? 0) * cells.length);
    const classMap = Uint16Array.from(paintRuns(runs, names.length, (run) => runs.labels[run]));
    const labels = stretch(classMap, columns, rows, width, height);
    const areas = new Float64Array(names.length + 1);
    for (const value of labels) areas[value]++;
    const peaks = names.map((_, k) => Math.max(0, ...scores.filter((_, r) => best[r] === k + 1).map((row) => row[k])));
    const colours = classColours(names);
    const classes = names.map((name, k) => {
      const found = areas[k + 1] > 0;
      return { name: displayName(name), share: areas[k + 1] / labels.length, score: found ? peaks[k] : null, colour: colours[k], isThing: things[k] };
    });
    if (options.mode === "semantic") return { width, height, labels, classes, segments: [], segmentMap: null, remarks };
    const { map, classOf } = pieces(classMap, columns, rows, things);
    const segmentMap = stretch(map, columns, rows, width, height);
    const counts = new Float64Array(classOf.length + 1);
    for (const value of segmentMap) counts[value]++;
    const segments = classOf.map((k, s) => ({ classIndex: k, score: peaks[k], share: counts[s + 1] / labels.length }));
    return { width, height, labels, classes, segments, segmentMap, remarks };
  }

  async heatmap(handle: Handle, names: readonly string[], index: number, options: LabelOptions, signal?: AbortSignal): Promise<Heatmap> {
    this.calls.heatmap++;
    signal?.throwIfAborted();
    const encoded = handle as Encoded;
    const scores = regionScores(encoded, names, options.background, this.bank(options));
    return {
      width: encoded.columns,
      height: encoded.rows,
      values: Float32Array.from(encoded.cells, (region) => scores[region][index]),
    };
  }

  release(_handle: Handle): void {
    this.calls.release++;
  }

  async teach(handle: Handle, examples: readonly Example[]): Promise<Taught> {
    this.calls.teach++;
    const encoded = handle as Encoded;
    if (examples.some(({ name }) => name === "unlearnable")) throw new EngineError("“unlearnable” cannot be learned.");
    const lessons = examples.map(({ name, mark }): Lesson => {
      const [red, green, blue] = encoded.means.subarray(3 * regionAt(encoded, mark));
      return { name, colour: [red, green, blue] };
    });
    this.lessons.set(encoded.file, lessons);
    return this.taught();
  }

  async marked(handle: Handle, mark: Mark): Promise<Uint8Array> {
    const encoded = handle as Encoded;
    const region = regionAt(encoded, mark);
    const { width, height, columns, rows } = encoded;
    return Uint8Array.from(stretch(Uint16Array.from(encoded.cells, (cell) => Number(cell === region)), columns, rows, width, height));
  }

  async openBank(file: File): Promise<Taught> {
    try {
      this.lessons.set(null, [...(this.lessons.get(null) ?? []), ...(JSON.parse(await file.text()) as Lesson[])]);
    } catch {
      throw new EngineError(`${file.name} is no bank of examples.`);
    }
    return this.taught();
  }

  async bankFile(): Promise<Blob> {
    return new Blob([JSON.stringify([...this.lessons.values()].flat())]);
  }

  async clearBank(): Promise<void> {
    this.lessons.clear();
  }

  private bank({ bank, bankWeight }: LabelOptions): readonly Lesson[] {
    return bank && bankWeight !== 0 ? [...this.lessons.values()].flat() : [];
  }

  private taught(): Taught {
    const counts = new Map<string, number>();
    for (const { name } of [...this.lessons.values()].flat()) counts.set(name, (counts.get(name) ?? 0) + 1);
    return [...counts].map(([name, regions]) => ({ name, regions, photos: 1 }));
  }
}

function check(names: readonly string[]): void {
  if (!names.length) throw new EngineError("The list of names is empty: give at least one, such as “cat”.");
  for (const name of names) if (!cleanName(name)) throw new EngineError("A name is blank: remove it.");
}

function isThing(name: string, things: readonly string[] | null): boolean {
  if (synonyms(name).some(meansEverythingElse)) return false;
  if (things) return things.flatMap(synonyms).some((thing) => synonyms(name).includes(thing));
  return !displayName(name).toLowerCase().split(" ").some((word) => STUFF.has(word));
}

/** The region at a point, or at the middle of a box. */
function regionAt({ width, height, columns, rows, cells }: Encoded, mark: Mark): number {
  const [x, y] = "x" in mark ? [mark.x, mark.y] : [(mark.left + mark.right) / 2, (mark.top + mark.bottom) / 2];
  return cells[Math.floor((y * rows) / height) * columns + Math.floor((x * columns) / width)];
}

/** Probabilities over names, then background, for each region. */
function regionScores({ means }: Encoded, names: readonly string[], background: readonly string[], lessons: readonly Lesson[]): number[][] {
  const all = [...names, ...background];
  const colours = all.map((name) => synonyms(name).map((text) => (meansEverythingElse(text) ? null : colourOf(text))));
  return Array.from({ length: REGIONS }, (_, r) => {
    const mean: Colour = [means[3 * r], means[3 * r + 1], means[3 * r + 2]];
    const logits = colours.map((list) => Math.max(...list.map((colour) => -distance(colour, mean) * SHARPNESS)));
    for (const { name, colour } of lessons) {
      if (distance(colour, mean) > ALIKE) continue;
      const texts = synonyms(name.replace(/^-/, ""));
      const k = all.findIndex((other) => synonyms(other).some((text) => texts.includes(text)));
      if (k >= 0) logits[k] += name.startsWith("-") ? -30 : 60;
    }
    const top = Math.max(...logits, -NONE_OF_THESE * SHARPNESS * 1.6);
    const weights = logits.map((logit) => Math.exp(logit - top));
    const none = Math.exp(-NONE_OF_THESE * SHARPNESS * 1.6 - top);
    const sum = weights.reduce((total, weight) => total + weight, none);
    return weights.map((weight) => weight / sum);
  });
}

/** The squared distance of a colour; null is that of everything else. */
const distance = (colour: Colour | null, mean: Colour): number => (colour ? colour.reduce((sum, value, c) => sum + (value - mean[c]) ** 2, 0) : NONE_OF_THESE);

/** Regions by k-means over colours; starts from colours that are far apart. */
function cluster({ data, width, height }: ImageData): Pick<Encoded, "columns" | "rows" | "cells" | "means"> {
  const count = width * height;
  const means = new Float64Array(3 * REGIONS);
  const nearest = new Float64Array(count).fill(Infinity);
  const squared = (i: number, r: number): number =>
    (data[4 * i] - means[3 * r]) ** 2 + (data[4 * i + 1] - means[3 * r + 1]) ** 2 + (data[4 * i + 2] - means[3 * r + 2]) ** 2;
  for (let r = 0, start = 0; r < REGIONS; r++) {
    means.set(data.subarray(4 * start, 4 * start + 3), 3 * r);
    for (let i = 0, farthest = -1; i < count; i++) {
      nearest[i] = Math.min(nearest[i], squared(i, r));
      if (nearest[i] > farthest) {
        farthest = nearest[i];
        start = i;
      }
    }
  }
  let cells = new Uint8Array(count);
  for (let round = 0; round < ROUNDS; round++) {
    const sums = new Float64Array(4 * REGIONS);
    for (let i = 0; i < count; i++) {
      let best = 0;
      for (let r = 1, least = squared(i, 0); r < REGIONS; r++) {
        const now = squared(i, r);
        if (now < least) {
          least = now;
          best = r;
        }
      }
      cells[i] = best;
      for (let c = 0; c < 3; c++) sums[4 * best + c] += data[4 * i + c];
      sums[4 * best + 3]++;
    }
    for (let r = 0; r < REGIONS; r++)
      if (sums[4 * r + 3]) for (let c = 0; c < 3; c++) means[3 * r + c] = sums[4 * r + c] / sums[4 * r + 3];
  }
  for (let round = 0; round < 3; round++) cells = smooth(cells, width, height);
  return { columns: width, rows: height, cells, means };
}

/** The most frequent region among a cell and its neighbours within two cells. */
function smooth(cells: Uint8Array<ArrayBuffer>, width: number, height: number): Uint8Array<ArrayBuffer> {
  const result = new Uint8Array(cells.length);
  const votes = new Uint8Array(REGIONS);
  for (let y = 0, i = 0; y < height; y++)
    for (let x = 0; x < width; x++, i++) {
      votes.fill(0);
      votes[cells[i]] = 1;
      for (let dy = -2; dy <= 2; dy++)
        for (let dx = -2; dx <= 2; dx++)
          if (y + dy >= 0 && y + dy < height && x + dx >= 0 && x + dx < width) votes[cells[i + dy * width + dx]]++;
      result[i] = votes.indexOf(Math.max(...votes));
    }
  return result;
}

/** Connected pieces of things, and one segment for each kind of stuff. */
function pieces(classes: Uint16Array, columns: number, rows: number, things: readonly boolean[]): { map: Uint16Array; classOf: number[] } {
  const map = new Uint16Array(classes.length);
  const classOf: number[] = [];
  const stuff = new Map<number, number>();
  for (let start = 0; start < classes.length; start++) {
    const k = classes[start] - 1;
    if (k < 0 || map[start]) continue;
    let id = stuff.get(k);
    if (id === undefined) {
      classOf.push(k);
      id = classOf.length;
      if (!things[k]) stuff.set(k, id);
    }
    const stack = [start];
    map[start] = id;
    while (stack.length) {
      const at = stack.pop()!;
      const x = at % columns;
      for (const next of [x ? at - 1 : -1, x < columns - 1 ? at + 1 : -1, at - columns, at + columns])
        if (next >= 0 && next < columns * rows && !map[next] && classes[next] === k + 1) {
          map[next] = id;
          stack.push(next);
        }
    }
  }
  return { map, classOf };
}

/** A map at another size, by the nearest cell. */
function stretch(map: Uint16Array, columns: number, rows: number, width: number, height: number): Uint16Array {
  const result = new Uint16Array(width * height);
  const across = Uint32Array.from({ length: width }, (_, x) => Math.floor(((x + 0.5) * columns) / width));
  for (let y = 0, at = 0; y < height; y++) {
    const row = Math.floor(((y + 0.5) * rows) / height) * columns;
    for (let x = 0; x < width; x++) result[at++] = map[row + across[x]];
  }
  return result;
}

/** From the probabilities of names to a result: `deop.labelling.result`, for masks that are not instances. */

import type { Heatmap, LabelledSegment, Mode, PixelMap } from "../types";
import { calibrated, rawScore } from "./calibration";
import type { Canvas } from "./canvas";
import type { ModelConfig } from "./config";
import { absorbSmallRegions, paintRuns, RunsBuilder, type Runs } from "./regions";
import { divideThings, dropWeakThings, labelRest, largestFirst, onlyThings, type Pieces } from "./segments";
import { maskCells } from "./same_thing";
import { labelStrips } from "./semantic";
import type { Vocabulary } from "./vocabulary";
import { strips, type Masks } from "./windows";

export interface Result {
  readonly labels: PixelMap;
  /** Share and score of each name; null if it was not found. */
  readonly classes: readonly { readonly share: number; readonly score: number | null; readonly isThing: boolean }[];
  readonly segments: readonly LabelledSegment[];
  readonly segmentMap: PixelMap | null;
}

type Settings = Pick<ModelConfig, "calibration" | "claim" | "smallestRegion" | "smallestThing" | "thingScore">;

/**
 * @param probabilities (N, K + 1) in rows
 * @param thresholds minimum calibrated score of each name
 */
export function assemble(
  probabilities: Float32Array,
  masks: Masks,
  canvas: Canvas,
  vocabulary: Vocabulary,
  settings: Settings,
  mode: Mode,
  thresholds: readonly number[],
): Result {
  const { calibration } = settings;
  const names = vocabulary.names.length;
  const rest = vocabulary.everythingElse ?? -1;
  // The name of everything else also gets the pixels of names below their minimum.
  const limits = Float32Array.from(thresholds, (score, k) => (k === rest ? 0 : rawScore(calibration, score)));
  const builder = new RunsBuilder(canvas.photo);
  const rule = { limits, claim: settings.claim, noneCompetes: vocabulary.background.length > 0, rest };
  labelStrips(probabilities, names, masks, canvas, rule, (_, labels, confidence) => builder.add(labels, confidence));
  const area = canvas.photo.width * canvas.photo.height;
  const map = absorbSmallRegions(builder.finish(), () => settings.smallestRegion * area);
  const labelsOf = ({ labels }: Runs, runs: Runs): PixelMap => paintRuns(runs, names, (run) => labels[run]);
  if (mode === "semantic") {
    const [pixels, sums] = [new Float64Array(names), new Float64Array(names)];
    map.labels.forEach((name, run) => {
      if (name < 0) return;
      pixels[name] += map.starts[run + 1] - map.starts[run];
      sums[name] += map.sums[run];
    });
    const classes = Array.from(pixels, (count, k) => ({ share: count / area, score: count ? calibrated(calibration, Math.min(1, sums[k] / count)) : null, isThing: vocabulary.things[k] }));
    return { labels: labelsOf(map, map), classes, segments: [], segmentMap: null };
  }
  // A kind of stuff needs a mask: not every second-best name is a segment.
  const stuff = mode === "panoptic" ? namesOfMasks(probabilities, masks, limits) : null;
  let divided: Pieces = divideThings(map, vocabulary.things, settings.smallestThing * area, stuff, maskCells(masks, canvas));
  if (mode === "panoptic") divided = dropWeakThings(divided, settings.thingScore);
  if (rest >= 0 && !vocabulary.background.length) divided = labelRest(divided, rest);
  divided = mode === "instance" ? onlyThings(divided) : largestFirst(divided, vocabulary.names);
  const { runs, piece, pieces } = divided;
  const segments = pieces.map((each) => ({ classIndex: each.name, score: calibrated(calibration, each.score), share: each.area / area }));
  return {
    labels: paintRuns(runs, names, (run) => (piece[run] < 0 ? -1 : pieces[piece[run]].name)),
    classes: Array.from({ length: names }, (_, k) => {
      const members = segments.filter(({ classIndex }) => classIndex === k);
      return { share: members.reduce((sum, { share }) => sum + share, 0), score: members.length ? Math.max(...members.map(({ score }) => score)) : null, isThing: vocabulary.things[k] };
    }),
    segments,
    segmentMap: paintRuns(runs, pieces.length, (run) => piece[run]),
  };
}

/** The names that are the best name of a mask with a cell of probability above 0.5. */
export function namesOfMasks(probabilities: Float32Array, masks: Masks, limits: Float32Array): boolean[] {
  const names = limits.length;
  const found = new Array<boolean>(names).fill(false);
  const cells = masks.height * masks.width;
  for (let n = 0; n < masks.count; n++) {
    const row = probabilities.subarray(n * (names + 1), (n + 1) * (names + 1));
    let best = 0;
    for (let k = 1; k <= names; k++) if (row[k] > row[best]) best = k;
    if (best < names && row[best] >= limits[best] && masks.logits.subarray(n * cells, (n + 1) * cells).some((logit) => logit > 0)) found[best] = true;
  }
  return found;
}

/** The score of a name at each place of the networks' input, at which the page stretches it over the photo. */
export function heatmapOf(probabilities: Float32Array, names: number, index: number, masks: Masks, canvas: Canvas, settings: Settings): Heatmap {
  const { width, height } = canvas.resized;
  const values = new Float32Array(width * height);
  const mask = new Float32Array(256 * 256);
  for (const strip of strips(masks, { ...canvas, photo: canvas.resized }, 64))
    for (const window of strip.windows) {
      const { row, column, places } = window;
      const [votes, sum] = [new Float32Array(places), new Float32Array(places)];
      for (let n = 0; n < masks.count; n++) {
        const share = probabilities[n * (names + 1) + index];
        window.probabilities(n, mask);
        for (let at = 0; at < places; at++) {
          votes[at] += share * mask[at];
          sum[at] += mask[at];
        }
      }
      for (let y = 0, at = 0; y < row.pixels; y++)
        for (let x = 0, to = (row.first + y) * width + column.first; x < column.pixels; x++, at++, to++)
          values[to] = calibrated(settings.calibration, Math.min(1, votes[at] / Math.max(1, sum[at])));
    }
  return { width, height, values };
}

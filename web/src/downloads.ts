/** The files that people take away. */

import { hexColour } from "./colours";
import { BANK_FILE } from "./commands";
import { paint, paintHeat, pixelsOf, prepare, shownSize, stretchInto, type View } from "./draw";
import { compressCounts, countsOf } from "./engine/rle";
import type { Heatmap, Labelling, PixelMap } from "./engine/types";
import type { ShownPhoto } from "./photo";
import { labelPng } from "./png";
import { FITTED_WEIGHT, thresholdText, type Settings } from "./settings";
import { drawPlates, letterSize, plates } from "./written";

const SMALLEST_WRITTEN = 96; // pixels on the shorter side of a picture with names
const LARGEST_PICTURE = 50e6; // pixels; larger photos give pictures of the size on the page

export type Download = "picture" | "cutout" | "labels" | "json" | "coco";

/** `photo.jpg` becomes `photo.deop.png`. */
export function fileName(photo: string, ending: string): string {
  const stem = photo.replace(/\.[^.]*$/, "").replace(/[\\/:*?"<>|\p{Cc}]/gu, "_") || "photo";
  return `${stem}.${ending}`;
}

export function save(blob: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** What a page shows. */
export interface Shown {
  readonly photo: ShownPhoto;
  readonly labelling: Labelling;
  readonly view: View;
  /** A heatmap that is shown instead of the result. */
  readonly heat: { readonly alpha: number; readonly heatmap: Heatmap } | null;
}

export async function makeDownload(kind: Download, shown: Shown, settings: Settings, model: string, bank: boolean): Promise<{ blob: Blob; name: string }> {
  const { photo, labelling, view } = shown;
  switch (kind) {
    case "picture":
      return { blob: await picture(shown), name: fileName(photo.name, "deop.png") };
    case "cutout":
      return { blob: await cutout(photo, labelling, view), name: fileName(photo.name, "cutout.png") };
    case "labels": {
      const colours = labelling.classes.map(({ colour }) => colour);
      const blob = await labelPng(labelling.labels, labelling.width, labelling.height, colours);
      return { blob, name: fileName(photo.name, "labels.png") };
    }
    case "coco": {
      const text = `${JSON.stringify(coco(photo.name, labelling), null, 1)}\n`;
      return { blob: new Blob([text], { type: "application/json" }), name: fileName(photo.name, "coco.json") };
    }
    case "json": {
      const text = `${JSON.stringify(summary(photo.name, labelling, settings, model, bank), null, 1)}\n`;
      return { blob: new Blob([text], { type: "application/json" }), name: fileName(photo.name, "json") };
    }
  }
}

async function picture({ photo, labelling, view, heat }: Shown): Promise<Blob> {
  const large = photo.width * photo.height > LARGEST_PICTURE;
  const size = large ? shownSize(photo) : { width: photo.width, height: photo.height };
  const canvas = new OffscreenCanvas(size.width, size.height);
  const context = canvas.getContext("2d")!;
  const source = large ? photo.bitmap : await photo.full();
  const pixels = pixelsOf(source, size);
  context.putImageData(pixels, 0, 0);
  if (!large) source.close();
  const layer = new OffscreenCanvas(size.width, size.height);
  if (heat) {
    stretchInto(layer, paintHeat(heat.heatmap), heat.alpha);
    context.drawImage(layer, 0, 0);
    return canvas.convertToBlob({ type: "image/png" });
  }
  const prepared = prepare(labelling, pixels);
  layer.getContext("2d")!.putImageData(paint(prepared, { ...view, emphasised: null }), 0, 0);
  context.drawImage(layer, 0, 0);
  if (view.written && Math.min(size.width, size.height) >= SMALLEST_WRITTEN) {
    const letters = letterSize(size);
    drawPlates(context, plates(labelling, prepared, view, letters), letters);
  }
  return canvas.convertToBlob({ type: "image/png" });
}

/** The name that is isolated, or all that are switched on, on a transparent background. */
async function cutout(photo: ShownPhoto, labelling: Labelling, view: View): Promise<Blob> {
  const { width, height, labels, classes } = labelling;
  const kept = Uint8Array.from([0, ...classes.map((_, k) => (view.isolated === null ? !view.hidden.has(k) : view.isolated === k) ? 1 : 0)]);
  const image = await photo.pixels();
  const words = new Uint32Array(image.data.buffer);
  for (let at = 0; at < words.length; at++) if (!kept[labels[at]]) words[at] = 0;
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d")!.putImageData(image, 0, 0);
  return canvas.convertToBlob({ type: "image/png" });
}

interface Found {
  readonly classIndex: number;
  readonly score: number;
  readonly share: number;
  /** Left, top, right, bottom. */
  readonly box: readonly number[];
  readonly area: number;
  readonly segmentation: { readonly size: readonly number[]; readonly counts: string };
}

/** The segments that have pixels; in semantic mode, one for each name. */
function segmentsOf(labelling: Labelling): Found[] {
  const { width, height, classes } = labelling;
  const map: PixelMap = labelling.segmentMap ?? labelling.labels;
  const segments =
    labelling.segmentMap !== null
      ? labelling.segments.map((segment, s) => ({ ...segment, value: s + 1 }))
      : classes.map((entry, k) => ({ classIndex: k, score: entry.score ?? 0, share: entry.share, value: k + 1 }));
  const boxes = boxesOf(map, width, height, segments.length);
  return segments
    .map((segment) => ({ ...segment, ...boxes[segment.value - 1] }))
    .filter(({ area }) => area > 0)
    .map(({ value, ...segment }) => ({ ...segment, segmentation: { size: [height, width], counts: compressCounts(countsOf(map, width, height, value)) } }));
}

/** COCO's instance format, as `Segmentation.to_coco` and `deop segment --coco` write it. */
export function coco(photo: string, labelling: Labelling): object {
  const { width, height, classes } = labelling;
  return {
    info: { description: "Segmentation by deop" },
    licenses: [],
    images: [{ id: 1, width, height, file_name: photo }],
    annotations: segmentsOf(labelling).map(({ classIndex, score, box: [left, top, right, bottom], area, segmentation }, index) => ({
      id: index + 1,
      image_id: 1,
      category_id: classIndex + 1,
      bbox: [left, top, right - left, bottom - top],
      area,
      iscrowd: 0,
      score: round(score, 4),
      segmentation,
    })),
    categories: classes.map(({ name, isThing }, k) => ({ id: k + 1, name, supercategory: isThing ? "thing" : "stuff", isthing: Number(isThing) })),
  };
}

/** The form of `Segmentation.summary(rle=True)` and of `deop segment --json --rle`. */
export function summary(photo: string, labelling: Labelling, settings: Settings, model: string, bank: boolean): object {
  const { width, height, classes } = labelling;
  return {
    photo,
    size: [width, height],
    mode: settings.mode,
    names: classes.map(({ name }) => name),
    classes: classes.map(({ name, share, score, colour }) => ({
      name,
      share: round(share, 6),
      score: score === null ? null : round(score, 4),
      colour: hexColour(colour),
    })),
    segments: segmentsOf(labelling).map(({ classIndex, score, share, box, area, segmentation }, id) => ({
      id,
      name: classes[classIndex].name,
      score: round(score, 4),
      box,
      area,
      share: round(share, 6),
      isthing: classes[classIndex].isThing,
      segmentation,
    })),
    settings: {
      model,
      ...(settings.vocabulary === null ? { classes: settings.names } : { vocabulary: settings.vocabulary }),
      background: settings.background,
      threshold: thresholdText(settings) || null,
      ...(settings.smallestRegion === null ? {} : { smallest_region: settings.smallestRegion }),
      ...(settings.severance ? { severance: settings.severance } : {}),
      ...(bank ? { bank: BANK_FILE, bank_weight: settings.bankWeight ?? FITTED_WEIGHT } : {}),
    },
  };
}

const round = (value: number, digits: number): number => Number(value.toFixed(digits));

function boxesOf(map: PixelMap, width: number, height: number, count: number): { box: number[]; area: number }[] {
  const result = Array.from({ length: count }, () => ({ box: [width, height, 0, 0], area: 0 }));
  for (let y = 0, at = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const value = map[at++];
      if (!value) continue;
      const entry = result[value - 1];
      const { box } = entry;
      entry.area++;
      if (x < box[0]) box[0] = x;
      if (y < box[1]) box[1] = y;
      if (x >= box[2]) box[2] = x + 1;
      if (y >= box[3]) box[3] = y + 1;
    }
  return result;
}

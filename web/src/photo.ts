/** Reading photos: files that are dropped, pasted or chosen, and the samples. */

import type { Photo } from "./engine/types";

export const SAMPLES: readonly { id: string; file: string; title: string; names: readonly string[] }[] = [
  { id: "pagoda", file: "pagoda.jpg", title: "a pagoda above a lake", names: ["sky", "pagoda|temple", "tree", "lake|sea"] },
  { id: "chelsea", file: "chelsea.png", title: "a cat", names: ["cat", "background"] },
  { id: "coffee", file: "coffee.jpg", title: "a cup of coffee", names: ["coffee cup", "wooden table"] },
  { id: "rocket", file: "rocket.jpg", title: "a rocket launch", names: ["sky", "tower"] },
];

/** Photos are shown at no more than this, pixels on the longer side; results have the photo's own size. */
export const SHOWN_LONGEST = 2048;

export class PhotoError extends Error {}

export interface ShownPhoto extends Photo {
  /** The photo, at no more than `SHOWN_LONGEST`. */
  readonly bitmap: ImageBitmap;
  /** The photo at its own size; the caller closes it. */
  full(): Promise<ImageBitmap>;
}

const NAMES: [test: RegExp, what: string][] = [
  [/^text\/|json|\.(txt|md|csv|json|html?)$/i, "a text file"],
  [/^video\//i, "a video; use “deop segment” for videos"],
  [/^audio\//i, "a sound"],
  [/pdf/i, "a PDF"],
  [/zip|tar|compressed/i, "an archive"],
];

/**
 * Decodes a file, upright as its metadata says.
 *
 * @throws PhotoError naming the file: no photo, damaged, of a type this browser cannot read, or too large.
 */
export async function readPhoto(file: Blob, name: string, maxPixels: number): Promise<ShownPhoto> {
  if (!file.size) throw new PhotoError(`${name} is empty.`);
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    const other = NAMES.find(([test]) => test.test(file.type) || test.test(name));
    if (other) throw new PhotoError(`${name} is ${other[1]}, not a photo.`);
    throw new PhotoError(`${name} cannot be read: it is damaged, or of a type that this browser does not know. JPEG, PNG and WebP work.`);
  }
  const { width, height } = bitmap;
  if (width * height > maxPixels) {
    bitmap.close();
    throw new PhotoError(`${name} has ${Math.round((width * height) / 1e6)} megapixels; at most ${Math.floor(maxPixels / 1e6)} are possible here.`);
  }
  const longer = Math.max(width, height);
  if (longer > SHOWN_LONGEST) {
    const full = bitmap;
    bitmap = await createImageBitmap(full, { ...fitted(width, height, SHOWN_LONGEST), resizeQuality: "high" });
    full.close();
  }
  const pixels = async (longest = Infinity): Promise<ImageData> => {
    const source = longest <= SHOWN_LONGEST || longer <= SHOWN_LONGEST ? bitmap : await createImageBitmap(file);
    const { resizeWidth, resizeHeight } = fitted(width, height, longest);
    const context = new OffscreenCanvas(resizeWidth, resizeHeight).getContext("2d", { willReadFrequently: true })!;
    context.imageSmoothingQuality = "high";
    context.drawImage(source, 0, 0, resizeWidth, resizeHeight);
    if (source !== bitmap) source.close();
    return context.getImageData(0, 0, resizeWidth, resizeHeight);
  };
  return { name, file, width, height, bitmap, pixels, full: () => createImageBitmap(file) };
}

function fitted(width: number, height: number, longest: number): { resizeWidth: number; resizeHeight: number } {
  const factor = Math.min(1, longest / Math.max(width, height));
  return { resizeWidth: Math.max(1, Math.round(width * factor)), resizeHeight: Math.max(1, Math.round(height * factor)) };
}

export async function readSample(id: string, maxPixels: number): Promise<ShownPhoto> {
  const sample = SAMPLES.find((entry) => entry.id === id);
  if (!sample) throw new PhotoError(`There is no sample “${id}”.`);
  let answer: Response;
  try {
    answer = await fetch(`samples/${sample.file}`);
  } catch {
    throw new PhotoError(`The sample ${sample.file} cannot be read: the server does not answer.`);
  }
  if (!answer.ok) throw new PhotoError(`The sample ${sample.file} is missing.`);
  return readPhoto(await answer.blob(), sample.file, maxPixels);
}

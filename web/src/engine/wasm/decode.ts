/** Photos as the model sees them: upright as their EXIF says, colours as they are in the file, over white. */

import { EngineError } from "../types";
import { type Canvas, canvasOf } from "./canvas";
import type { ModelConfig } from "./config";
import { normalise, resizePhoto } from "./resize";

/**
 * The input of the networks for a photo; the photo itself is only read in strips.
 *
 * @param take receives the RGB pixels of some rows after the other
 */
export async function readPixels(file: Blob, config: ModelConfig, take?: (rows: Uint8Array) => void): Promise<{ canvas: Canvas; pixels: Float32Array }> {
  let bitmap: ImageBitmap;
  try {
    // Colour profiles are not applied, as in Python: the model was trained without them.
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    throw new EngineError("The photo cannot be decoded: it is damaged, or too large for the memory of this browser.");
  }
  try {
    const canvas = canvasOf(bitmap, config);
    const rows = 256;
    const surface = new OffscreenCanvas(bitmap.width, Math.min(rows, bitmap.height));
    const context = surface.getContext("2d", { willReadFrequently: true });
    if (!context) throw new EngineError("The photo does not fit in the memory of this browser.");
    const read = (first: number, count: number): Uint8ClampedArray => {
      context.fillStyle = "#fff";
      context.fillRect(0, 0, surface.width, surface.height);
      context.drawImage(bitmap, 0, first, bitmap.width, count, 0, 0, bitmap.width, count);
      const { data } = context.getImageData(0, 0, bitmap.width, count);
      take?.(withoutAlpha(data));
      return data;
    };
    const resized = resizePhoto(bitmap, canvas.resized, read, rows);
    const { height, width } = bitmap;
    return { canvas: { ...canvas, photo: { height, width } }, pixels: normalise(resized, canvas, config.mean, config.std) };
  } finally {
    bitmap.close();
  }
}

function withoutAlpha(pixels: Uint8ClampedArray): Uint8Array {
  const result = new Uint8Array((pixels.length / 4) * 3);
  for (let from = 0, to = 0; from < pixels.length; from += 4, to += 3) {
    result[to] = pixels[from];
    result[to + 1] = pixels[from + 1];
    result[to + 2] = pixels[from + 2];
  }
  return result;
}

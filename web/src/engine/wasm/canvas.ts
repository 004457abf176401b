/** Sizes of a photo on its way through the networks: `deop.images.canvas`, `deop.images.preprocessing`. */

import type { ModelConfig } from "./config";

export interface Size {
  readonly height: number;
  readonly width: number;
}

export interface Canvas {
  readonly photo: Size;
  /** As resized for the networks. */
  readonly resized: Size;
  /** The networks' input, padded at the bottom and the right. */
  readonly padded: Size;
}

type Rule = Pick<ModelConfig, "shortSide" | "longSide" | "divisor" | "multiple" | "smallest">;

/** First by the shorter side, then limited by the longer; rounded half up. */
export function resizedSize({ height, width }: Size, { shortSide, longSide }: Rule): Size {
  if (shortSide === null) return { height, width };
  const scale = shortSide / Math.min(height, width);
  let [newHeight, newWidth] = height < width ? [shortSide, scale * width] : [scale * height, shortSide];
  const longer = Math.max(newHeight, newWidth);
  if (longer > longSide) [newHeight, newWidth] = [newHeight * (longSide / longer), newWidth * (longSide / longer)];
  return { height: Math.max(1, Math.floor(newHeight + 0.5)), width: Math.max(1, Math.floor(newWidth + 0.5)) };
}

export function canvasOf(photo: Size, rule: Rule): Canvas {
  const resized = resizedSize(photo, rule);
  const step = Math.max(rule.divisor, rule.multiple);
  const pad = (side: number): number => Math.max(rule.smallest, Math.ceil(side / step) * step);
  return { photo, resized, padded: { height: pad(resized.height), width: pad(resized.width) } };
}

/** The names that are written on a picture: their plates, on the page and in files. */

import type { Prepared, Size, View } from "./draw";
import type { Colour, Labelling } from "./engine/types";
import { placeNames, type Place } from "./name_places";

export interface Plate extends Place {
  readonly text: string;
  /** Dark, with the tint of the region. */
  readonly ground: string;
}

const FAMILY = 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif';
const LONGEST = 28; // letters

/** Size of letters on a picture that is downloaded, as `deop.results` has it. */
export const letterSize = ({ width, height }: Size): number => Math.max(10, 0.85 * Math.max(12, 0.026 * Math.sqrt(width * height)));

const font = (letters: number): string => `500 ${letters}px ${FAMILY}`;
let measuring: OffscreenCanvasRenderingContext2D | null = null;

/**
 * The plates of a result at the size of its picture.
 *
 * @param letters size of letters, pixels of the picture
 */
export function plates(labelling: Labelling, prepared: Prepared, view: View, letters: number): Plate[] {
  measuring ??= new OffscreenCanvas(1, 1).getContext("2d")!;
  const context = measuring;
  context.font = font(letters);
  const names = labelling.classes.map(({ name }) => (name.length > LONGEST ? `${name.slice(0, LONGEST - 1)}…` : name));
  const widths = names.map((name) => context.measureText(name).width + 1.2 * letters);
  const isShown = (k: number): boolean => (view.isolated === null ? !view.hidden.has(k) : view.isolated === k);
  const candidates = prepared.classOf.flatMap((k, s) => (isShown(k) ? [{ id: s + 1, isThing: labelling.classes[k].isThing, width: widths[k], height: 1.75 * letters }] : []));
  return placeNames(prepared.ids, prepared, candidates).map((place) => {
    const k = prepared.classOf[place.id - 1];
    return { ...place, text: names[k], ground: tinted(prepared.colours[place.id - 1]) };
  });
}

const tinted = (colour: Colour): string => `rgb(${colour.map((value) => Math.round(0.22 * value)).join(" ")} / 82%)`;

/** Draws plates into a picture. */
export function drawPlates(context: OffscreenCanvasRenderingContext2D, all: readonly Plate[], letters: number): void {
  context.font = font(letters);
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (const { x, y, text, ground } of all) {
    const [width, height] = [context.measureText(text).width + 1.2 * letters, 1.75 * letters];
    context.fillStyle = ground;
    context.beginPath();
    context.roundRect(x - width / 2, y - height / 2, width, height, height / 2);
    context.fill();
    context.fillStyle = "#fff";
    context.fillText(text, x, y + 0.04 * letters);
  }
}

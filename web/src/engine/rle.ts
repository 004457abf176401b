/** COCO's run lengths: columns from the left, each from the top; the first run is outside the mask. */

import type { PixelMap } from "./types";

/** The counts that COCO's compressed form holds: 5 bits a letter, differences to the count two before. */
export function decompressCounts(text: string): number[] {
  const counts: number[] = [];
  for (let at = 0; at < text.length; ) {
    let value = 0;
    let shift = 0;
    let code: number;
    do {
      code = text.charCodeAt(at++) - 48;
      if (!(code >= 0 && code < 64)) throw new RangeError("the run lengths are damaged");
      value += (code & 31) * 2 ** shift;
      shift += 5;
    } while (code & 32);
    if (code & 16) value -= 2 ** shift;
    counts.push(counts.length > 2 ? value + counts[counts.length - 2] : value);
  }
  return counts;
}

/** The compressed form of counts. */
export function compressCounts(counts: readonly number[]): string {
  let text = "";
  counts.forEach((count, index) => {
    let value = index > 2 ? count - counts[index - 2] : count;
    for (let more = true; more; ) {
      const code = value & 31;
      value >>= 5;
      more = !((value === 0 && !(code & 16)) || (value === -1 && code & 16));
      text += String.fromCharCode(code + (more ? 32 : 0) + 48);
    }
  });
  return text;
}

/** Writes `value` into `map` wherever the mask is set. Returns the number of pixels of the mask. */
export function paintCounts(map: PixelMap | Uint8Array, width: number, height: number, counts: readonly number[], value: number): number {
  let position = 0;
  let area = 0;
  for (let run = 0; run < counts.length; run++) {
    const end = position + counts[run];
    if (!(counts[run] >= 0) || end > width * height) throw new RangeError("the run lengths do not fit the photo");
    if (run & 1) {
      for (let at = position, x = Math.floor(at / height), y = at - x * height; at < end; at++) {
        map[y * width + x] = value;
        if (++y === height) {
          y = 0;
          x++;
        }
      }
      area += counts[run];
    }
    position = end;
  }
  if (position !== width * height) throw new RangeError("the run lengths do not fit the photo");
  return area;
}

/** The counts of the pixels of a map that equal `value`. */
export function countsOf(map: PixelMap, width: number, height: number, value: number): number[] {
  const counts: number[] = [];
  let inside = false;
  let run = 0;
  for (let x = 0; x < width; x++) {
    for (let y = 0, at = x; y < height; y++, at += width) {
      if ((map[at] === value) !== inside) {
        counts.push(run);
        run = 0;
        inside = !inside;
      }
      run++;
    }
  }
  counts.push(run);
  return counts;
}

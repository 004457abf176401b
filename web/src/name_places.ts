/** Where names are written on the regions of a picture: where they fit, never over each other; as `deop.results.name_labels`. */

import type { Size } from "./draw";
import type { PixelMap } from "./engine/types";

export interface Candidate {
  /** Its value in the map. */
  readonly id: number;
  readonly isThing: boolean;
  /** Size of its plate, pixels of the map. */
  readonly width: number;
  readonly height: number;
}

export interface Place {
  readonly id: number;
  /** The centre, pixels of the map. */
  readonly x: number;
  readonly y: number;
}

const GRID = 160; // cells on the longer side, among which places are compared
const MOST = 60;
const COVERED = 0.7; // share of a plate that must lie on its region
const COVERED_THING = 0.4;

/** Places for the plates of regions, the largest region first; those that fit nowhere have none. */
export function placeNames(map: PixelMap, size: Size, candidates: readonly Candidate[]): Place[] {
  const step = Math.ceil(Math.max(size.width, size.height) / GRID);
  const [columns, rows] = [Math.ceil(size.width / step), Math.ceil(size.height / step)];
  const cells = new Int32Array(columns * rows);
  const areas = new Map<number, number>();
  const half = step >> 1;
  for (let y = 0, at = 0; y < rows; y++)
    for (let x = 0; x < columns; x++, at++) {
      const id = map[Math.min(size.height - 1, y * step + half) * size.width + Math.min(size.width - 1, x * step + half)];
      cells[at] = id;
      areas.set(id, (areas.get(id) ?? 0) + 1);
    }
  const area = ({ id }: Candidate): number => areas.get(id) ?? 0;
  const order = candidates.filter(area).sort((a, b) => area(b) - area(a) || a.id - b.id);
  const taken: { x: number; y: number; width: number; height: number }[] = [];
  const places: Place[] = [];
  const sums = new Int32Array((columns + 1) * (rows + 1));
  for (const { id, isThing, width, height } of order.slice(0, MOST)) {
    if (width > size.width || height > size.height) continue;
    let [left, right, top, bottom] = [columns, -1, rows, -1];
    for (let y = 0, at = 0; y < rows; y++)
      for (let x = 0, row = 0; x < columns; x++, at++) {
        if (cells[at] === id) {
          row++;
          [left, right, top, bottom] = [Math.min(left, x), Math.max(right, x), Math.min(top, y), y];
        }
        sums[(y + 1) * (columns + 1) + x + 1] = sums[y * (columns + 1) + x + 1] + row;
      }
    /** The share of a box around a cell that lies on the region; a box beyond the picture is moved inside. */
    const share = (x: number, y: number, boxWidth: number, boxHeight: number): number => {
      const [w, h] = [Math.min(columns, 2 * Math.round(boxWidth / 2 / step) + 1), Math.min(rows, 2 * Math.round(boxHeight / 2 / step) + 1)];
      const x0 = Math.min(columns - w, Math.max(0, x - (w >> 1)));
      const y0 = Math.min(rows - h, Math.max(0, y - (h >> 1)));
      const [upper, lower] = [y0 * (columns + 1), (y0 + h) * (columns + 1)];
      return (sums[lower + x0 + w] - sums[upper + x0 + w] - sums[lower + x0] + sums[upper + x0]) / (w * h);
    };
    const inside = (value: number, extent: number, length: number): number => Math.min(length - extent / 2, Math.max(extent / 2, value));
    const [middleX, middleY] = [((left + right + 1) / 2) * step, ((top + bottom + 1) / 2) * step];
    let best: Place | null = null;
    let highest = 0;
    for (let y = top; y <= bottom; y++)
      for (let x = left; x <= right; x++) {
        const covered = share(x, y, width, height);
        if (covered < (isThing ? COVERED_THING : COVERED)) continue;
        let value = covered;
        for (const factor of [2, 4, 8]) value += 0.4 * share(x, y, width + (factor - 1) * height, factor * height);
        const [centreX, centreY] = [(x + 0.5) * step, (y + 0.5) * step];
        value -= (0.2 * Math.hypot(centreX - middleX, centreY - middleY)) / Math.max(size.width, size.height);
        if (value <= highest) continue;
        const place = { id, x: inside(centreX, width, size.width), y: inside(centreY, height, size.height) };
        if (taken.some((other) => 2 * Math.abs(other.x - place.x) < other.width + width && 2 * Math.abs(other.y - place.y) < other.height + height)) continue;
        [best, highest] = [place, value];
      }
    if (!best) continue;
    places.push(best);
    taken.push({ ...best, width, height });
  }
  return places;
}

/** From a map of names to things and stuff: `deop.labelling.maps`. */

import { absorbSmallRegions, connectedRegions, type Runs } from "./regions";
import { joinPieces, type MaskCells } from "./same_thing";

export interface Piece {
  readonly name: number;
  /** In [0, 1], before calibration. */
  readonly score: number;
  readonly isThing: boolean;
  /** Pixels. */
  readonly area: number;
  /** Left, top, right, bottom. */
  readonly box: readonly [number, number, number, number];
}

export interface Pieces {
  readonly runs: Runs;
  /** The piece of each run; -1: none. */
  readonly piece: Int32Array;
  readonly pieces: readonly Piece[];
}

/**
 * Divides the pixels of each thing into connected pieces, and joins those of one name in one mask; all pixels of a kind
 * of stuff are one piece. Their score is the mean confidence of their pixels.
 *
 * @param smallest pixels; smaller pieces of things get the label of their surroundings
 * @param stuff the kinds of stuff that are pieces; pixels of the others get none. Null: all
 * @param cells which mask covers which part of the photo. Null: only connected pieces are one thing
 */
export function divideThings(map: Runs, things: readonly boolean[], smallest: number, stuff: readonly boolean[] | null, cells: MaskCells | null = null): Pieces {
  const runs = absorbSmallRegions(map, (label) => (label >= 0 && things[label] ? smallest : 0));
  const regions = connectedRegions(runs);
  const root = cells && joinPieces(runs, regions, cells);
  const number = new Int32Array(regions.count).fill(-1);
  const ofStuff = new Map<number, number>();
  const found: { name: number; area: number; sum: number; isThing: boolean }[] = [];
  for (let r = 0; r < regions.count; r++) {
    const name = regions.labels[r];
    if (name < 0 || (!things[name] && stuff && !stuff[name])) continue;
    let index = things[name] ? (root && root[r] < r ? number[root[r]] : undefined) : ofStuff.get(name);
    if (index === undefined) {
      index = found.push({ name, area: 0, sum: 0, isThing: things[name] }) - 1;
      if (!things[name]) ofStuff.set(name, index);
    }
    number[r] = index;
    found[index].area += regions.areas[r];
    found[index].sum += regions.sums[r];
  }
  const piece = regions.region.map((r) => number[r]);
  return withBoxes(runs, piece, found.map(({ name, area, sum, isThing }) => ({ name, isThing, score: Math.min(1, sum / area) })));
}

/** Gives the pixels of no piece to the name of everything else. */
export function labelRest({ runs, piece, pieces }: Pieces, name: number): Pieces {
  if (!piece.includes(-1)) return { runs, piece, pieces };
  const there = pieces.findIndex((each) => each.name === name);
  const place = there < 0 ? pieces.length : there;
  const all = there < 0 ? [...pieces, { name, score: 0, isThing: false }] : pieces;
  return withBoxes(runs, piece.map((index) => (index < 0 ? place : index)), all);
}

const byBox = (a: Piece, b: Piece): number => a.box.map((value, i) => value - b.box[i]).find(Boolean) ?? 0;

/** The largest first, and those of one area by name. */
export const largestFirst = (divided: Pieces, names: readonly string[]): Pieces =>
  reorder(divided, divided.pieces.map((_, index) => index), (a, b) => b.area - a.area || compare(names[a.name], names[b.name]) || byBox(a, b));

/** Drops the things whose score is below `least`. */
export const dropWeakThings = (divided: Pieces, least: number): Pieces =>
  reorder(divided, divided.pieces.flatMap(({ isThing, score }, index) => (!isThing || score >= least ? [index] : [])), () => 0);

/** The things alone, the best first. */
export const onlyThings = (divided: Pieces): Pieces =>
  reorder(divided, divided.pieces.flatMap(({ isThing }, index) => (isThing ? [index] : [])), (a, b) => b.score - a.score || b.area - a.area || byBox(a, b));

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

/** Keeps some pieces, in an order. */
function reorder({ runs, piece, pieces }: Pieces, kept: readonly number[], first: (a: Piece, b: Piece) => number): Pieces {
  const order = [...kept].sort((a, b) => first(pieces[a], pieces[b]));
  const number = new Int32Array(pieces.length).fill(-1);
  order.forEach((index, place) => (number[index] = place));
  return { runs, piece: piece.map((index) => (index < 0 ? -1 : number[index])), pieces: order.map((index) => pieces[index]) };
}

function withBoxes(runs: Runs, piece: Int32Array, pieces: readonly Pick<Piece, "name" | "score" | "isThing">[]): Pieces {
  const { starts, width } = runs;
  const boxes = pieces.map(() => [Infinity, Infinity, 0, 0] as [number, number, number, number]);
  const areas = new Float64Array(pieces.length);
  piece.forEach((index, run) => {
    if (index < 0) return;
    const box = boxes[index];
    const [x, y, length] = [starts[run] % width, Math.floor(starts[run] / width), starts[run + 1] - starts[run]];
    box[0] = Math.min(box[0], x);
    box[1] = Math.min(box[1], y);
    box[2] = Math.max(box[2], x + length);
    box[3] = Math.max(box[3], y + 1);
    areas[index] += length;
  });
  return { runs, piece, pieces: pieces.map((each, index) => ({ ...each, area: areas[index], box: boxes[index] })) };
}

/** Embeddings of example regions by name, in an order that does not depend on how they were added: `deop.bank.bank`. */

import { synonyms } from "../../../names";
import { EngineError } from "../../types";
import { caseFold } from "../folding";

const MAX_REGIONS = 100_000;

/** The name of unmarked regions of example photos: they only show what else there is. */
export const UNMARKED = "";
/** What the name of a negative example begins with. */
export const NOT = "-";

export interface Bank {
  /** Channels C. */
  readonly width: number;
  /** Names, sorted; "cup|mug" has synonyms, "-cup" is for regions that are not a cup, "" for unmarked regions. */
  readonly names: readonly string[];
  /** Digests of the example photos, sorted. */
  readonly photos: readonly string[];
  /** (R, C) float16 in rows, L2-normalised. */
  readonly regions: Uint16Array;
  /** Index of the name of each region. */
  readonly nameOf: Int32Array;
  /** Index of its photo. */
  readonly photoOf: Int32Array;
  /** 1 for a marked region itself, 0 for a proposal inside one. */
  readonly marked: Uint8Array;
  /** Share of the photo that each region covers. */
  readonly area: Float32Array;
}

export const emptyBank = (width: number): Bank => ({ width, names: [], photos: [], regions: new Uint16Array(), nameOf: new Int32Array(), photoOf: new Int32Array(), marked: new Uint8Array(), area: new Float32Array() });

/** The synonyms of a name, in lower case; those of a negative name keep its sign. */
export function textsOf(name: string): string[] {
  const sign = name.startsWith(NOT) ? NOT : "";
  return synonyms(name.slice(sign.length)).map((text) => sign + caseFold(text));
}

/** Orders texts by their characters, as Python does, and not by UTF-16. */
function byCharacters(first: string, second: string): number {
  const [a, b] = [Array.from(first), Array.from(second)];
  for (let i = 0; i < Math.min(a.length, b.length); i++) if (a[i] !== b[i]) return a[i].codePointAt(0)! - b[i].codePointAt(0)!;
  return a.length - b.length;
}

/**
 * One bank with the examples of several: sorted, without repetitions, and without unmarked regions that other examples
 * of their photo name.
 *
 * @throws EngineError names that share a synonym without being the same, or too many regions
 */
export function joinBanks(banks: readonly Bank[]): Bank {
  const width = banks[0].width;
  const total = banks.reduce((sum, bank) => sum + bank.nameOf.length, 0);
  const [names, photos] = [texts(banks.map((bank) => [bank.names, bank.nameOf])), texts(banks.map((bank) => [bank.photos, bank.photoOf]))];
  refuseClashes(names.sorted);
  const regions = new Uint16Array(total * width);
  const [marked, area] = [new Uint8Array(total), new Float32Array(total)];
  let at = 0;
  for (const bank of banks) {
    regions.set(bank.regions, at * width);
    marked.set(bank.marked, at);
    area.set(bank.area, at);
    at += bank.nameOf.length;
  }
  const keys = rowKeys(regions, width);
  const columns: ArrayLike<number>[] = [names.index, photos.index, keys[2], keys[3], keys[0], keys[1], marked.map((flag) => 1 - flag), area];
  const order = Uint32Array.from({ length: total }, (_, row) => row).sort((a, b) => {
    for (const column of columns) if (column[a] !== column[b]) return column[a] - column[b];
    return 0;
  });
  const equal = (a: number, b: number): boolean => photos.index[a] === photos.index[b] && regions.subarray(a * width, (a + 1) * width).every((bits, c) => bits === regions[b * width + c]);
  const named = new Set<string>();
  const keyOf = (row: number): string => `${photos.index[row]} ${keys[0][row]} ${keys[1][row]} ${keys[2][row]} ${keys[3][row]}`;
  for (let row = 0; row < total; row++) if (names.sorted[names.index[row]] !== UNMARKED) named.add(keyOf(row));
  const kept: number[] = [];
  for (const row of order) {
    const last = kept[kept.length - 1];
    if (last !== undefined && names.index[last] === names.index[row] && equal(last, row)) continue;
    if (names.sorted[names.index[row]] === UNMARKED && named.has(keyOf(row))) continue;
    kept.push(row);
  }
  if (kept.length > MAX_REGIONS) throw new EngineError(`The bank would have ${kept.length.toLocaleString("en")} regions, and the limit is ${MAX_REGIONS.toLocaleString("en")}. Use fewer examples.`);
  return select({ width, names: names.sorted, photos: photos.sorted, regions, nameOf: names.index, photoOf: photos.index, marked, area }, kept);
}

/** A bank with some of the regions only, and the names and photos that they need. */
export function select(bank: Bank, rows: readonly number[]): Bank {
  const { width, regions } = bank;
  const used = (texts: readonly string[], index: Int32Array): { texts: string[]; index: Int32Array } => {
    const seen = new Set(rows.map((row) => index[row]));
    const places = texts.map((_, place) => place).filter((place) => seen.has(place));
    const place = new Map(places.map((old, now) => [old, now]));
    return { texts: places.map((old) => texts[old]), index: Int32Array.from(rows, (row) => place.get(index[row])!) };
  };
  const [names, photos] = [used(bank.names, bank.nameOf), used(bank.photos, bank.photoOf)];
  const halves = new Uint16Array(rows.length * width);
  rows.forEach((row, place) => halves.set(regions.subarray(row * width, (row + 1) * width), place * width));
  const [marked, area] = [Uint8Array.from(rows, (row) => bank.marked[row]), Float32Array.from(rows, (row) => bank.area[row])];
  return { width, names: names.texts, photos: photos.texts, regions: halves, nameOf: names.index, photoOf: photos.index, marked, area };
}

/** Which of the K names of a vocabulary each name of the bank is: K for a background name, -1 for one that is not asked. */
export function columnsOf(bank: Bank, vocabulary: { readonly synonyms: readonly (readonly string[])[]; readonly names: readonly string[]; readonly background: readonly string[] }): Int32Array {
  const count = vocabulary.names.length;
  const place = new Map(vocabulary.synonyms.flatMap((list, k) => list.map((text) => [caseFold(text), k] as const)));
  for (const text of vocabulary.background) place.set(caseFold(text), count);
  return Int32Array.from(bank.names, (name) => {
    const positive = name.startsWith(NOT) ? name.slice(NOT.length) : name;
    const found = [...new Set(textsOf(positive).flatMap((text) => place.get(text) ?? []))].sort((a, b) => a - b);
    if (found.length > 1) {
      const [first, second] = found.map((k) => (k < count ? `“${vocabulary.names[k]}”` : "the background"));
      throw new EngineError(`${first} and ${second} are one name of the examples, “${name}”. Join them with “|”, or remove one of them.`);
    }
    return found[0] ?? -1;
  });
}

/** For each name the number of its regions and of the photos that they are from. */
export function countsOf(bank: Bank): { name: string; regions: number; photos: number }[] {
  const found = bank.names.map(() => ({ regions: 0, photos: new Set<number>() }));
  bank.nameOf.forEach((name, row) => {
    found[name].regions++;
    found[name].photos.add(bank.photoOf[row]);
  });
  return bank.names.map((name, place) => ({ name, regions: found[place].regions, photos: found[place].photos.size }));
}

/** The texts of several lists, each once in upper or lower case, sorted; and the place of each entry that refers to them. */
function texts(lists: readonly (readonly [readonly string[], Int32Array])[]): { sorted: string[]; index: Int32Array } {
  const spelling = new Map<string, string>();
  for (const text of lists.flatMap(([list, index]) => usedOf(list, index)).sort(byCharacters)) if (!spelling.has(caseFold(text))) spelling.set(caseFold(text), text);
  const keys = [...spelling.keys()].sort(byCharacters);
  const place = new Map(keys.map((key, at) => [key, at]));
  return { sorted: keys.map((key) => spelling.get(key)!), index: Int32Array.from(lists.flatMap(([list, index]) => Array.from(index, (at) => place.get(caseFold(list[at]))!))) };
}

/** The texts that something refers to. */
function usedOf(list: readonly string[], index: Int32Array): string[] {
  const used = new Set(index);
  return list.filter((_, place) => used.has(place));
}

function refuseClashes(names: readonly string[]): void {
  const owner = new Map<string, string>();
  for (const name of names)
    for (const text of textsOf(name)) {
      const other = owner.get(text) ?? name;
      if (other !== name) throw new EngineError(`The examples have the names “${other}” and “${name}”, which share a word but are not the same. Use one spelling for both.`);
      owner.set(text, name);
    }
}

/** Two numbers of 64 bits for each row, each as its upper and lower half, by which rows are sorted. */
function rowKeys(regions: Uint16Array, width: number): [Uint32Array, Uint32Array, Uint32Array, Uint32Array] {
  const count = regions.length / width;
  const keys: [Uint32Array, Uint32Array, Uint32Array, Uint32Array] = [new Uint32Array(count), new Uint32Array(count), new Uint32Array(count), new Uint32Array(count)];
  for (const part of [0, 1]) {
    // The factors in pieces of 16 bits, so that sums of products are exact in a double.
    const pieces = [0n, 16n, 32n, 48n].map((shift) => Float64Array.from({ length: width }, (_, c) => Number((((BigInt(part * width + c + 1) * 0x9e3779b97f4a7c15n) | 1n) >> shift) & 0xffffn)));
    for (let row = 0; row < count; row++) {
      const sums = [0, 0, 0, 0];
      for (let c = 0, at = row * width; c < width; c++, at++) for (let piece = 0; piece < 4; piece++) sums[piece] += regions[at] * pieces[piece][c];
      const low = sums[0] + (sums[1] % 65536) * 65536;
      const high = Math.floor(low / 2 ** 32) + Math.floor(sums[1] / 65536) + sums[2] + (sums[3] % 65536) * 65536;
      keys[2 * part][row] = high % 2 ** 32;
      keys[2 * part + 1][row] = low % 2 ** 32;
    }
  }
  return keys;
}

/** Names scored by words and examples together: `deop.bank.scoring`. */

import { FITTED_WEIGHT } from "../../../settings";
import type { Vocabulary } from "../vocabulary";
import { type Bank, columnsOf, NOT } from "./bank";
import { fitWeights, oddsOf, type Weights } from "./fitting";
import { rowsOf } from "./half";
import { centred, centreOf, evidenceOf, logSum, type Matrix, meanKernels } from "./kernels";

const ALIKE = 0.999; // cosine from which a region equals an example
const FITTED_ON = 1000; // regions of the bank that the weights are fitted on
const CERTAIN = 10; // logit by which a region that equals an example prefers its name
const NOTHING_SIMILAR = -2; // log kernel that counts as similar where there is nothing to compare with
const NO_WORD = 3; // logit of a name without a word, below all names together

/** Logits (N, K + 1) of regions (N, C) by words alone; the last column is "none of these". */
export type Score = (regions: Float32Array) => Float32Array;

/** The examples of a bank for K names; groups belong to a column: K is the background, K + 1 everything else. */
export interface Prepared {
  readonly width: number;
  /** (R, C), centred and L2-normalised, one group after the other. */
  readonly regions: Float32Array;
  /** (C,), what the embeddings of the bank have in common. */
  readonly centre: Float32Array;
  readonly starts: readonly number[];
  /** The column of each group. */
  readonly columns: readonly number[];
  /** Whether a group has regions that do not have the name of its column. */
  readonly negative: readonly boolean[];
  /** Columns that have no word. */
  readonly wordless: readonly boolean[];
  readonly weights: Weights;
  /** Of the examples, in [0, 1]. */
  readonly weight: number;
}

/** Null if the bank has none of the names, or the weight is 0, so that words alone count. */
export function prepare(bank: Bank, vocabulary: Pick<Vocabulary, "synonyms" | "names" | "background">, score: Score, weight: number): Prepared | null {
  const columns = columnsOf(bank, vocabulary);
  if (!weight || columns.every((column) => column < 0)) return null;
  const [count, { width }] = [vocabulary.names.length, bank];
  const groupOf = bank.names.map((name, place) => {
    const isNegative = name.startsWith(NOT);
    // Everything that is not asked for shows what else there is; negative examples of such names show nothing.
    if (columns[place] < 0) return isNegative ? -1 : 2 * (count + 1);
    return 2 * columns[place] + Number(isNegative);
  });
  const order = Array.from(bank.nameOf.keys())
    .filter((row) => groupOf[bank.nameOf[row]] >= 0)
    .sort((a, b) => groupOf[bank.nameOf[a]] - groupOf[bank.nameOf[b]] || a - b);
  const groupOfRow = order.map((row) => groupOf[bank.nameOf[row]]);
  const starts = groupOfRow.flatMap((group, at) => (at === 0 || group !== groupOfRow[at - 1] ? [at] : []));
  const groups = starts.map((at) => groupOfRow[at]);
  const regions = rowsOf(bank.regions, order, width);
  const known = score(regions.slice(0, width));
  // Else it is a column without rows, such as no background.
  const wordless = Array.from(known, (logit, k) => !Number.isFinite(logit) && groups.some((group) => group >> 1 === k));
  const centre = centreOf(regions, width, order.map((row) => `${bank.photoOf[row]} ${bank.nameOf[row]}`));
  const examples = centred(regions, centre);
  const weights = fit({ width, regions: examples, starts, groups, wordless }, regions, order.map((row) => bank.photoOf[row]), score);
  return { width, regions: examples, centre, starts, columns: groups.map((group) => group >> 1), negative: groups.map((group) => group % 2 === 1), wordless, weights, weight };
}

/**
 * The weights that suit the examples, each judged by those of the other photos.
 *
 * @param plain (R, C), the embeddings as they are
 * @param photos of the regions
 */
function fit({ width, regions, starts, groups, wordless }: Pick<Prepared, "width" | "regions" | "starts" | "wordless"> & { groups: readonly number[] }, plain: Float32Array, photos: readonly number[], score: Score): Weights {
  const count = wordless.length;
  const total = photos.length;
  const sizes = starts.map((at, g) => (starts[g + 1] ?? total) - at);
  const groupOf = sizes.flatMap((size, g) => new Array<number>(size).fill(g));
  let judged = groupOf.flatMap((g, row) => (groups[g] % 2 === 0 ? [row] : []));
  const step = Math.max(1, Math.ceil(judged.length / FITTED_ON));
  judged = judged.filter((_, place) => place % step === 0);
  const rowsOfJudged = (values: Float32Array): Float32Array => {
    const result = new Float32Array(judged.length * width);
    judged.forEach((row, place) => result.set(values.subarray(row * width, (row + 1) * width), place * width));
    return result;
  };
  const rows = rowsOfJudged(regions);
  const truth = judged.map((row) => groups[groupOf[row]] >> 1);
  const all = meanKernels(rows, width, { regions, starts }).logs;
  const others = meanKernels(rows, width, { regions, starts }, { regions: judged.map((row) => photos[row]), examples: photos }).logs;
  const alone = judged.map((row, n) => truth[n] < count && !Number.isFinite(others.values[n * groups.length + groupOf[row]]) && sizes[groupOf[row]] > 1);
  const kernels: Matrix = { columns: count + 1, values: new Float64Array(judged.length * (count + 1)).fill(-Infinity) };
  judged.forEach((row, n) =>
    groups.forEach((group, g) => {
      if (group % 2) return;
      const at = n * groups.length + g;
      const own = g === groupOf[row];
      // Unmarked regions can be judged by their own photo, too: the marked regions there are other regions.
      let log = truth[n] === count ? all.values[at] : others.values[at];
      // A name that only one photo shows is judged by its other regions there, without the region itself.
      if (own && alone[n]) log = Math.log(Math.max(Math.exp(all.values[at]) * sizes[g] - 1, 1e-37) / Math.max(sizes[g] - 1, 1));
      kernels.values[n * (count + 1) + (group >> 1)] = log;
    }),
  );
  const words = withWordless(asMatrix(score(rowsOfJudged(plain)), count), wordless);
  return fitWeights(words, kernels, truth, judged.map((row) => photos[row]), alone);
}

const asMatrix = (values: Float32Array, columns: number): Matrix => ({ columns, values: Float64Array.from(values) });

/** Logits with a value for names without a word: a fixed share of what all other names have together. */
function withWordless(logits: Matrix, wordless: readonly boolean[]): Matrix {
  if (!wordless.some(Boolean)) return logits;
  const values = logits.values.slice();
  for (let at = 0; at < values.length; at += logits.columns) {
    const known = logSum(wordless.flatMap((flag, k) => (flag ? [] : [values[at + k]])));
    wordless.forEach((flag, k) => flag && (values[at + k] = Number.isFinite(known) ? known - NO_WORD : 0));
  }
  return { columns: logits.columns, values };
}

/**
 * The logits of regions by words and examples.
 *
 * @param logits (N, K + 1) by words alone; a name without a word has -Infinity
 * @param regions (N, C), L2-normalised
 */
export function adjust(prepared: Prepared, logits: Float32Array, regions: Float32Array): Float32Array {
  const { columns, negative, wordless, weight, weights, width, centre } = prepared;
  const names = wordless.length; // K + 1
  const { logs, nearest } = meanKernels(centred(regions, centre), width, prepared);
  const base = withWordless(asMatrix(logits, names), wordless);
  const named = columns.filter((column, g) => !negative[g] && column < names);
  const [share, only] = [Math.min(1, weight / FITTED_WEIGHT), Math.max(0, weight / FITTED_WEIGHT - 1)];
  const result = new Float32Array(logits.length);
  const values = new Float64Array(names + 1);
  for (let n = 0; n * names < logits.length; n++) {
    const row = base.values.subarray(n * names, (n + 1) * names);
    const [kernels, cosines] = [logs, nearest].map((matrix) => matrix.values.subarray(n * matrix.columns, (n + 1) * matrix.columns));
    const words = row.slice();
    if (only && named.length) {
      // Words count less than fitted: in part, all names with examples are equal.
      const equal = logSum(named.map((k) => row[k])) - Math.log(named.length);
      for (const k of named) words[k] = (1 - only) * row[k] + only * equal;
    }
    values.fill(-Infinity);
    columns.forEach((column, g) => !negative[g] && (values[column] = kernels[g]));
    const fitted = named.length ? combine(words, values, named, weights) : words.slice();
    columns.forEach((column, g) => {
      if (!negative[g]) return;
      const own = named.includes(column) ? values[column] : Math.max(values[column], NOTHING_SIMILAR);
      fitted[column] -= weights.examples * logSum([0, kernels[g] - own]);
    });
    if (share < 1) for (let k = 0; k < names; k++) if (Number.isFinite(row[k])) fitted[k] = (1 - share) * row[k] + share * fitted[k];
    certain(prepared, fitted, cosines, share);
    result.set(fitted, n * names);
  }
  return result;
}

/** The logits of one region by words and examples; the names with examples divide what they have together. */
function combine(words: Float64Array, kernels: Float64Array, named: readonly number[], weights: Weights): Float64Array {
  const evidence = evidenceOf({ columns: kernels.length, values: kernels }).values;
  const within = named.map((k) => weights.words * words[k] + weights.examples * evidence[k]);
  const rest = logSum(words.filter((_, k) => !named.includes(k)));
  const together = logSum(named.map((k) => words[k]));
  const known = Number.isFinite(rest);
  const odds = oddsOf(weights, known ? together - rest : 0, Math.max(...named.map((k) => kernels[k])));
  const total = known ? rest + odds : together;
  const sum = logSum(within);
  const result = words.slice();
  named.forEach((k, place) => (result[k] = within[place] + total - sum));
  return result;
}

/** A region that equals an example has its name; one that equals a negative example does not have it. */
function certain({ columns, negative, wordless }: Prepared, logits: Float64Array, nearest: Float64Array, share: number): void {
  const top = Math.max(...nearest);
  if (!(top >= ALIKE)) return;
  const equal = columns.map((_, g) => g).filter((g) => nearest[g] >= Math.max(ALIKE, top - 1e-5));
  for (const g of equal) if (negative[g]) logits[columns[g]] -= share * CERTAIN;
  const owners = new Set(equal.filter((g) => !negative[g]).map((g) => columns[g]));
  const [owner] = owners;
  if (owners.size !== 1 || owner >= wordless.length) return; // else the examples contradict each other
  const best = Math.max(...Array.from(logits).filter((value, k) => k !== owner && Number.isFinite(value)));
  if (Number.isFinite(best)) logits[owner] = Math.max(logits[owner], best + share * CERTAIN);
}

/** How much words and examples count: `deop.bank.fitting`. */

import { evidenceOf, logSum, type Matrix } from "./kernels";

const START = [1, 1]; // factors of words and examples without any evidence
const STRENGTH = [9, 0.5]; // marked names of photos that it takes to move them
const START_ODDS = [1, 0.3, 0]; // of words, similarity, 1
const STRENGTH_ODDS = [8, 4, 4]; // names that it takes to move them
const LARGEST_ODDS = 6; // words alone never rule out a name with examples
const LEAST_SIMILAR = -12;
const STRANGERS = 0.95; // share of the regions without a name that are less similar to its examples than "similar"
const STEPS = 30;

export interface Weights {
  /** Factor of the words, among names with examples. */
  readonly words: number;
  /** Factor of the evidence of examples, among these. */
  readonly examples: number;
  /** Factors of the log odds that a region has one of these names: of the odds by words, of similarity, of 1. */
  readonly odds: readonly number[];
  /** Log kernel of the nearest name that adds nothing. */
  readonly similar: number;
}

export const START_WEIGHTS: Weights = { words: START[0], examples: START[1], odds: START_ODDS, similar: -6 };

const between = (value: number, low: number, high: number): number => Math.min(high, Math.max(low, value));
const oddsFeatures = (words: number, nearest: number, similar: number): number[] => [between(words, -LARGEST_ODDS, LARGEST_ODDS), between(nearest, LEAST_SIMILAR, 0) - similar, 1];

/** The log odds that a region has one of the names with examples. */
export function oddsOf({ odds, similar }: Weights, words: number, nearest: number): number {
  const features = oddsFeatures(words, nearest, similar);
  const fitted = features.reduce((sum, feature, p) => sum + feature * odds[p], 0);
  // They exceed those by words at most by what the region is more similar to the examples than others are.
  return Math.min(fitted, features[0] + Math.max(features[1], 0));
}

/**
 * Fits the weights on regions of a bank.
 *
 * @param words (n, K + 1), logits by words
 * @param kernels (n, K + 2), log kernels of the examples of other photos; -Infinity without any. The last column is
 *   everything else that the bank has
 * @param truth the true column of each region; K + 1 is none of the names
 * @param photo its photo
 * @param alone regions of which the kernel of the true name is of examples in the same photo
 */
export function fitWeights(words: Matrix, kernels: Matrix, truth: ArrayLike<number>, photo: ArrayLike<number>, alone: ArrayLike<boolean>): Weights {
  const { columns } = words;
  const evidence = evidenceOf(kernels);
  const row = ({ columns: width, values }: Matrix, n: number): Float64Array => values.subarray(n * width, n * width + columns);
  const all = Array.from({ length: truth.length }, (_, n) => ({ words: row(words, n), kernels: row(kernels, n), evidence: row(evidence, n), truth: truth[n], photo: photo[n], alone: alone[n] }));
  const named = all.filter((each) => each.truth < columns);
  const strangers = all.filter((each) => each.truth >= columns).map((each) => oddsSample(each.words, each.kernels, (k) => Number.isFinite(each.kernels[k])));

  const sizes = new Map<string, number>();
  for (const each of named) sizes.set(`${each.photo} ${each.truth}`, (sizes.get(`${each.photo} ${each.truth}`) ?? 0) + 1);
  const weights = named.map((each) => 1 / sizes.get(`${each.photo} ${each.truth}`)!); // each name counts once a photo
  const has = (each: (typeof named)[number], k: number): boolean => Number.isFinite(each.kernels[k]);
  const within = named.flatMap((each, n) => {
    const present = Array.from({ length: columns }, (_, k) => k).filter((k) => has(each, k));
    return has(each, each.truth) && !each.alone && present.length > 1 ? [{ words: present.map((k) => each.words[k]), evidence: present.map((k) => each.evidence[k]), truth: present.indexOf(each.truth), weight: weights[n] }] : [];
  });
  const [factorWords, factorExamples] = fitWithin(within);

  let shown = named.map((each) => oddsSample(each.words, each.kernels, (k) => has(each, k) && has(each, each.truth)));
  const hidden = named.map((each) => oddsSample(each.words, each.kernels, (k) => has(each, k) && k !== each.truth));
  // Where some names are judged by other photos, only they are: regions of the same photo are too similar.
  const lone = !shown.some(({ usable }, n) => usable && !named[n].alone);
  if (!lone) shown = shown.map((sample, n) => ({ ...sample, usable: sample.usable && !named[n].alone }));
  // For what becomes of other names, each name is one sample, however many photos show it.
  const totals = new Map<number, number>();
  named.forEach((each, n) => totals.set(each.truth, (totals.get(each.truth) ?? 0) + weights[n]));
  const weight = named.map((each, n) => weights[n] / Math.max(totals.get(each.truth)!, 1e-9));
  const usableStrangers = lone ? strangers.filter(({ usable }) => usable) : [];
  const kept = <T>(samples: readonly (OddsSample & T)[]): (OddsSample & { weight: number })[] => samples.flatMap((sample, n) => (sample.usable ? [{ ...sample, weight: weight[n] }] : []));
  const [first, second] = [kept(shown), kept(hidden)];
  const third = usableStrangers.map((sample) => ({ ...sample, weight: 1 / Math.max(1, strangers.filter(({ usable }) => usable).length) }));
  const nearest = [...second, ...third].map((sample) => sample.nearest);
  const similar = nearest.length ? quantile(nearest, STRANGERS) : START_WEIGHTS.similar;
  const odds = fitOdds([...first.map((sample) => ({ ...sample, named: 1 })), ...second.map((sample) => ({ ...sample, named: 0 })), ...third.map((sample) => ({ ...sample, named: 0 }))].map((sample) => ({ features: oddsFeatures(sample.words, sample.nearest, similar), named: sample.named, weight: sample.weight })));
  return { words: factorWords, examples: factorExamples, odds, similar };
}

/** What the odds of the names with examples depend on. */
interface OddsSample {
  /** The log odds by words. */
  readonly words: number;
  /** The log kernel of the nearest name. */
  readonly nearest: number;
  /** Whether names with and names without examples compete. */
  readonly usable: boolean;
}

function oddsSample(words: Float64Array, kernels: Float64Array, isNamed: (k: number) => boolean): OddsSample {
  const [inside, outside]: number[][] = [[], []];
  let nearest = -Infinity;
  words.forEach((value, k) => {
    if (!isNamed(k)) return void outside.push(value);
    inside.push(value);
    nearest = Math.max(nearest, kernels[k]);
  });
  const [together, rest] = [logSum(inside), logSum(outside)];
  const usable = Number.isFinite(together) && Number.isFinite(rest);
  return { words: usable ? together - rest : 0, nearest, usable };
}

/** The value below which a share of the numbers lies, between neighbours linearly, as `numpy.quantile`. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const place = share * (sorted.length - 1);
  const low = Math.floor(place);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] === sorted[high] ? sorted[low] : sorted[low] + (place - low) * (sorted[high] - sorted[low]);
}

/** The factors of words and evidence under which the true names are most likely: a multinomial regression. */
function fitWithin(samples: readonly { words: number[]; evidence: number[]; truth: number; weight: number }[]): number[] {
  if (!samples.length) return START;
  const rows = samples.map(({ words, evidence, truth, weight }) => {
    const top = Math.max(...words);
    // A name that words rule out does not compete.
    const features = words.map((word, k) => (Number.isFinite(word - top) ? [word - top, evidence[k]] : null));
    return { features, truth, weight };
  });
  const logsOf = (features: (number[] | null)[], factors: readonly number[]): number[] => {
    const values = features.map((each) => (each ? each[0] * factors[0] + each[1] * factors[1] : -Infinity));
    const total = logSum(values);
    return values.map((value) => value - total);
  };
  const loss = (factors: readonly number[]): number => rows.reduce((sum, { features, truth, weight }) => sum - weight * logsOf(features, factors)[truth], 0);
  const slopes = (factors: readonly number[]): Slopes => {
    const [first, second] = [[0, 0], [[0, 0], [0, 0]]];
    for (const { features, truth, weight } of rows) {
      const shares = logsOf(features, factors).map(Math.exp);
      const mean = [0, 1].map((p) => features.reduce((sum, each, k) => sum + (each ? shares[k] * each[p] : 0), 0));
      for (const p of [0, 1]) {
        first[p] += weight * (mean[p] - (features[truth]?.[p] ?? 0));
        for (const q of [0, 1]) second[p][q] += weight * (features.reduce((sum, each, k) => sum + (each ? shares[k] * each[p] * each[q] : 0), 0) - mean[p] * mean[q]);
      }
    }
    return { first, second };
  };
  return newton(loss, slopes, START, STRENGTH, [0.05, 0]);
}

/** The factors of the log odds that regions have one of the names with examples: a logistic regression. */
function fitOdds(samples: readonly { features: number[]; named: number; weight: number }[]): number[] {
  const valueOf = (features: readonly number[], factors: readonly number[]): number => features.reduce((sum, feature, p) => sum + feature * factors[p], 0);
  const loss = (factors: readonly number[]): number =>
    samples.reduce((sum, { features, named, weight }) => {
      const value = valueOf(features, factors);
      return sum + weight * (logSum([0, value]) - named * value);
    }, 0);
  const slopes = (factors: readonly number[]): Slopes => {
    const [first, second] = [[0, 0, 0], [[0, 0, 0], [0, 0, 0], [0, 0, 0]]];
    for (const { features, named, weight } of samples) {
      const chance = 1 / (1 + Math.exp(-between(valueOf(features, factors), -500, 500)));
      for (let p = 0; p < 3; p++) {
        first[p] += features[p] * weight * (chance - named);
        for (let q = 0; q < 3; q++) second[p][q] += features[p] * features[q] * weight * chance * (1 - chance);
      }
    }
    return { first, second };
  };
  return newton(loss, slopes, START_ODDS, STRENGTH_ODDS, [0.05, 0, -Infinity]);
}

interface Slopes {
  readonly first: number[];
  readonly second: number[][];
}

/** Minimises a convex loss of a few factors plus a prior around `start`, with a lower limit for each factor. */
function newton(loss: (factors: readonly number[]) => number, slopes: (factors: readonly number[]) => Slopes, start: readonly number[], strength: readonly number[], lowest: readonly number[]): number[] {
  const total = (factors: readonly number[]): number => loss(factors) + factors.reduce((sum, value, p) => sum + 0.5 * strength[p] * (value - start[p]) ** 2, 0);
  let factors = [...start];
  let current = total(factors);
  for (let round = 0; round < STEPS; round++) {
    const { first, second } = slopes(factors);
    factors.forEach((value, p) => {
      first[p] += strength[p] * (value - start[p]);
      second[p][p] += strength[p];
    });
    const free = factors.map((_, p) => p).filter((p) => !(factors[p] <= lowest[p] && first[p] > 0));
    const solved = solve(free.map((p) => free.map((q) => second[p][q])), free.map((p) => -first[p]));
    const step = factors.map((_, p) => (free.includes(p) ? solved[free.indexOf(p)] : 0));
    const moved = (scale: number): number[] => factors.map((value, p) => Math.max(value + scale * step[p], lowest[p]));
    let scale = 1;
    while (scale > 1e-3 && total(moved(scale)) > current) scale /= 2;
    const following = moved(scale);
    const change = Math.max(...following.map((value, p) => Math.abs(value - factors[p])));
    const value = total(following);
    if (value <= current) [factors, current] = [following, value];
    if (change < 1e-6) break;
  }
  return factors;
}

/** The solution of a few linear equations, by elimination with pivots. */
function solve(matrix: number[][], right: number[]): number[] {
  const rows = matrix.map((row, p) => [...row, right[p]]);
  for (let p = 0; p < rows.length; p++) {
    const pivot = rows.reduce((best, row, q) => (q >= p && Math.abs(row[p]) > Math.abs(rows[best][p]) ? q : best), p);
    [rows[p], rows[pivot]] = [rows[pivot], rows[p]];
    for (let q = 0; q < rows.length; q++) {
      if (q === p) continue;
      const factor = rows[q][p] / rows[p][p];
      for (let r = p; r <= rows.length; r++) rows[q][r] -= factor * rows[p][r];
    }
  }
  return rows.map((row, p) => row[rows.length] / row[p]);
}

/** How similar regions are to groups of examples: `deop.bank.kernels`. */

const SHARPNESS = 20;
const SMALLEST = 1e-37;

/** Numbers in rows. */
export interface Matrix {
  readonly columns: number;
  readonly values: Float64Array;
}

/**
 * What the embeddings of a bank have in common: the mean over groups of their means, shrunk towards 0.
 *
 * @param regions (R, C) in rows, L2-normalised
 * @param group of each region, such as one name in one photo
 */
export function centreOf(regions: Float32Array, width: number, group: readonly string[]): Float32Array {
  const counts = new Map<string, number>();
  for (const each of group) counts.set(each, (counts.get(each) ?? 0) + 1);
  const sums = new Float64Array(width);
  group.forEach((each, row) => {
    const share = 1 / counts.get(each)!;
    for (let c = 0, at = row * width; c < width; c++) sums[c] += share * regions[at++];
  });
  return Float32Array.from(sums, (sum) => sum / (counts.size + 1));
}

/** Embeddings without what they have in common, L2-normalised. */
export function centred(regions: Float32Array, centre: Float32Array): Float32Array {
  const width = centre.length;
  const result = new Float32Array(regions.length);
  for (let from = 0; from < regions.length; from += width) {
    let square = 0;
    for (let c = 0; c < width; c++) square += (result[from + c] = regions[from + c] - centre[c]) ** 2;
    const length = Math.max(Math.sqrt(square), 1e-6);
    for (let c = 0; c < width; c++) result[from + c] /= length;
  }
  return result;
}

/** Examples, one group after the other. */
export interface Groups {
  /** (R, C) in rows, L2-normalised. */
  readonly regions: Float32Array;
  /** First example of each group. */
  readonly starts: ArrayLike<number>;
}

/**
 * The logarithm of the mean kernel of each region and each group, and the greatest cosine.
 *
 * @param regions (N, C) in rows
 * @param photos the photos of the regions and of the examples; pairs of one photo do not count
 * @returns two (N, G); a group of which no example counts has a logarithm of -Infinity
 */
export function meanKernels(regions: Float32Array, width: number, examples: Groups, photos?: { regions: ArrayLike<number>; examples: ArrayLike<number> }): { logs: Matrix; nearest: Matrix } {
  const groups = examples.starts.length;
  const count = regions.length / width;
  const total = examples.regions.length / width;
  const logs = new Float64Array(count * groups);
  const nearest = new Float64Array(count * groups);
  for (let n = 0; n < count; n++) {
    const from = n * width;
    for (let g = 0; g < groups; g++) {
      const end = g + 1 < groups ? examples.starts[g + 1] : total;
      let [sum, size, top] = [0, 0, -Infinity];
      for (let r = examples.starts[g]; r < end; r++) {
        if (photos && photos.regions[n] === photos.examples[r]) continue;
        let cosine = 0;
        for (let c = 0, at = r * width; c < width; c++) cosine += regions[from + c] * examples.regions[at++];
        if (cosine > top) top = cosine;
        sum += Math.exp(SHARPNESS * (cosine - 1));
        size++;
      }
      logs[n * groups + g] = size ? Math.log(Math.max(sum, SMALLEST) / size) : -Infinity;
      nearest[n * groups + g] = top;
    }
  }
  return { logs: { columns: groups, values: logs }, nearest: { columns: groups, values: nearest } };
}

/** The log of the mean kernels relative to the mean over the columns; 0 for columns without examples (-Infinity). */
export function evidenceOf({ columns, values }: Matrix): Matrix {
  const result = new Float64Array(values.length);
  for (let at = 0; at < values.length; at += columns) {
    const row = values.subarray(at, at + columns);
    const present = row.reduce((count, value) => count + Number(Number.isFinite(value)), 0);
    const reference = logSum(row) - Math.log(Math.max(present, 1));
    for (let k = 0; k < columns; k++) if (Number.isFinite(row[k])) result[at + k] = row[k] - reference;
  }
  return { columns, values: result };
}

/** log of the sum of exp; -Infinity if all are. */
export function logSum(values: Iterable<number>): number {
  let top = -Infinity;
  for (const value of values) if (value > top) top = value;
  if (!Number.isFinite(top)) return top;
  let sum = 0;
  for (const value of values) sum += Math.exp(value - top);
  return top + Math.log(sum);
}

/** Numbers of 16 bits (float16), as their bits. */

const wide = new Float32Array(1);
const bitsOf = new Uint32Array(wide.buffer);

/** The bits of the nearest float16, ties to even, as numpy rounds. */
export function toHalf(value: number): number {
  wide[0] = value;
  const bits = bitsOf[0];
  const sign = (bits >>> 16) & 0x8000;
  const size = bits & 0x7fffffff;
  if (size >= 0x47800000) return sign | (size > 0x7f800000 ? 0x7e00 : 0x7c00); // not a number; too large
  if (size < 0x38800000) {
    // Subnormal: adding 0.5 rounds at the last bit that is left.
    wide[0] = Math.abs(wide[0]) + 0.5;
    return sign | (bitsOf[0] - 0x3f000000);
  }
  return sign | ((size + 0xc8000fff + ((size >>> 13) & 1)) >>> 13);
}

/** Values of all float16 by their bits. */
const VALUES = Float32Array.from({ length: 65536 }, (_, bits) => {
  const [exponent, fraction] = [(bits >>> 10) & 31, bits & 1023];
  const size = exponent === 31 ? (fraction ? NaN : Infinity) : exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction;
  return bits & 0x8000 ? -size : size;
});

export const toHalves = (values: ArrayLike<number>): Uint16Array => Uint16Array.from({ length: values.length }, (_, i) => toHalf(values[i]));
export const fromHalf = (bits: number): number => VALUES[bits];

/** Some rows of float16 as float32. */
export function rowsOf(halves: Uint16Array, rows: ArrayLike<number>, width: number): Float32Array {
  const result = new Float32Array(rows.length * width);
  for (let place = 0; place < rows.length; place++)
    for (let c = 0, from = rows[place] * width, to = place * width; c < width; c++) result[to++] = VALUES[halves[from++]];
  return result;
}

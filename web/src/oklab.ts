/** Oklab, and colours as colour-blind eyes see them: `deop.results.oklab`. */

type Triple = readonly [number, number, number];
type Matrix = readonly [Triple, Triple, Triple];

const LMS_TO_RGB: Matrix = [
  [4.0767416621, -3.3077115913, 0.2309699292],
  [-1.2684380046, 2.6097574011, -0.3413193965],
  [-0.0041960863, -0.7034186147, 1.707614701],
];
const LAB_TO_LMS: Matrix = [
  [1, 0.3963377774, 0.2158037573],
  [1, -0.1055613458, -0.0638541728],
  [1, -0.0894841775, -1.291485548],
];
const VISIONS: readonly Matrix[] = [
  [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
  [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
  [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
  [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
];

const times = (matrix: Matrix, [x, y, z]: Triple): Triple => {
  const row = ([a, b, c]: Triple): number => a * x + b * y + c * z;
  return [row(matrix[0]), row(matrix[1]), row(matrix[2])];
};

function inverse([[a, b, c], [d, e, f], [g, h, i]]: Matrix): Matrix {
  const determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
  const row = (x: number, y: number, z: number): Triple => [x / determinant, y / determinant, z / determinant];
  return [row(e * i - f * h, c * h - b * i, b * f - c * e), row(f * g - d * i, a * i - c * g, c * d - a * f), row(d * h - e * g, b * g - a * h, a * e - b * d)];
}

const RGB_TO_LMS = inverse(LMS_TO_RGB);
const LMS_TO_LAB = inverse(LAB_TO_LMS);

const each = (values: Triple, f: (value: number) => number): Triple => [f(values[0]), f(values[1]), f(values[2])];
const clip = (value: number): number => Math.min(1, Math.max(0, value));

const decode = (rgb: Triple): Triple =>
  each(rgb, (value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));

const linearToLab = (linear: Triple): Triple => times(LMS_TO_LAB, each(times(RGB_TO_LMS, linear), Math.cbrt));
const labToLinear = (lab: Triple): Triple => times(LMS_TO_RGB, each(times(LAB_TO_LMS, lab), (value) => value ** 3));

export const labToRgb = (lab: Triple): Triple =>
  each(labToLinear(lab), (value) => {
    const linear = clip(value);
    return Math.round((linear <= 0.0031308 ? 12.92 * linear : 1.055 * linear ** (1 / 2.4) - 0.055) * 255);
  });

/** Reduces the chroma of a colour that sRGB does not have, until it has it. */
export function fitGamut([l, a, b]: Triple): Triple {
  const lightness = clip(l);
  let [low, high] = [0, 1];
  for (let step = 0; step < 12; step++) {
    const factor = step === 0 ? high : (low + high) / 2;
    const inside = labToLinear([lightness, a * factor, b * factor]).every((value) => value > -1e-4 && value < 1 + 1e-4);
    if (inside) low = factor;
    else high = factor;
  }
  return [lightness, a * low, b * low];
}

/** A colour, 0 to 255, as four kinds of eyes see it, in Oklab. */
export function seen(rgb: Triple): Triple[] {
  const linear = decode(rgb);
  return VISIONS.map((matrix) => linearToLab(each(times(matrix, linear), clip)));
}

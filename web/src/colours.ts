/** Colours of names. They depend on the names alone, not on their order, as in `deop.results.colours`. */

import type { Colour } from "./engine/types";
import { displayName, meansEverythingElse } from "./names";

const GREY: Colour = [128, 128, 128];

/** The colours that people expect; the table of `deop.results.expected_colours`. */
const EXPECTED: Record<string, string> = {
  "#e24c70": "person people human man woman child boy girl baby pedestrian rider adult astronaut soldier worker",
  "#8cc8f4": "sky heaven",
  "#2272c8": "water sea ocean river lake pond pool canal waterfall swimming-pool",
  "#3c8a3c": "tree forest bush shrub hedge plant vegetation foliage leaf palm wood jungle",
  "#b2cb4c": "grass lawn meadow field pasture grassland",
  "#6c5a94": "road street asphalt highway lane roadway carriageway",
  "#cf9cc4": "sidewalk pavement footpath crosswalk",
  "#c8643e": "building house skyscraper brick church castle roof hut",
  "#d9b384": "wall",
  "#8a4f38": "floor ground soil earth dirt mud wooden-floor flooring parquet",
  "#4a45bd": "car vehicle automobile",
  "#f5d97c": "sand beach desert",
  "#7c9060": "mountain hill rock stone cliff",
  "#ec6f35": "fire flame lava campfire",
  "#f3d04f": "sun banana lemon sunflower",
  "#ec92c4": "flower blossom rose",
  "#ec943f": "carrot pumpkin tangerine",
  "#d0403c": "apple tomato strawberry cherry blood",
};
const WORDS: Record<string, string> = {
  red: "#d0403c", orange: "#ec943f", yellow: "#f3d04f", green: "#4fa058", blue: "#3f74cc", purple: "#8c50a8",
  violet: "#8c50a8", pink: "#ec92c4", brown: "#8d5a34", wooden: "#94683f", golden: "#dcab42", turquoise: "#3db0a8",
  beige: "#d8c39a",
};

export function parseColour(text: string): Colour {
  const value = Number.parseInt(text.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}

export const cssColour = ([red, green, blue]: Colour): string => `rgb(${Math.round(red)} ${Math.round(green)} ${Math.round(blue)})`;
export const hexColour = (colour: Colour): string => `#${colour.map((value) => Math.round(value).toString(16).padStart(2, "0")).join("")}`;

const TABLE = new Map(
  Object.entries(EXPECTED).flatMap(([colour, words]) => words.split(" ").map((word) => [word, parseColour(colour)] as const)),
);

const lookUp = (word: string): Colour | undefined =>
  TABLE.get(word) ?? TABLE.get(word.replace(/s$/, "")) ?? TABLE.get(word.replace(/es$/, ""));

function expected(name: string): Colour | undefined {
  const text = name.toLowerCase();
  if (meansEverythingElse(text)) return GREY;
  const whole = lookUp(text.replaceAll(" ", "-"));
  if (whole) return whole;
  const words = text.split("-")[0].split(" ").filter(Boolean);
  for (const word of words) if (Object.hasOwn(WORDS, word)) return parseColour(WORDS[word]);
  return words.length ? lookUp(words[words.length - 1]) : undefined;
}

/** Candidates for names without an expected colour: hues in order of how different they are from each other. */
const PALETTE = (
  "#e8833a #3f74cc #4fa058 #c2529c #e3b93c #2f9e9a #8c5fc0 #d0503f #77a53a #5b8fd9 #a8663a #d983b0 " +
  "#3c7d5a #b8a03a #6a55a8 #e39b7b #4bb0c9 #9a3f5c #93b87a #7c6bd6"
)
  .split(" ")
  .map(parseColour);

function hash(text: string): number {
  let value = 2166136261;
  for (const letter of text.toLowerCase()) value = Math.imul(value ^ letter.codePointAt(0)!, 16777619);
  return value >>> 0;
}

/** The colour of a name by itself. */
export function colourOf(name: string): Colour {
  const text = displayName(name);
  return expected(text) ?? PALETTE[hash(text) % PALETTE.length];
}

/** One colour for each name: the expected one, else the one that differs most from those in use. */
export function classColours(names: readonly string[]): Colour[] {
  const colours = new Map<string, Colour>();
  const sorted = [...names].map(displayName).sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
  const gap = (colour: Colour): number =>
    Math.min(Infinity, ...[...colours.values()].map((other) => other.reduce((sum, value, c) => sum + [2, 4, 3][c] * (value - colour[c]) ** 2, 0)));
  for (const name of sorted) {
    const colour = expected(name);
    if (colour && (colour === GREY || gap(colour) > 900)) colours.set(name, colour);
  }
  for (const name of sorted) {
    if (colours.has(name)) continue;
    const start = hash(name) % PALETTE.length;
    let best = PALETTE[start];
    for (let turn = 0, widest = -1; turn < PALETTE.length; turn++) {
      const candidate = PALETTE[(start + turn) % PALETTE.length];
      const now = gap(candidate);
      if (now > widest) {
        widest = now;
        best = candidate;
      }
      if (!colours.size) break;
    }
    colours.set(name, best);
  }
  return names.map((name) => colours.get(displayName(name))!);
}

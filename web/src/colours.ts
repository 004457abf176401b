/** Colours of names: `deop.results.colours`. They depend on the names alone, not on their order. */

import type { Colour } from "./engine/types";
import { displayName, meansEverythingElse } from "./names";
import { fitGamut, labToRgb, seen } from "./oklab";

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
  Object.entries(EXPECTED).flatMap(([colour, words], place) => words.split(" ").map((word) => [word, { place, colour: parseColour(colour) }] as const)),
);

/** What a name is known by: the whole name, a colour in it, or its last word; of equal wishes the lesser place comes first. */
interface Wish {
  readonly reason: number;
  readonly place: number;
  readonly colour: Colour;
}

const lookUp = (word: string): { place: number; colour: Colour } | undefined =>
  TABLE.get(word) ?? TABLE.get(word.replace(/s$/, "")) ?? TABLE.get(word.replace(/es$/, ""));

function expected(text: string): Wish | undefined {
  if (meansEverythingElse(text)) return { reason: 0, place: 0, colour: GREY };
  const whole = lookUp(text.replaceAll(" ", "-"));
  if (whole) return { reason: 1, ...whole };
  const words = text.split("-")[0].split(" ").filter(Boolean);
  for (const word of words) if (Object.hasOwn(WORDS, word)) return { reason: 2, place: 0, colour: parseColour(WORDS[word]) };
  const last = words.length ? lookUp(words[words.length - 1]) : undefined;
  return last && { reason: 3, ...last };
}

const LIGHTNESS_WEIGHT = 0.6;
const COLOUR_BLIND_WEIGHT = 1.3;
const CHROMA_WEIGHT = 1.6;
const LIGHTNESS_ALONE = 32; // names up to which lightness is never the only difference
const EXPECTED_DISTANCE = 0.05;
const MOST_EXPECTED = 60;
const TIERS = [
  { names: 8, lightness: [0.56, 0.83], chroma: [0.08, 0.14] },
  { names: LIGHTNESS_ALONE, lightness: [0.48, 0.86], chroma: [0.06, 0.17] },
  { names: Infinity, lightness: [0.44, 0.88], chroma: [0.05, 0.21] },
] as const;

/** A colour in weighted Oklab: as four kinds of eyes see it, and without lightness; 5 x 3 numbers. */
function embed(rgb: Colour): Float64Array {
  const [normal, ...blind] = seen(rgb);
  const aspects = [
    [normal[0] * LIGHTNESS_WEIGHT, normal[1], normal[2]],
    ...blind.map((place) => place.map((value) => value * COLOUR_BLIND_WEIGHT)),
    [0, normal[1] * CHROMA_WEIGHT, normal[2] * CHROMA_WEIGHT],
  ];
  return Float64Array.from(aspects.flat());
}

/** The least of the distances in the first few aspects. */
function distance(first: Float64Array, second: Float64Array, aspects: number): number {
  let least = Infinity;
  for (let at = 0; at < 3 * aspects; at += 3)
    least = Math.min(least, (first[at] - second[at]) ** 2 + (first[at + 1] - second[at + 1]) ** 2 + (first[at + 2] - second[at + 2]) ** 2);
  return Math.sqrt(least);
}

const range = ([low, high]: readonly [number, number], count: number): number[] => Array.from({ length: count }, (_, i) => low + i * ((high - low) / (count - 1)));
const palettes = new Map<number, { colour: Colour; place: Float64Array }[]>();

/** A fixed set of colours, the pleasant ones first. */
function palette(index: number): { colour: Colour; place: Float64Array }[] {
  const known = palettes.get(index);
  if (known) return known;
  const tier = TIERS[index];
  const candidates = range(tier.lightness, 9).flatMap((lightness) =>
    range(tier.chroma, 5).flatMap((chroma) =>
      Array.from({ length: 48 }, (_, turn) => {
        const hue = (((turn * 137.5 + 255) % 360) * Math.PI) / 180; // the golden angle: neighbours differ widely
        // Dark yellows look muddy and light blues pale: the most pleasant lightness depends on the hue.
        const unpleasant = Math.abs(lightness - 0.68 - 0.09 * Math.cos(hue - 1.8)) + Math.abs(chroma - 0.12);
        return { lab: [lightness, chroma * Math.cos(hue), chroma * Math.sin(hue)] as const, rank: Math.trunc(unpleasant / 0.05) };
      }),
    ),
  );
  const colours = candidates
    .sort((a, b) => a.rank - b.rank)
    // Colours somewhat lighter and darker must exist too, since a region varies with the lightness of the photo.
    .filter(({ lab: [l, a, b] }) =>
      [-0.04, 0, 0.04].every((shift) => fitGamut([l + shift, a, b]).every((value, i) => Math.abs(value - [l + shift, a, b][i]) < 0.003)),
    )
    .map(({ lab }) => labToRgb(lab))
    .map((colour) => ({ colour, place: embed(colour) }));
  palettes.set(index, colours);
  return colours;
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);
const chosenBefore = new Map<string, Map<string, Colour>>();

/** One colour for each name: the expected one, else the one of a palette that differs most from those in use. */
export function classColours(names: readonly string[]): Colour[] {
  const keys = names.map((name) => displayName(name).toLowerCase().replace(/\s+/g, " ").trim().normalize("NFC"));
  const distinct = [...new Set(keys)].sort(compare);
  const key = distinct.join("\n");
  const chosen = chosenBefore.get(key) ?? choose(distinct);
  chosenBefore.clear(); // the page asks for the same names again and again
  chosenBefore.set(key, chosen);
  return keys.map((name) => chosen.get(name)!);
}

/** The colours of different names in alphabetical order. */
function choose(keys: readonly string[]): Map<string, Colour> {
  const aspects = keys.length <= LIGHTNESS_ALONE ? 5 : 4;
  const candidates = palette(TIERS.findIndex(({ names }) => keys.length <= names));
  const chosen = new Map<string, Colour>();
  const used = [embed(GREY)]; // always kept for everything else
  const wishes = keys.flatMap((key) => {
    const wish = expected(key);
    return wish ? [{ key, ...wish }] : [];
  });
  wishes.sort((a, b) => a.reason - b.reason || a.place - b.place || a.colour.map((value, c) => value - b.colour[c]).find(Boolean) || compare(a.key, b.key));
  for (const { key, reason, colour } of wishes) {
    const place = embed(colour);
    if (reason === 0) chosen.set(key, colour);
    else if (used.length <= MOST_EXPECTED && used.every((other) => distance(place, other, aspects) >= EXPECTED_DISTANCE)) {
      chosen.set(key, colour);
      used.push(place);
    }
  }
  const nearest = candidates.map(({ place }) => Math.min(...used.map((other) => distance(place, other, aspects))));
  const others = keys.filter((key) => !chosen.has(key));
  const ample = keys.length <= 12 ? Math.max(0.11, 0.3 - 0.025 * keys.length) : Infinity; // then the more pleasant colour
  others.forEach((key, number) => {
    if (number >= candidates.length) {
      chosen.set(key, chosen.get(others[number - candidates.length])!);
      return;
    }
    let best = nearest.findIndex((gap) => gap >= ample);
    if (best < 0) best = nearest.reduce((most, gap, index) => (gap > nearest[most] ? index : most), 0);
    chosen.set(key, candidates[best].colour);
    candidates.forEach(({ place }, index) => (nearest[index] = Math.min(nearest[index], distance(place, candidates[best].place, aspects))));
    nearest[best] = -1;
  });
  return chosen;
}

/** The colour of a name by itself. */
export const colourOf = (name: string): Colour => classColours([name])[0];

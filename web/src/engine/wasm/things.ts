/** A guess whether a name means a countable thing or stuff (sky, grass, wall): `deop.text.things`. */

import { caseFold } from "./folding";

const STUFF = new Set(
  (
    "background floor ceiling wall ground pavement sidewalk road street path pathway track railroad runway platform dirt " +
    "mud sand gravel snow ice water sea ocean river lake pond waterfall pool wave fog mist smoke sky cloud grass lawn " +
    "meadow field playingfield court pitch earth soil land terrain hill mountain rock stone cliff forest wood bush shrub " +
    "tree vegetation foliage hedge moss straw hay leaves plants beach shore coast desert building house skyscraper tower " +
    "bridge fence railing net banner curtain drapes blind blanket rug carpet mat towel cloth clothes textile fabric " +
    "cardboard paper plastic metal concrete brick tile marble counter countertop shelf cabinet cupboard furniture stairs " +
    "roof tent fruit vegetable salad food rubble crowd asphalt panel structure"
  ).split(" "),
);
const PLURALS = [["s", ""], ["es", ""], ["ies", "y"], ["ves", "f"]] as const;
const SUFFIXES = new Set(["other", "merged", "stuff"]);
const AFTER_HEAD = /[,(]|(?<![\p{L}\p{N}_])(?:of|on|in|at|with|without|by|from|for|near|behind|under|above|between)(?![\p{L}\p{N}_])/u;
const AMOUNTS = new Set(["area", "body", "bit", "expanse", "patch", "stretch"]);

/** Guesses from the head word, the last one before a preposition, a comma or a parenthesis. */
export function isThing(name: string): boolean {
  const parts = caseFold(name).replaceAll("-", " ").split(AFTER_HEAD).map((part) => part.split(/\s+/).filter(Boolean));
  let head = parts[0];
  if (parts.length > 1 && head.length && AMOUNTS.has(head[head.length - 1])) head = parts[1];
  head = [...head];
  while (head.length > 1 && SUFFIXES.has(head[head.length - 1])) head.pop();
  return !head.length || !isStuff(head[head.length - 1]);
}

const isStuff = (word: string): boolean =>
  STUFF.has(word) || PLURALS.some(([ending, singular]) => word.endsWith(ending) && STUFF.has(word.slice(0, word.length - ending.length) + singular));

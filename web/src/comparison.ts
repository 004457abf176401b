/** The titles of a comparison: what differs between two settings, in a few words. */

import { displayName, joinNames } from "./names";
import { shareText, thresholdText, weightText, type Settings } from "./settings";
import { VOCABULARIES } from "./vocabularies";

type Words = (settings: Settings) => string;

const names: Words = ({ names: list, vocabulary }) =>
  vocabulary === null ? list.map(displayName).join(", ") || "no names" : (VOCABULARIES.find(({ id }) => id === vocabulary)?.title ?? vocabulary);
const synonyms: Words = (settings) => (settings.vocabulary === null ? joinNames(settings.names) : "");
const list = (title: string, of: (settings: Settings) => readonly string[]): Words => (settings) => {
  const found = of(settings);
  return found.length ? `${title}: ${found.map(displayName).join(", ")}` : `no ${title}`;
};

const PARTS: readonly Words[] = [
  ({ mode }) => mode,
  (settings) => (thresholdText(settings) ? `threshold ${thresholdText(settings)}` : "default threshold"),
  ({ smallestRegion }) => (smallestRegion === null ? "default smoothing" : smallestRegion === 0 ? "no smoothing" : `smoothing ${shareText(smallestRegion)}`),
  list("background", ({ background }) => background),
  list("things", ({ things }) => things),
  ({ severance }) => severance ?? "default severance",
  ({ bankWeight }) => (bankWeight === null ? "examples as fitted" : `examples ${weightText(bankWeight)}`),
  ({ style }) => style,
  ({ alpha }) => `opacity ${Math.round(100 * alpha)} %`,
];

/** Titles of the two sides; without a difference, "Kept" and "Now". */
export function titlesOf(kept: Settings, now: Settings): [string, string] {
  const first = names(kept) === names(now) ? synonyms : names;
  const pairs = [first, ...PARTS].map((words) => [words(kept), words(now)] as const).filter(([left, right]) => left !== right);
  if (!pairs.length) return ["Kept", "Now"];
  return [pairs.map(([left]) => left).join(" · "), pairs.map(([, right]) => right).join(" · ")];
}

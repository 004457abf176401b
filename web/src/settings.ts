/** What a view consists of beside the photo, and its form in the address. */

import type { LabelOptions, Mode } from "./engine/types";
import { addNames, joinNames, splitNames } from "./names";
import { formatThresholds, parseThresholds, type Thresholds } from "./thresholds";
import { namesOfList, VOCABULARIES } from "./vocabularies";

export type Style = "overlay" | "outline" | "labels";

export interface Settings {
  readonly names: readonly string[];
  /** A built-in vocabulary instead of the names; null: the names. */
  readonly vocabulary: string | null;
  readonly background: readonly string[];
  readonly things: readonly string[];
  readonly mode: Mode;
  /** Minimum score in [0, 1]; null: the model's setting. */
  readonly threshold: number | null;
  /** Minimum scores of single names. */
  readonly thresholds: Thresholds;
  /** Share of the photo in [0, 1): smaller connected regions get the name of their surroundings; null: the model's setting. */
  readonly smallestRegion: number | null;
  readonly severance: string | null;
  /** How much examples count, in [0, 1]; null: as fitted. */
  readonly bankWeight: number | null;
  readonly style: Style;
  /** Opacity of the colours in [0, 1]. */
  readonly alpha: number;
  /** Whether names are written on the photo. */
  readonly written: boolean;
}

export const DEFAULTS: Settings = {
  names: [],
  vocabulary: null,
  background: [],
  things: [],
  mode: "semantic",
  threshold: null,
  thresholds: {},
  smallestRegion: null,
  severance: null,
  bankWeight: null,
  style: "overlay",
  alpha: 0.5,
  written: true,
};

/** How much examples count where nobody chose: as fitted on them. */
export const FITTED_WEIGHT = 0.5;

export const MODES: readonly Mode[] = ["semantic", "panoptic", "instance"];
export const STYLES: readonly Style[] = ["overlay", "outline", "labels"];

/** The names that a question is about. */
export const askedNames = ({ names, vocabulary }: Settings): readonly string[] => (vocabulary === null ? names : namesOfList(vocabulary));

/** @param bank whether there are examples */
export function labelOptions(settings: Settings, bank: boolean): LabelOptions {
  const { mode, threshold, thresholds, smallestRegion, background, things, vocabulary, bankWeight } = settings;
  const options = { mode, threshold, thresholds, smallestRegion, background, vocabulary, bank, bankWeight };
  return { ...options, things: things.length && vocabulary === null ? things : null };
}

/** All thresholds as `deop segment --threshold` takes them; empty: the model's setting. */
export const thresholdText = ({ threshold, thresholds }: Settings): string => formatThresholds(threshold, thresholds);

/** A share of the photo as people read it: "0.05 %". */
export const shareText = (share: number): string => `${Number((100 * share).toPrecision(3))} %`;

/** How much examples count, as people read it: "0.70". */
export const weightText = (weight: number): string => weight.toFixed(2);

/** The part of the address behind "#". Settings at their defaults are left out. */
export function toHash(settings: Settings, sample: string | null, left: Settings | null = null): string {
  const entries: [string, string][] = [];
  if (sample) entries.push(["sample", sample]);
  for (const key of ["names", "background", "things"] as const)
    if (settings[key].length) entries.push([key, joinNames(settings[key])]);
  if (thresholdText(settings)) entries.push(["threshold", thresholdText(settings)]);
  if (settings.smallestRegion !== null) entries.push(["smallest-region", String(settings.smallestRegion)]);
  if (settings.bankWeight !== null) entries.push(["bank-weight", String(settings.bankWeight)]);
  for (const key of ["vocabulary", "mode", "severance", "style", "alpha"] as const)
    if (settings[key] !== DEFAULTS[key]) entries.push([key, String(settings[key])]);
  if (!settings.written) entries.push(["written", "no"]);
  if (left) entries.push(["left", toHash(left, null)]);
  // Readable in the address bar: commas, spaces and bars need no percent signs in a fragment, except a few.
  return entries
    .map(([key, value]) => `${key}=${encodeURIComponent(value).replace(/%20/g, "+").replace(/%2C/g, ",")}`)
    .join("&");
}

/**
 * Reads an address: the settings, the sample, and the settings that they are compared with. What it does not
 * understand, it ignores: addresses are typed and outlive versions.
 */
export function fromHash(hash: string): { settings: Settings; sample: string | null; left: Settings | null } {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const list = (key: string): string[] => addNames([], splitNames(given.get(key) ?? "")).names;
  const number = (key: string, fits: (value: number) => boolean): number | null => {
    const text = given.get(key)?.trim();
    return text && fits(Number(text)) ? Number(text) : null;
  };
  const { all, named } = parseThresholds(given.get("threshold") ?? "");
  const oneOf = <T extends string, U>(values: readonly T[], key: string, otherwise: U): T | U =>
    values.find((value) => value === given.get(key)) ?? otherwise;
  const names = list("names");
  return {
    settings: {
      names,
      background: addNames(names, list("background")).names.slice(names.length),
      things: list("things"),
      mode: oneOf(MODES, "mode", DEFAULTS.mode),
      vocabulary: oneOf(VOCABULARIES.map(({ id }) => id), "vocabulary", null),
      threshold: all,
      thresholds: named,
      smallestRegion: number("smallest-region", (value) => value >= 0 && value < 1),
      severance: given.get("severance"),
      bankWeight: number("bank-weight", (value) => value >= 0 && value <= 1),
      style: oneOf(STYLES, "style", DEFAULTS.style),
      alpha: number("alpha", (value) => value >= 0 && value <= 1) ?? DEFAULTS.alpha,
      written: given.get("written") !== "no",
    },
    sample: given.get("sample"),
    left: given.get("left") ? fromHash(given.get("left")!).settings : null,
  };
}

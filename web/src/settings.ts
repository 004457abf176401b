/** What a view consists of beside the photo, and its form in the address. */

import type { LabelOptions, Mode } from "./engine/types";
import { addNames, joinNames, splitNames } from "./names";

export type Style = "overlay" | "outline" | "labels";

export interface Settings {
  readonly names: readonly string[];
  readonly background: readonly string[];
  readonly things: readonly string[];
  readonly mode: Mode;
  /** Minimum score in [0, 1]. */
  readonly threshold: number;
  readonly severance: string | null;
  readonly style: Style;
  /** Opacity of the colours in [0, 1]. */
  readonly alpha: number;
}

export const DEFAULTS: Settings = {
  names: [],
  background: [],
  things: [],
  mode: "semantic",
  threshold: 0,
  severance: null,
  style: "overlay",
  alpha: 0.55,
};

export const MODES: readonly Mode[] = ["semantic", "panoptic", "instance"];
export const STYLES: readonly Style[] = ["overlay", "outline", "labels"];

export function labelOptions(settings: Settings): LabelOptions {
  const { mode, threshold, background, things } = settings;
  return { mode, threshold: threshold || null, background, things: things.length ? things : null };
}

/** The part of the address behind "#". Settings at their defaults are left out. */
export function toHash(settings: Settings, sample: string | null, left: Settings | null = null): string {
  const entries: [string, string][] = [];
  if (sample) entries.push(["sample", sample]);
  for (const key of ["names", "background", "things"] as const)
    if (settings[key].length) entries.push([key, joinNames(settings[key])]);
  for (const key of ["mode", "threshold", "severance", "style", "alpha"] as const)
    if (settings[key] !== DEFAULTS[key]) entries.push([key, String(settings[key])]);
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
  const share = (key: "threshold" | "alpha"): number => {
    const value = given.get(key)?.trim();
    return value && Number(value) >= 0 && Number(value) <= 1 ? Number(value) : DEFAULTS[key];
  };
  const oneOf = <T extends string>(values: readonly T[], key: string, otherwise: T): T =>
    values.find((value) => value === given.get(key)) ?? otherwise;
  const names = list("names");
  return {
    settings: {
      names,
      background: addNames(names, list("background")).names.slice(names.length),
      things: list("things"),
      mode: oneOf(MODES, "mode", DEFAULTS.mode),
      threshold: share("threshold"),
      severance: given.get("severance"),
      style: oneOf(STYLES, "style", DEFAULTS.style),
      alpha: share("alpha"),
    },
    sample: given.get("sample"),
    left: given.get("left") ? fromHash(given.get("left")!).settings : null,
  };
}

/** Minimum scores of single names, as people write them: "dog=0.6, cat=0.4". */

import { cleanName, synonyms } from "./names";

export type Thresholds = Readonly<Record<string, number>>;

/** Reads pairs; what cannot be read is returned as `wrong`. A number without a name is for all names. */
export function parseThresholds(text: string): { all: number | null; named: Record<string, number>; wrong: string | null } {
  const named: Record<string, number> = {};
  let all: number | null = null;
  let wrong: string | null = null;
  for (const part of text.split(text.includes(";") ? /[;\n]/ : /[,\n]/).map((each) => each.trim()).filter(Boolean)) {
    const at = part.lastIndexOf("=");
    const [name, number] = [cleanName(part.slice(0, Math.max(0, at))), part.slice(at + 1).trim()];
    const value = Number(number);
    if (!number || !(value >= 0 && value <= 1)) wrong ??= part;
    else if (at >= 0 && name && name !== "*") named[name] = value;
    else all = value;
  }
  return { all, named, wrong };
}

/** The form that `parseThresholds` reads, and Python's `Thresholds.parse`. */
export function formatThresholds(all: number | null, named: Thresholds): string {
  const parts = [...(all === null ? [] : [String(all)]), ...Object.entries(named).map(([name, value]) => `${name}=${value}`)];
  return parts.join(Object.keys(named).some((name) => name.includes(",")) ? "; " : ", ");
}

const key = (text: string): string => text.toLowerCase();

/** Thresholds for texts that are not among the names. */
export function unknownThresholds(names: readonly string[], named: Thresholds): string[] {
  const known = new Set(names.flatMap(synonyms).map(key));
  return Object.keys(named).filter((name) => !known.has(key(name)));
}

/** The minimum score of each name; null: the model's setting. A synonym stands for its name. */
export function limitsOf(names: readonly string[], { threshold, thresholds }: { threshold: number | null; thresholds: Thresholds }): (number | null)[] {
  const values = new Map(Object.entries(thresholds).map(([name, value]) => [key(name), value]));
  return names.map((name) => synonyms(name).map((text) => values.get(key(text))).find((value) => value !== undefined) ?? threshold);
}

/** The names of a question as the engine needs them: `deop.text.vocabulary`, `deop.text.thresholds`. */

import { cleanName, displayName, meansEverythingElse, synonyms } from "../../names";
import { EngineError, type LabelOptions } from "../types";
import { caseFold } from "./folding";
import { isThing } from "./things";

export interface Vocabulary {
  /** K lists of texts; the first of each is the display name. */
  readonly synonyms: readonly (readonly string[])[];
  readonly names: readonly string[];
  /** Texts of everything else: a pixel that one of them wins gets no name. */
  readonly background: readonly string[];
  /** K flags: countable things. */
  readonly things: readonly boolean[];
  /** Index of the first name that means everything that the others do not, or null. */
  readonly everythingElse: number | null;
  /** Whether the names are those of a built-in list, of which a photo keeps those that it shows. */
  readonly builtIn: boolean;
}

/**
 * @param names as people write them, "sofa|couch"
 * @param builtIn the flags of things of a built-in list; null for names that somebody chose
 * @throws EngineError two names have the same text, or a mode that finds none of them
 */
export function readVocabulary(names: readonly string[], options: LabelOptions, builtIn: readonly boolean[] | null = null): Vocabulary {
  const texts = names.map((name) => synonyms(cleanName(name)));
  const background = [...new Set(options.background.flatMap((name) => synonyms(cleanName(name))))];
  const first = new Map<string, number>();
  [...texts, ...background.map((text) => [text])].forEach((entry, index) => {
    for (const text of entry) {
      const key = caseFold(text);
      const other = first.get(key) ?? index;
      first.set(key, other);
      if (other !== index)
        throw new EngineError(`“${text}” is there twice, so that its two places cannot be told apart. Remove one of them, or join them with “|”.`);
    }
  });
  const rest = texts.map((entry) => entry.some(meansEverythingElse));
  let things = builtIn ?? texts.map(([name]) => isThing(name));
  if (options.things) {
    const listed = new Set(options.things.flatMap((name) => synonyms(cleanName(name))).map(caseFold));
    const known = new Set(texts.flat().map(caseFold));
    const unknown = [...listed].find((text) => !known.has(text));
    if (unknown) throw new EngineError(`“${unknown}” is listed as a thing, but is not among the names.`);
    things = texts.map((entry) => entry.some((text) => listed.has(caseFold(text))));
  }
  const everythingElse = rest.indexOf(true);
  return {
    synonyms: texts,
    names: names.map((name) => displayName(cleanName(name))),
    background,
    things: things.map((flag, k) => flag && !rest[k]),
    everythingElse: everythingElse < 0 ? null : everythingElse,
    builtIn: builtIn !== null,
  };
}

/** Remarks about a mode; an error if it can find none of the names. */
export function checkMode(vocabulary: Vocabulary, { mode, things }: LabelOptions): string[] {
  if (mode !== "instance" || vocabulary.builtIn) return [];
  if (!vocabulary.things.some(Boolean))
    throw new EngineError("Instance mode finds countable things only, and none of the names is one. Use semantic or panoptic mode, or list the things under “More”.");
  const stuff = vocabulary.names.filter((name, k) => !vocabulary.things[k] && !meansEverythingElse(name));
  if (things || !stuff.length) return [];
  return [`Instance mode finds countable things only; taken for stuff, and not looked for: ${stuff.slice(0, 8).join(", ")}. List the things under “More” if that is wrong.`];
}

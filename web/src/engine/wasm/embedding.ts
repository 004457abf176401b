/** A vocabulary in the joint space of images and text: `deop.text.embedding` for an encoder without templates. */

import { meansEverythingElse } from "../../names";
import { EngineError } from "../types";
import type { Calibration } from "./config";
import { caseFold } from "./folding";
import type { Vocabulary } from "./vocabulary";
import type { WordTable } from "./words";

export interface Classes {
  /** M rows of C numbers, of unit length: every synonym of every name, then the background and the rivals. */
  readonly rows: readonly Float32Array[];
  /** The name of each row; K for background and rivals. */
  readonly owner: readonly number[];
  /** Added to the logits of each row. */
  readonly offset: Float32Array;
  /** The column of the rivals and of the "no object" vector: a name, or K. */
  readonly rest: number;
}

/**
 * Embeds a vocabulary and calibrates it: rows for "everything else", and a penalty for names that training used if
 * others are asked too, and more for words that the table lacks.
 *
 * @param remarks what people should know about their names is added here
 * @param wordless the names with examples, which need no word; K for the background
 * @throws EngineError a name of which nothing is read
 */
export function embedVocabulary(vocabulary: Vocabulary, table: WordTable, calibration: Calibration, remarks: string[], wordless: ReadonlySet<number> = new Set()): Classes {
  const count = vocabulary.names.length;
  const trained = new Set(calibration.trainedNames.map(caseFold));
  let entries = vocabulary.synonyms.flatMap((texts, k) => texts.map((text) => [text, k] as const));
  entries.push(...vocabulary.background.map((text) => [text, count] as const));
  const meant = entries.some(([text]) => meansEverythingElse(text));
  entries = entries.filter(([text]) => !meansEverythingElse(text) || trained.has(caseFold(text)));
  entries = readable(entries, table, remarks, wordless);
  if (calibration.groups.length) entries.push(...membersOf(entries, new Map(calibration.groups), table));
  const rows = entries.map(([text]) => table.embed(text));
  const owner = entries.map(([, k]) => k);
  const rest = vocabulary.everythingElse ?? count;
  remarkAlike(entries, rows, remarks);
  if (vocabulary.synonyms.filter((texts) => texts.some(meansEverythingElse)).length > 1)
    remarks.push("Several of the names mean everything else: the first of them gets all of its pixels.");

  const requested = rows.length;
  const texts = entries.map(([text]) => text);
  const rivals = calibration.rivals.map((rival) => table.embed(rival));
  const nearest = rows.map((row) => Math.max(...rivals.map((rival) => dot(row, rival))));
  if (meant || !vocabulary.background.length)
    rivals.forEach((row, index) => {
      if (rows.slice(0, requested).some((other) => dot(row, other) >= calibration.rivalSimilarity)) return;
      rows.push(row);
      owner.push(rest);
      texts.push(calibration.rivals[index]);
    });
  // A name counts as seen if any of its synonyms does.
  const compares = rivals.length > 0 && (calibration.seenSimilarity < 1 || calibration.farSimilarity > -1);
  const isSeen = texts.map((text, row) => trained.has(caseFold(text)) || (row < requested && trained.has(table.head(text))) || (compares && row < requested && nearest[row] >= calibration.seenSimilarity));
  const seenNames = new Set(owner.slice(0, requested).filter((k, row) => isSeen[row] && k < count && k !== rest));
  const seen = owner.map((k, row) => isSeen[row] || seenNames.has(k));
  const unknown = texts.map((text, row) => row < requested && !seen[row] && !table.knows(text));
  const lowered = seen.map((flag, row) => flag || (compares && row < requested && !unknown[row] && nearest[row] < calibration.farSimilarity));
  const mixed = lowered.some(Boolean) && lowered.slice(0, requested).some((flag, row) => !flag && !unknown[row]);
  // In a long built-in list, the penalty would let chance names win everywhere.
  const penalty = vocabulary.builtIn ? 0 : calibration.seenPenalty;
  const offset = texts.map((_, row) => -penalty * (unknown[row] ? 1 + Number(mixed) : Number(lowered[row] && mixed)));
  return { rows, owner, offset: Float32Array.from(offset), rest };
}

export function dot(first: Float32Array, second: Float32Array): number {
  let sum = 0;
  for (let c = 0; c < first.length; c++) sum += first[c] * second[c];
  return sum;
}

/** The names that words such as "animal" sum up, each once, with the owner of the narrowest word. */
function membersOf(entries: readonly (readonly [string, number])[], groups: ReadonlyMap<string, readonly string[]>, table: WordTable): (readonly [string, number])[] {
  const used = new Set(entries.map(([text]) => caseFold(text)));
  const asked = entries.map(([text, k]) => [groups.get(table.head(text)) ?? [], k] as const).sort((a, b) => a[0].length - b[0].length);
  return asked.flatMap(([names, k]) => {
    const members = names.filter((name) => !used.has(name));
    names.forEach((name) => used.add(name));
    return members.map((name) => [name, k] as const);
  });
}

/** The texts of which something is read; a remark about those that are read in part. */
function readable(entries: readonly (readonly [string, number])[], table: WordTable, remarks: string[], wordless: ReadonlySet<number>): (readonly [string, number])[] {
  const readings = entries.map(([text]) => table.read(text));
  const kept = entries.filter((_, index) => readings[index].pieces.length > 0);
  const owners = new Set(kept.map(([, k]) => k));
  const lost = entries.find(([, k]) => !owners.has(k) && !wordless.has(k));
  if (lost) throw new EngineError(`This model reads nothing of “${lost[0]}”: it knows English words only, in Latin letters. Mark examples of it instead.`);
  const part = readings.findIndex(({ unread }, index) => unread && !wordless.has(entries[index][1]));
  if (part >= 0) remarks.push(`This model does not read “${readings[part].unread}” in “${entries[part][0]}”. Use English words.`);
  return kept;
}

function remarkAlike(entries: readonly (readonly [string, number])[], rows: readonly Float32Array[], remarks: string[]): void {
  const first = new Map<string, number>();
  for (let place = 0; place < rows.length; place++) {
    const key = rows[place].join();
    const other = first.get(key) ?? place;
    first.set(key, other);
    if (entries[other][1] !== entries[place][1]) {
      remarks.push(`This model cannot tell “${entries[other][0]}” and “${entries[place][0]}” apart: the first always wins.`);
      return;
    }
  }
}

/** The text encoder of the small model, a table of words, word pieces and phrases: `deop.text.words`. */

import { PUNCTUATION, weigh } from "./descriptions";
import { fold, unreadLetters } from "./folding";
import { floatsOf, type Tensor } from "./tensors";

const PLURALS = new Set(["##s", "##es"]);

export interface Reading {
  /** Rows of the table. */
  readonly pieces: readonly number[];
  /** Words, phrases and punctuation marks; the latter have no rows. */
  readonly units: readonly { readonly name: string; readonly rows: readonly number[] }[];
  /** Letters that have no effect, each once. */
  readonly unread: string;
}

export class WordTable {
  private readonly index = new Map<string, number>();
  private readonly longest: number;
  private readonly rows: Int8Array | Float32Array;
  private readonly scales: Float32Array | null;
  private readonly depth: number;

  /**
   * @param words the word, word piece ("##ing") or phrase of each row
   * @param rows (entries, D) I8 or F32
   * @param scales (entries,) F32, the factor of each row of I8
   * @param width channels C of an embedding; those that the table lacks are 0
   */
  constructor(
    private readonly words: readonly string[],
    rows: Tensor,
    scales: Tensor | undefined,
    readonly width: number,
  ) {
    if (rows.shape[0] !== words.length) throw new RangeError("the word list and its table differ in length");
    words.forEach((word, row) => this.index.set(word, row));
    this.longest = Math.max(1, ...words.map((word) => word.split(" ").length));
    this.depth = rows.shape[1];
    this.rows = rows.dtype === "I8" ? new Int8Array(rows.bytes.buffer, rows.bytes.byteOffset, rows.bytes.length) : floatsOf(rows);
    this.scales = scales ? floatsOf(scales) : null;
  }

  /** Splits a text into rows: the longest known phrases from the left, unknown words in pieces. */
  read(text: string): Reading {
    const folded = fold(text);
    const words = folded.match(/[a-z0-9'-]+|[,(;:]/g) ?? [];
    const units: { name: string; rows: number[] }[] = [];
    let unread = unreadLetters(folded);
    for (let position = 0; position < words.length; ) {
      let length = Math.min(this.longest, words.length - position);
      let name = "";
      let phrase: number | undefined;
      for (; length > 0; length--) {
        name = words.slice(position, position + length).join(" ");
        phrase = PUNCTUATION.includes(name) ? undefined : this.index.get(name);
        if (phrase !== undefined) break;
      }
      if (phrase !== undefined) {
        units.push({ name, rows: [phrase] });
        position += length;
        continue;
      }
      const rows: number[] = [];
      for (const part of words[position].match(/[a-z]+|[0-9]/g) ?? []) unread += this.split(part, rows);
      if (rows.length || PUNCTUATION.includes(words[position])) units.push({ name: words[position], rows });
      position++;
    }
    return { pieces: units.flatMap(({ rows }) => rows), units, unread: [...new Set(unread)].join("") };
  }

  /** Whether the words of a text that count most are in the list, and not read in pieces, except for the ending of a plural. */
  knows(text: string): boolean {
    const heads = this.heads(text);
    return heads.length > 0 && heads.every(({ rows }) => rows.every((row) => !this.words[row].startsWith("##") || PLURALS.has(this.words[row])));
  }

  /** The word or phrase of a description that counts most, without the ending of a plural; "" if it has no head. */
  head(text: string): string {
    const heads = this.heads(text);
    if (heads.length !== 1) return "";
    const [{ name, rows }] = heads;
    return rows.length > 1 && rows.slice(1).every((row) => PLURALS.has(this.words[row])) ? this.words[rows[0]] : name;
  }

  /** The words or phrases of a text that count most: its head, or all if it has none. */
  private heads(text: string): Reading["units"] {
    const { units } = this.read(text);
    const weights = weigh(units.map(({ name }) => name));
    const most = Math.max(0, ...weights);
    return units.filter(({ rows }, place) => rows.length && weights[place] && weights[place] === most);
  }

  /** Adds the longest known word pieces of a word, up to the first letter without one; returns the rest. */
  private split(word: string, pieces: number[]): string {
    for (let start = 0; start < word.length; ) {
      let end = word.length;
      let piece: number | undefined;
      for (; end > start; end--) {
        piece = this.index.get((start ? "##" : "") + word.slice(start, end));
        if (piece !== undefined) break;
      }
      if (piece === undefined) return word.slice(start);
      pieces.push(piece);
      start = end;
    }
    return "";
  }

  /** The embedding of a text, (C,) of unit length: the weighted sum of its units; zeros if nothing of it is read. */
  embed(text: string): Float32Array {
    const { units } = this.read(text);
    const mean = new Float64Array(this.width);
    weigh(units.map(({ name }) => name)).forEach((weight, place) => {
      const { rows } = units[place];
      if (!weight) return;
      for (const piece of rows) {
        const scale = ((this.scales ? this.scales[piece] : 1) * weight) / rows.length;
        for (let c = 0, at = piece * this.depth; c < this.depth; c++, at++) mean[c] += this.rows[at] * scale;
      }
    });
    let square = 0;
    for (const value of mean) square += value * value;
    const length = Math.max(Math.sqrt(square), 1e-12);
    return Float32Array.from(mean, (value) => value / length);
  }
}

/** The whole model in one place: what the worker does for the page. */

import { FITTED_WEIGHT } from "../../settings";
import type { Heatmap, LabelOptions } from "../types";
import { EngineError } from "../types";
import type { Canvas } from "./canvas";
import type { Bank } from "./bank/bank";
import { columnsOf, NOT } from "./bank/bank";
import { adjust, prepare, type Prepared, type Score } from "./bank/scoring";
import { Teacher } from "./bank/teacher";
import { classLogits, softmax } from "./classification";
import { type ModelConfig, readConfig } from "./config";
import { readPixels } from "./decode";
import { type Classes, embedVocabulary } from "./embedding";
import { Downloads, type Site } from "./files";
import { assemble, heatmapOf, type Result } from "./label";
import { keepPresent } from "./present";
import { MODEL, type Networks, openNetworks, type Preferences, weightsOf } from "./session";
import { readTensors } from "./tensors";
import { checkMode, readVocabulary, type Vocabulary } from "./vocabulary";
import type { Masks } from "./windows";
import { WordTable } from "./words";

export interface Encoded {
  readonly file: Blob;
  readonly canvas: Canvas;
  readonly masks: Masks;
  readonly regions: Float32Array;
}

export interface Question {
  readonly names: readonly string[];
  readonly options: LabelOptions;
  /** Minimum score of each name; null: the model's setting. */
  readonly thresholds: readonly (number | null)[];
  /** Flags of things of a built-in list; null for names that somebody chose. */
  readonly builtIn: readonly boolean[] | null;
}

export class Model {
  private last: { key: string; bank: Bank | null; vocabulary: Vocabulary; classes: Classes; remarks: string[]; prepared: Prepared | null } | null = null;
  readonly teacher: Teacher;

  private constructor(
    readonly config: ModelConfig,
    readonly networks: Networks,
    private readonly table: WordTable,
    version: string,
  ) {
    this.teacher = new Teacher(config, networks, version);
  }

  /** @throws EngineError */
  static async load(base: string, preferences: Preferences, report: (done: number, total: number) => void): Promise<Model> {
    let answer: Response;
    try {
      answer = await fetch(new URL("site.json", base), { cache: "no-cache" });
    } catch {
      throw new EngineError("The page’s files cannot be fetched: the server does not answer. A page cannot run from a file; serve its folder, for example with “python -m http.server”.", true);
    }
    if (!answer.ok) throw new EngineError("The page lacks site.json. Export it again with “deop export nano DIR --web”.");
    const site = (await answer.json()) as Site;
    const downloads = new Downloads(base, site, report);
    const config = readConfig(new TextDecoder().decode(await downloads.get(`${MODEL}config.json`)));
    const words = downloads.get(`${MODEL}words.txt`);
    const names = [config.graph, ...weightsOf(config)];
    const weights = Promise.all(names.map(async (name) => [name, await downloads.get(MODEL + name)] as const)).then((entries) => new Map<string, Uint8Array>(entries));
    words.catch(() => undefined); // reported below, where it is awaited
    weights.catch(() => undefined);
    const networks = await openNetworks(config, weights, downloads, preferences);
    const lines = new TextDecoder().decode(await words).replace(/\n$/, "").split("\n");
    // The rows alone, so that the memory of the whole file can be freed.
    const tensors = readTensors((await weights).get(config.table)!);
    const rows = tensors.get("text.rows");
    if (!rows) throw new EngineError("The model has no word table. Export the page again.");
    return new Model(config, networks, new WordTable(lines, { ...rows, bytes: rows.bytes.slice() }, tensors.get("text.rows::scale"), config.width), site.deop);
  }

  async encode(file: Blob): Promise<Encoded> {
    const { canvas, pixels } = await readPixels(file, this.config);
    try {
      return { file, canvas, ...(await this.networks.run(pixels, canvas)) };
    } catch (error) {
      throw new EngineError(`The networks cannot run on this photo: ${error instanceof Error ? error.message.split("\n")[0] : String(error)}`);
    }
  }

  label(encoded: Encoded, question: Question): Result & { remarks: readonly string[] } {
    const { vocabulary, scores, remarks } = this.score(encoded, question);
    const modes = checkMode(vocabulary, question.options);
    const thresholds = question.thresholds.map((value) => value ?? this.config.threshold);
    const settings = { ...this.config, smallestRegion: question.options.smallestRegion ?? this.config.smallestRegion };
    const result = assemble(scores, encoded.masks, encoded.canvas, vocabulary, settings, question.options.mode, thresholds);
    return { ...result, remarks: [...remarks, ...modes] };
  }

  heatmap(encoded: Encoded, question: Question, index: number): Heatmap {
    const { scores } = this.score(encoded, question);
    return heatmapOf(scores, question.names.length, index, encoded.masks, encoded.canvas, this.config);
  }

  private score(encoded: Encoded, question: Question): { vocabulary: Vocabulary; scores: Float32Array; remarks: readonly string[] } {
    const { names, options, builtIn } = question;
    const weight = options.bankWeight ?? FITTED_WEIGHT;
    const bank = options.bank && weight ? this.teacher.bank : null;
    const key = JSON.stringify([names, options.background, options.things, builtIn !== null, weight]);
    if (this.last?.key !== key || this.last.bank !== bank) {
      const vocabulary = readVocabulary(names, options, builtIn);
      const remarks: string[] = [];
      const classes = embedVocabulary(vocabulary, this.table, this.config.calibration, remarks, bank ? namesWithExamples(bank, vocabulary) : undefined);
      const prepared = bank && prepare(bank, vocabulary, this.wordScore(classes, names.length), weight);
      this.last = { key, bank, vocabulary, classes, remarks, prepared };
    }
    const { vocabulary, classes, remarks, prepared } = this.last;
    let logits = this.wordScore(classes, names.length)(encoded.regions);
    if (prepared) logits = adjust(prepared, logits, encoded.regions);
    const scores = softmax(logits, names.length + 1);
    const kept = vocabulary.builtIn ? keepPresent(scores, names.length, encoded.masks, encoded.canvas, this.config.claim) : scores;
    return { vocabulary, scores: kept, remarks };
  }

  private wordScore(classes: Classes, names: number): Score {
    const { width, noObject, temperature } = this.config;
    return (regions) => classLogits(regions, width, classes, names, noObject, temperature);
  }
}

/** The names of a vocabulary with examples, which need no word; K for the background. */
function namesWithExamples(bank: Bank, vocabulary: Vocabulary): ReadonlySet<number> {
  const columns = columnsOf(bank, vocabulary);
  return new Set(bank.names.flatMap((name, place) => (columns[place] >= 0 && !name.startsWith(NOT) ? [columns[place]] : [])));
}

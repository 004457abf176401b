/** The whole model in one place: what the worker does for the page. */

import type { Heatmap, LabelOptions } from "../types";
import { EngineError } from "../types";
import type { Canvas } from "./canvas";
import { classProbabilities } from "./classification";
import { type ModelConfig, readConfig } from "./config";
import { readPixels } from "./decode";
import { type Classes, embedVocabulary } from "./embedding";
import { Downloads, type Site } from "./files";
import { assemble, heatmapOf, type Result } from "./label";
import { keepPresent } from "./present";
import { MODEL, type Networks, openNetworks, type Preferences } from "./session";
import { readTensors } from "./tensors";
import { checkMode, readVocabulary, type Vocabulary } from "./vocabulary";
import type { Masks } from "./windows";
import { WordTable } from "./words";

export interface Encoded {
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
  private last: { key: string; vocabulary: Vocabulary; classes: Classes; remarks: string[] } | null = null;

  private constructor(
    readonly config: ModelConfig,
    readonly networks: Networks,
    private readonly table: WordTable,
  ) {}

  /** @throws EngineError */
  static async load(base: string, preferences: Preferences, report: (done: number, total: number) => void): Promise<Model> {
    let answer: Response;
    try {
      answer = await fetch(new URL("site.json", base), { cache: "no-cache" });
    } catch {
      throw new EngineError("The page’s files cannot be fetched: the server does not answer. A page cannot run from a file; serve its folder, for example with “python -m http.server”.", true);
    }
    if (!answer.ok) throw new EngineError("The page lacks site.json. Export it again with “deop export nano DIR --web”.");
    const downloads = new Downloads(base, (await answer.json()) as Site, report);
    const config = readConfig(new TextDecoder().decode(await downloads.get(`${MODEL}config.json`)));
    const words = downloads.get(`${MODEL}words.txt`);
    const names = [config.graph, ...Object.keys(config.files).filter((name) => name.endsWith(".safetensors"))];
    const weights = Promise.all(names.map(async (name) => [name, await downloads.get(MODEL + name)] as const)).then((entries) => new Map<string, Uint8Array>(entries));
    words.catch(() => undefined); // reported below, where it is awaited
    weights.catch(() => undefined);
    const networks = await openNetworks(config, weights, downloads, preferences);
    const lines = new TextDecoder().decode(await words).replace(/\n$/, "").split("\n");
    // The rows alone, so that the memory of the whole file can be freed.
    const tensors = readTensors((await weights).get(config.table)!);
    const rows = tensors.get("text.rows");
    if (!rows) throw new EngineError("The model has no word table. Export the page again.");
    return new Model(config, networks, new WordTable(lines, { ...rows, bytes: rows.bytes.slice() }, tensors.get("text.rows::scale"), config.width));
  }

  async encode(file: Blob): Promise<Encoded> {
    const { canvas, pixels } = await readPixels(file, this.config);
    try {
      return { canvas, ...(await this.networks.run(pixels, canvas)) };
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
    const key = JSON.stringify([names, options.background, options.things, builtIn !== null]);
    if (this.last?.key !== key) {
      const vocabulary = readVocabulary(names, options, builtIn);
      const remarks: string[] = [];
      this.last = { key, vocabulary, classes: embedVocabulary(vocabulary, this.table, this.config.calibration, remarks), remarks };
    }
    const { vocabulary, classes, remarks } = this.last;
    const scores = classProbabilities(encoded.regions, classes, names.length, this.config.noObject, this.config.temperature);
    const kept = vocabulary.builtIn ? keepPresent(scores, names.length, encoded.masks, encoded.canvas, this.config.claim) : scores;
    return { vocabulary, scores: kept, remarks };
  }
}

/** What `config.json` of an exported model says, as `deop.runtime.config` reads it. */

import { EngineError } from "../types";

export interface Calibration {
  readonly trainedNames: readonly string[];
  readonly seenPenalty: number;
  readonly rivals: readonly string[];
  readonly rivalSimilarity: number;
  /** Similarity to a rival from which a name counts as seen. */
  readonly seenSimilarity: number;
  /** Names whose similarity to every rival is lower are lowered like seen names. */
  readonly farSimilarity: number;
  /** Words that sum names up, and these names. */
  readonly groups: readonly (readonly [string, readonly string[]])[];
  /** Pairs (raw score, share of correct segments), ascending; empty: raw scores. */
  readonly curve: readonly (readonly [number, number])[];
}

export interface ModelConfig {
  readonly name: string;
  readonly licence: string;
  readonly shortSide: number | null;
  readonly longSide: number;
  readonly divisor: number;
  readonly temperature: number;
  /** Minimum score in [0, 1]. */
  readonly threshold: number;
  readonly calibration: Calibration;
  readonly claim: number;
  /** Shares of the photo in [0, 1). */
  readonly smallestRegion: number;
  readonly smallestThing: number;
  /** Things with a lower score, in [0, 1], are no segments of panoptic mode. */
  readonly thingScore: number;
  /** File name of the graph. */
  readonly graph: string;
  /** File name of the graph for given masks, with which examples are learned; null: it has none. */
  readonly regionsGraph: string | null;
  /** What the graphs compute in: "float32". */
  readonly precision: string;
  /** The options that embeddings depend on: `deop.bank.space`. */
  readonly encoding: Readonly<Record<string, unknown>>;
  /** SHA-256 of each file by name. */
  readonly files: Readonly<Record<string, string>>;
  /** Channels C of the joint space. */
  readonly width: number;
  /** Name of the file with the word table. */
  readonly table: string;
  readonly mean: readonly number[];
  readonly std: readonly number[];
  readonly multiple: number;
  readonly smallest: number;
  readonly noObject: Float32Array | null;
}

type Json = any; // of any shape: what is missing becomes an error of `readConfig`

/**
 * @param precision of the graph; by default the first that the config lists.
 * @throws EngineError the config is of a model that this page cannot run.
 */
export function readConfig(text: string, precision?: string): ModelConfig {
  try {
    return parse(JSON.parse(text), precision);
  } catch (error) {
    if (error instanceof EngineError) throw error;
    throw new EngineError("The model’s config.json is damaged. Export the page again.");
  }
}

function parse({ card, settings, onnx }: Json, precision?: string): ModelConfig {
  if (onnx.version !== 1) throw new EngineError("The model was exported by a newer version of deop than this page.");
  if (onnx.text.kind !== "words" || settings.resize.interpolation !== "bilinear" || onnx.masks_are_instances)
    throw new EngineError(`The model ${card.name} cannot run in a browser: only small models with a word table can.`);
  const { calibration, resize } = settings;
  const chosen = precision ?? Object.keys(onnx.graphs)[0];
  const graph: string | undefined = onnx.graphs[chosen]?.encode;
  if (!graph) throw new EngineError("The model has no graph for photos. Export the page again.");
  return {
    name: card.name,
    licence: card.license,
    shortSide: resize.short_side,
    longSide: resize.long_side,
    divisor: resize.divisor,
    temperature: settings.temperature,
    threshold: settings.threshold,
    calibration: {
      trainedNames: calibration.trained_names,
      seenPenalty: calibration.seen_penalty,
      rivals: calibration.rivals,
      rivalSimilarity: calibration.rival_similarity,
      seenSimilarity: calibration.seen_similarity ?? 1,
      farSimilarity: calibration.far_similarity ?? -1,
      groups: calibration.groups ?? [],
      curve: calibration.curve,
    },
    claim: settings.claim,
    smallestRegion: settings.smallest_region,
    smallestThing: settings.smallest_thing,
    thingScore: settings.thing_score ?? 0,
    graph,
    // Masks that are divided among each other, or windows, are not built here.
    regionsGraph: settings.partition === "none" && !settings.windows ? (onnx.graphs[chosen].regions ?? null) : null,
    precision: chosen,
    encoding: encodingOf(settings),
    files: onnx.files,
    width: onnx.text.width,
    table: onnx.text.file,
    mean: onnx.normalization.mean,
    std: onnx.normalization.std,
    multiple: onnx.multiple,
    smallest: onnx.smallest,
    noObject: onnx.no_object ? Float32Array.from(onnx.no_object) : null,
  };
}

/** What `Severance.record` of deop says about a model, and its anchors. */
function encodingOf({ severance, anchors }: Json): Record<string, unknown> {
  const { kind, layers, residual, ...values } = severance;
  const changed = Object.fromEntries(Object.entries(values).filter(([key, value]) => JSON.stringify(value) !== JSON.stringify(SEVERANCE[key])));
  const parts = kind === "none" ? { severance: "none", severed_layers: [] } : { severance: kind, severed_layers: layers, residual, ...(Object.keys(changed).length ? { severance_values: changed } : {}) };
  return { classifier: "one-pass", ...parts, anchors };
}

/** The defaults of `deop.Severance`. */
const SEVERANCE: Json = { class_token: "ordinary", similarity: "", neighbours: 0, mlp: true, gain: 1, class_key: false, sharpness: 1, shift: 0, uncovered: "self", merge: 0, parallel: false, levels: [], level_weight: 1 };

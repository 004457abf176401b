/** The interface between the page and an engine. A page needs nothing else from a model. */

export type Mode = "semantic" | "panoptic" | "instance";
export type Colour = readonly [red: number, green: number, blue: number];

/** A photo as it was given, and decoded in the orientation in which people see it. */
export interface Photo {
  readonly name: string;
  readonly file: Blob;
  readonly width: number;
  readonly height: number;
  /** The pixels, scaled so that neither side is longer than `longest`; by default at the photo's own size. */
  pixels(longest?: number): Promise<ImageData>;
}

/** A photo that the networks have seen: what `label` needs, whatever the names. */
export interface Handle {
  readonly width: number;
  readonly height: number;
}

export interface EncodeOptions {
  /** How attention is restricted to the masks; null: the model's setting. */
  readonly severance: string | null;
}

export interface LabelOptions {
  readonly mode: Mode;
  /** Minimum score in [0, 1]; null: the model's setting. */
  readonly threshold: number | null;
  /** Share of the photo in [0, 1): smaller connected regions get the name of their surroundings; null: the model's setting. */
  readonly smallestRegion: number | null;
  /** Minimum scores of single names, by any of their synonyms. */
  readonly thresholds: Readonly<Record<string, number>>;
  /** The built-in vocabulary that the names are; a photo keeps those that it shows. Null: names that somebody chose. */
  readonly vocabulary: string | null;
  /** What else the photo may show; its pixels stay without a name. */
  readonly background: readonly string[];
  /** Which of the names are countable things; null: guessed from the names. */
  readonly things: readonly string[] | null;
  /** Whether the engine's examples count beside the words, where there are some. */
  readonly bank: boolean;
  /** How much examples count, in [0, 1]: 0 is words alone, 1 examples alone; null: as fitted, 0.5. */
  readonly bankWeight: number | null;
}

/** What marks an example in a photo, in pixels: the proposal at a point, or the proposals in a box. */
export type Mark = { readonly x: number; readonly y: number } | { readonly left: number; readonly top: number; readonly right: number; readonly bottom: number };

export interface Example {
  readonly mark: Mark;
  /** "cup|mug" has synonyms, "-cup" marks what is not a cup. */
  readonly name: string;
}

/** The names that an engine has examples of; negative ones begin with "-". */
export type Taught = readonly { readonly name: string; readonly regions: number; readonly photos: number }[];

export interface LabelledClass {
  /** The display name: the first of the synonyms. */
  readonly name: string;
  /** Share of the photo in [0, 1]. */
  readonly share: number;
  /** Score in [0, 1]; null if the name was not found. */
  readonly score: number | null;
  readonly colour: Colour;
  /** Whether the name is a countable thing. */
  readonly isThing: boolean;
}

export interface LabelledSegment {
  /** Index into `classes`. */
  readonly classIndex: number;
  readonly score: number;
  readonly share: number;
}

/** One value per pixel, in rows from the top: 0 is none, k + 1 is number k. */
export type PixelMap = Int32Array | Uint16Array;

export interface Labelling {
  readonly width: number;
  readonly height: number;
  /** k + 1 is `classes[k]`, as in the file of `deop segment --labels`. */
  readonly labels: PixelMap;
  /** In the order of the names that were asked. */
  readonly classes: readonly LabelledClass[];
  /** The segments of panoptic and instance mode; empty in semantic mode. */
  readonly segments: readonly LabelledSegment[];
  /** s + 1 is `segments[s]`; where instances overlap, the best one. Null in semantic mode. */
  readonly segmentMap: PixelMap | null;
  /** Remarks for people, such as names that instance mode cannot find. */
  readonly remarks: readonly string[];
}

/** The score of one name; may be smaller than the photo and is then stretched over it. */
export interface Heatmap {
  readonly width: number;
  readonly height: number;
  /** In [0, 1]. */
  readonly values: Float32Array;
}

export interface Capabilities {
  /** Name of the model, as `deop.load` takes it. */
  readonly model: string;
  /** Where it runs, for people: "WebAssembly, 4 threads". */
  readonly backend: string;
  /** Whether photos stay in this browser; otherwise they go to the server that the page came from. */
  readonly local: boolean;
  readonly modes: readonly Mode[];
  /** Values of `severance`; fewer than two: no choice. */
  readonly severances: readonly string[];
  readonly heatmaps: boolean;
  /** The model's settings, which apply where an option is null. */
  readonly defaults: { readonly threshold: number; readonly smallestRegion: number };
  /** Largest photo, in pixels. */
  readonly maxPixels: number;
  readonly maxNames: number;
  /** Whether names can be taught by examples. */
  readonly examples: boolean;
}

/** Bytes of the files that have been fetched, and of all. */
export type Progress = (done: number, total: number) => void;

export interface Engine {
  /** Also loads what has to be loaded. Rejects with an `EngineError` if the engine cannot run. */
  capabilities(progress?: Progress): Promise<Capabilities>;
  /** The expensive half: everything that does not depend on names. */
  encode(photo: Photo, options: EncodeOptions, signal?: AbortSignal): Promise<Handle>;
  /** The cheap half. Names are as people write them: "sofa|couch" are synonyms. */
  label(handle: Handle, names: readonly string[], options: LabelOptions, signal?: AbortSignal): Promise<Labelling>;
  /** The score of `names[index]` at each pixel; the other names compete with it. */
  heatmap(
    handle: Handle,
    names: readonly string[],
    index: number,
    options: LabelOptions,
    signal?: AbortSignal,
  ): Promise<Heatmap>;
  /** Frees what a handle holds. */
  release(handle: Handle): void;
  /** Learns the examples of a photo in place of those that it had before; none: forgets them. */
  teach(handle: Handle, examples: readonly Example[], signal?: AbortSignal): Promise<Taught>;
  /**
   * The pixels that a mark stands for, one byte each, and that `teach` learns from it; null: the engine does not say.
   *
   * @param others the marks that the photo has already, so that an engine can begin to learn before there is a name
   */
  marked(handle: Handle, mark: Mark, others: readonly Mark[]): Promise<Uint8Array | null>;
  /** Adds the examples of a file of `deop learn`, or of `bankFile`. */
  openBank(file: File): Promise<Taught>;
  /** All examples as a file, which `deop segment --bank` takes. */
  bankFile(): Promise<Blob>;
  /** Forgets all examples. */
  clearBank(): Promise<void>;
}

/** A failure that people can read. `again`: whether the same call may succeed later. */
export class EngineError extends Error {
  constructor(
    message: string,
    readonly again = false,
  ) {
    super(message);
    this.name = "EngineError";
  }
}

/** The engine has lost its examples, for example because a server was started again: they have to be taught again. */
export class LostBank extends EngineError {}

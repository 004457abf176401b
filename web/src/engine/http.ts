/**
 * The engine of `deop serve`. What it expects of the server, beside problem+json (RFC 9457) for refusals:
 *
 *   GET  v1/models   {"default": "nano", "models": [{"name", "backend", "modes", "severances", "heatmaps",
 *                     "defaults": {"threshold", "smallest_region"}, "limits": {"pixels", "names"}}]}
 *   POST v1/encode   body: the bytes of the photo; query: severance
 *                    -> 201 {"id": "...", "size": [width, height]}
 *   DELETE v1/encode/{id}
 *   POST v1/label    {"id", "names": [...], "background": [...], "things": [...] | null, "mode",
 *                     "threshold": x | {"*": x, NAME: x} | null, "smallest_region": share | null, "vocabulary": a built-in list | null}
 *                    -> what `Segmentation.summary(rle=True)` returns, and "warnings": [...]
 *                    with "heatmap": index of a name, and Accept: image/png -> grey PNG, 255 = 1
 *                    -> 404 or 410 when the server has dropped the photo: it is then encoded again
 *                    with "bank": [ids] and "bank_weight": x | null; 404 with "missing": "bank" when it has dropped one
 *   POST v1/marks    {"id": photo, "marks": [{"click": [x, y]} | {"box": [left, top, right, bottom]}]}
 *                    -> {"marks": [{"segmentation": {"size", "counts"}}]}, the pixels that are learned; 404 without "missing":
 *                    the server is older, and does not say them
 *   POST v1/banks    body: none, or the bytes of a bank file -> 201 {"id", "names": [{"name", "regions", "photos"}]}
 *   POST v1/banks/{id}             body: the bytes of a bank file, which is added -> the same
 *   POST v1/banks/{id}/examples    {"id": photo, "examples": [{"name", "click": [x, y]} | {"name", "box": [...]}], "replace": true} -> the same
 *   GET  v1/banks/{id}/file        the bytes of a bank file
 *   DELETE v1/banks/{id}
 */

import { parseColour } from "../colours";
import { meansEverythingElse } from "../names";
import { isThing } from "./wasm/things";
import { decompressCounts, paintCounts } from "./rle";
import { EngineError, LostBank } from "./types";
import type { Capabilities, EncodeOptions, Engine, Example, Handle, Heatmap, LabelOptions, Labelling, Mark, Mode, PixelMap, Photo, Taught } from "./types";

interface Remote extends Handle {
  /** What the server calls the photo; changes when it has to be encoded again. */
  id: string;
  readonly photo: Photo;
  readonly options: EncodeOptions;
}

interface Models {
  default: string;
  models: {
    name: string;
    backend?: string;
    modes?: Mode[];
    severances?: string[];
    heatmaps?: boolean;
    defaults?: { threshold?: number; smallest_region?: number };
    limits?: { pixels?: number; names?: number; banks?: number };
  }[];
}

interface RunLengths {
  size: [height: number, width: number];
  counts: string | number[];
}

export interface Summary {
  size: [number, number];
  mode: Mode;
  names: string[];
  classes: { name: string; share: number; score: number | null; colour: string }[];
  segments: { name: string; score: number; share: number; isthing?: boolean; segmentation: RunLengths }[];
  warnings?: string[];
}

const ATTEMPTS = 4; // when the server is busy
const LONGEST_WAIT = 20; // seconds

interface BankSummary {
  readonly id: string;
  readonly names: Taught;
}

export class HttpEngine implements Engine {
  /** Examples that were marked, and those of files: apart, so that new marks of a photo replace no example of a file. */
  private banks: { marks: BankSummary | null; files: BankSummary | null } = { marks: null, files: null };
  /** Whether the server says which pixels a mark stands for. */
  private saysPixels = true;

  constructor(private readonly base: string = new URL(".", document.baseURI).href) {}

  async capabilities(): Promise<Capabilities> {
    const { default: first, models } = (await (await this.request("GET", "v1/models")).json()) as Models;
    const model = models.find(({ name }) => name === first) ?? models[0];
    if (!model) throw new EngineError("The server has no model.");
    return {
      model: model.name,
      backend: model.backend ?? "deop serve",
      local: false,
      modes: model.modes ?? ["semantic", "panoptic", "instance"],
      severances: model.severances ?? [],
      heatmaps: model.heatmaps ?? true,
      defaults: { threshold: model.defaults?.threshold ?? 0, smallestRegion: model.defaults?.smallest_region ?? 0 },
      maxPixels: model.limits?.pixels ?? 100e6,
      maxNames: model.limits?.names ?? 1000,
      examples: (model.limits?.banks ?? 0) > 0,
    };
  }

  async encode(photo: Photo, options: EncodeOptions, signal?: AbortSignal): Promise<Remote> {
    const { id, size } = await this.upload(photo, options, signal);
    return { id, width: size[0], height: size[1], photo, options };
  }

  async label(handle: Handle, names: readonly string[], options: LabelOptions, signal?: AbortSignal): Promise<Labelling> {
    const answer = await this.ask(handle as Remote, "v1/label", this.question(names, options), "application/json", signal);
    return readSummary((await answer.json()) as Summary);
  }

  async heatmap(handle: Handle, names: readonly string[], index: number, options: LabelOptions, signal?: AbortSignal): Promise<Heatmap> {
    const answer = await this.ask(handle as Remote, "v1/label", { ...this.question(names, options), heatmap: index }, "image/png", signal);
    const bitmap = await createImageBitmap(await answer.blob(), { colorSpaceConversion: "none" });
    const { width, height } = bitmap;
    const context = new OffscreenCanvas(width, height).getContext("2d")!;
    context.drawImage(bitmap, 0, 0);
    bitmap.close();
    const { data } = context.getImageData(0, 0, width, height);
    return { width, height, values: Float32Array.from({ length: width * height }, (_, i) => data[4 * i] / 255) };
  }

  release(handle: Handle): void {
    const path = `v1/encode/${encodeURIComponent((handle as Remote).id)}`;
    fetch(this.base + path, { method: "DELETE", keepalive: true }).catch(() => undefined); // it would expire anyway
  }

  private async upload(photo: Photo, options: EncodeOptions, signal?: AbortSignal): Promise<{ id: string; size: [number, number] }> {
    const query = options.severance ? `?severance=${encodeURIComponent(options.severance)}` : "";
    const type = photo.file.type || "application/octet-stream";
    return (await this.request("POST", `v1/encode${query}`, photo.file, { "Content-Type": type }, signal)).json();
  }

  async teach(handle: Handle, examples: readonly Example[], signal?: AbortSignal): Promise<Taught> {
    this.banks.marks ??= await this.createBank();
    const listed = examples.map(({ name, mark }) => ({ name, ...placeOf(mark) }));
    const answer = await this.ask(handle as Remote, `v1/banks/${this.banks.marks.id}/examples`, { examples: listed, replace: true }, "application/json", signal);
    this.banks.marks = (await answer.json()) as BankSummary;
    return this.taught();
  }

  async marked(handle: Handle, mark: Mark): Promise<Uint8Array | null> {
    if (!this.saysPixels) return null;
    let answer: Response;
    try {
      answer = await this.ask(handle as Remote, MARKS, { marks: [placeOf(mark)] }, "application/json");
    } catch (error) {
      if (!isUnknownPath(error, MARKS)) throw error;
      this.saysPixels = false;
      return null;
    }
    const { marks } = (await answer.json()) as { marks: { segmentation: RunLengths }[] };
    const { size, counts } = marks[0].segmentation;
    const { width, height } = (handle as Remote).photo;
    if (size[0] !== height || size[1] !== width) return null; // as a result of another size, it is not shown
    const pixels = new Uint8Array(width * height);
    paintCounts(pixels, width, height, countsIn(counts), 1);
    return pixels;
  }

  async openBank(file: File): Promise<Taught> {
    this.banks.files = this.banks.files ? await this.addTo(this.banks.files, file) : await this.createBank(file);
    return this.taught();
  }

  async bankFile(): Promise<Blob> {
    const { marks, files } = this.banks;
    const content = async ({ id }: BankSummary): Promise<Blob> => (await this.request("GET", `v1/banks/${id}/file`)).blob();
    const filled = [files, marks].filter((bank) => bank !== null).filter(({ names }) => names.length > 0);
    if (!filled.length) throw new EngineError("There are no examples yet.");
    if (filled.length === 1) return content(filled[0]);
    const both = await this.createBank(await content(filled[0]));
    try {
      return await content(await this.addTo(both, await content(filled[1])));
    } finally {
      this.forget(both);
    }
  }

  async clearBank(): Promise<void> {
    for (const bank of [this.banks.marks, this.banks.files]) if (bank) this.forget(bank);
    this.banks = { marks: null, files: null };
  }

  private async createBank(content?: Blob): Promise<BankSummary> {
    return (await this.request("POST", "v1/banks", content, content && BYTES)).json();
  }

  private async addTo({ id }: BankSummary, content: Blob): Promise<BankSummary> {
    return (await this.request("POST", `v1/banks/${id}`, content, BYTES)).json();
  }

  private forget({ id }: BankSummary): void {
    fetch(`${this.base}v1/banks/${id}`, { method: "DELETE", keepalive: true }).catch(() => undefined); // it would expire anyway
  }

  private taught(): Taught {
    const found = new Map<string, { name: string; regions: number; photos: number }>();
    for (const { name, regions, photos } of [this.banks.files, this.banks.marks].flatMap((bank) => bank?.names ?? [])) {
      const other = found.get(name);
      found.set(name, { name, regions: regions + (other?.regions ?? 0), photos: photos + (other?.photos ?? 0) });
    }
    return [...found.values()];
  }

  private question(names: readonly string[], { threshold, thresholds, smallestRegion, bank, bankWeight, ...others }: LabelOptions): object {
    const banks = bank && bankWeight !== 0 ? [this.banks.files, this.banks.marks].flatMap((each) => (each?.names.length ? [each.id] : [])) : [];
    // A server that does not know an option is not asked about it.
    const examples = banks.length ? { bank: banks, ...(bankWeight === null ? {} : { bank_weight: bankWeight }) } : {};
    const options = { names, ...others, ...examples, ...(smallestRegion === null ? {} : { smallest_region: smallestRegion }) };
    if (!Object.keys(thresholds).length) return { ...options, threshold };
    return { ...options, threshold: { ...(threshold === null ? {} : { "*": threshold }), ...thresholds } };
  }

  private async ask(handle: Remote, path: string, question: object, accept: string, signal?: AbortSignal): Promise<Response> {
    const headers = { "Content-Type": "application/json", Accept: accept };
    const send = (): Promise<Response> =>
      this.request("POST", path, JSON.stringify({ id: handle.id, ...question }), headers, signal);
    try {
      return await send();
    } catch (error) {
      if (!(error instanceof Refusal) || (error.status !== 404 && error.status !== 410) || isUnknownPath(error, path)) throw error;
      handle.id = (await this.upload(handle.photo, handle.options, signal)).id;
      return send();
    }
  }

  private async request(method: string, path: string, body?: BodyInit, headers: Record<string, string> = {}, signal?: AbortSignal): Promise<Response> {
    for (let attempt = 1; ; attempt++) {
      let answer: Response;
      try {
        answer = await fetch(this.base + path, { method, headers, body: body ?? null, signal: signal ?? null, cache: "no-store" });
      } catch (error) {
        if (signal?.aborted) throw error;
        throw new EngineError("The server does not answer. It may have been stopped: start “deop serve” again.", true);
      }
      if (answer.ok) return answer;
      const busy = answer.status === 429 || answer.status === 503;
      const wait = Number(answer.headers.get("Retry-After") ?? 1);
      if (!busy || attempt === ATTEMPTS || !(wait >= 0 && wait <= LONGEST_WAIT)) throw await refusal(answer, busy);
      await pause(1000 * wait, signal);
    }
  }
}

const MARKS = "v1/marks";
const BYTES = { "Content-Type": "application/octet-stream" };

class Refusal extends EngineError {
  constructor(
    message: string,
    readonly status: number,
    again: boolean,
    /** What the server does not have: "photo"; null: it does not say. */
    readonly missing: string | null,
  ) {
    super(message, again);
  }
}

async function refusal(answer: Response, again: boolean): Promise<EngineError> {
  let message = `The server answered ${answer.status} ${answer.statusText}`.trim() + ".";
  let missing: string | null = null;
  try {
    const problem = (await answer.json()) as { title?: string; detail?: string; missing?: string };
    if (problem.missing === "bank") return new LostBank("The server has forgotten the examples.", true);
    missing = problem.missing ?? null;
    if (typeof problem.detail === "string") message = problem.detail;
    else if (typeof problem.title === "string") message = problem.title;
  } catch {
    // no JSON: the status has to do
  }
  return new Refusal(message, answer.status, again || answer.status >= 500, missing);
}

/** Whether a server is too old to know the address of the marks; every server that knows it says what is missing. */
const isUnknownPath = (error: unknown, path: string): boolean => path === MARKS && error instanceof Refusal && error.status === 404 && error.missing === null;

/** A mark as the server reads it. */
const placeOf = (mark: Mark): object => ("x" in mark ? { click: [mark.x, mark.y] } : { box: [mark.left, mark.top, mark.right, mark.bottom] });

const countsIn = (counts: string | readonly number[]): readonly number[] => (typeof counts === "string" ? decompressCounts(counts) : counts);

function pause(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

/** What `Segmentation.summary(rle=True)` says, with maps instead of run lengths. */
export function readSummary(summary: Summary): Labelling {
  const [width, height] = summary.size;
  const count = summary.segments.length;
  const empty = (values: number): PixelMap => (values < 65535 ? new Uint16Array(width * height) : new Int32Array(width * height));
  const indices = new Map(summary.names.map((name, index) => [name, index]));
  const segments = summary.segments.map(({ name, score, share }) => ({ classIndex: indices.get(name) ?? 0, score, share }));
  const segmentMap = empty(count);
  // Where instances overlap, the best one is on top, so it is painted last.
  const order = segments.map((_, index) => index).sort((a, b) => segments[a].score - segments[b].score || b - a);
  for (const index of order) {
    const { counts } = summary.segments[index].segmentation;
    paintCounts(segmentMap, width, height, countsIn(counts), index + 1);
  }
  const labels = empty(summary.names.length);
  for (let at = 0; at < labels.length; at++) if (segmentMap[at]) labels[at] = segments[segmentMap[at] - 1].classIndex + 1;
  const semantic = summary.mode === "semantic";
  const flags = new Map(summary.segments.map(({ name, isthing }) => [name, isthing]));
  return {
    width,
    height,
    labels,
    classes: summary.classes.map(({ name, share, score, colour }) => ({ name, share, score, colour: parseColour(colour), isThing: flags.get(name) ?? (isThing(name) && !meansEverythingElse(name)) })),
    segments: semantic ? [] : segments,
    segmentMap: semantic ? null : segmentMap,
    remarks: summary.warnings ?? [],
  };
}

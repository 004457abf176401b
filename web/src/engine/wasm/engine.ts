/** The engine of a page without a server: the model runs in a worker of this browser. */

import { classColours } from "../../colours";
import { EngineError, type Capabilities, type EncodeOptions, type Engine, type Example, type Handle, type Heatmap, type LabelOptions, type Labelling, type Mark, type Photo, type Progress, type Taught } from "../types";
import { displayName } from "../../names";
import { limitsOf } from "../../thresholds";
import { thingsOfList } from "../../vocabularies";
import type { Question } from "./model";
import type { Calls, Reply, Request } from "./worker";

interface Local extends Handle {
  readonly id: number;
}

const MAX_PIXELS = 120e6;
const MAX_NAMES = 1000;
const GPU_FAILED = "deop-webgpu-failed"; // in localStorage: the version of the script that failed

export class WasmEngine implements Engine {
  private readonly waiting = new Map<number, { resolve(value: unknown): void; reject(error: unknown): void }>();
  private worker: Worker | null = null;
  private ready: Promise<Capabilities> | null = null;
  private number = 0;
  private progress: Progress | undefined;
  /** Number of calls, for tests: changing names must not encode again. */
  readonly calls = { encode: 0, label: 0, heatmap: 0, release: 0, teach: 0 };

  capabilities(progress?: Progress): Promise<Capabilities> {
    this.progress = progress;
    this.ready ??= this.start().catch((error: unknown) => {
      this.ready = null;
      this.worker?.terminate();
      this.worker = null;
      throw error;
    });
    return this.ready;
  }

  async encode(photo: Photo, _options: EncodeOptions, signal?: AbortSignal): Promise<Local> {
    this.calls.encode++;
    signal?.throwIfAborted();
    return this.call("encode", photo.file);
  }

  async label(handle: Handle, names: readonly string[], options: LabelOptions, signal?: AbortSignal): Promise<Labelling> {
    this.calls.label++;
    const result = await this.call("label", (handle as Local).id, this.question(names, options));
    signal?.throwIfAborted();
    const colours = classColours(names);
    const classes = result.classes.map((entry, k) => ({ ...entry, name: displayName(names[k]), colour: colours[k] }));
    return { ...result, classes, width: handle.width, height: handle.height };
  }

  async heatmap(handle: Handle, names: readonly string[], index: number, options: LabelOptions): Promise<Heatmap> {
    this.calls.heatmap++;
    return this.call("heatmap", (handle as Local).id, this.question(names, options), index);
  }

  release(handle: Handle): void {
    this.calls.release++;
    void this.call("release", (handle as Local).id).catch(() => undefined);
  }

  async teach(handle: Handle, examples: readonly Example[]): Promise<Taught> {
    this.calls.teach++;
    return this.call("teach", (handle as Local).id, examples);
  }

  async marked(handle: Handle, mark: Mark, others: readonly Mark[]): Promise<Uint8Array> {
    const { id } = handle as Local;
    const { pixels } = await this.call("marked", id, mark);
    // While the name is typed; an error comes again when it is learned.
    void this.call("embed", id, [...others, mark]).catch(() => undefined);
    return pixels;
  }

  async openBank(file: File): Promise<Taught> {
    return this.call("openBank", file);
  }

  async bankFile(): Promise<Blob> {
    return new Blob([(await this.call("bankFile")).bytes], { type: "application/octet-stream" });
  }

  async clearBank(): Promise<void> {
    return this.call("clearBank");
  }

  private question(names: readonly string[], options: LabelOptions): Question {
    return { names, options, thresholds: limitsOf(names, options), builtIn: thingsOfList(options.vocabulary) };
  }

  private async start(): Promise<Capabilities> {
    const wishes = new URLSearchParams(location.search); // ?backend=wasm&threads=1, to compare
    const cores = navigator.hardwareConcurrency || 1;
    const threads = crossOriginIsolated ? Number(wishes.get("threads")) || Math.min(8, cores > 4 ? Math.ceil(cores / 2) : cores) : 1;
    const failed = remembered(GPU_FAILED) === document.querySelector<HTMLMetaElement>('meta[name="deop-site"]')?.content;
    const wished = wishes.get("backend");
    const webgpu = wished === "webgpu" ? "always" : wished === "wasm" || failed ? "never" : "auto";
    this.worker = new Worker("engine.js", { type: "module" });
    this.worker.onmessage = ({ data }: MessageEvent<Reply>) => this.receive(data);
    this.worker.onerror = (event) => {
      event.preventDefault();
      for (const { reject } of this.waiting.values()) reject(new EngineError(event.message ? `The model stopped: ${event.message}` : "The model’s script cannot be loaded. Export the page again."));
      this.waiting.clear();
    };
    const { model, backend, defaults, examples, webgpuFailure } = await this.call("start", document.baseURI, { webgpu, threads });
    if (webgpuFailure !== null) {
      console.info(`WebGPU is not used: ${webgpuFailure}`);
      remember(GPU_FAILED, document.querySelector<HTMLMetaElement>('meta[name="deop-site"]')?.content ?? "");
    }
    return { model, backend, local: true, modes: ["semantic", "panoptic", "instance"], severances: [], heatmaps: true, defaults, maxPixels: MAX_PIXELS, maxNames: MAX_NAMES, examples };
  }

  private call<K extends keyof Calls>(call: K, ...given: Parameters<Calls[K]>): ReturnType<Calls[K]> {
    const number = ++this.number;
    return new Promise((resolve, reject) => {
      if (!this.worker) return reject(new EngineError("The model is not loaded."));
      this.waiting.set(number, { resolve, reject });
      this.worker.postMessage({ call, number, given } as Request);
    }) as ReturnType<Calls[K]>;
  }

  private receive(reply: Reply): void {
    if ("done" in reply) {
      this.progress?.(reply.done, reply.total);
      return;
    }
    const { resolve, reject } = this.waiting.get(reply.number)!;
    this.waiting.delete(reply.number);
    if (!("error" in reply)) return resolve(reply.value);
    reject(reply.plain ? new EngineError(reply.error, reply.again) : new Error(reply.error));
  }
}

function remembered(key: string): string | null {
  try {
    return localStorage.getItem(key);
  } catch {
    return null; // storage is switched off
  }
}

function remember(key: string, value: string): void {
  try {
    localStorage.setItem(key, value);
  } catch {
    // storage is switched off: WebGPU is tried again the next time
  }
}

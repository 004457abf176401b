/** The networks in onnxruntime-web: WebGPU where the browser has it and the graph runs there, else WebAssembly. */

import type * as Ort from "onnxruntime-web";
import { EngineError } from "../types";
import type { Canvas } from "./canvas";
import type { ModelConfig } from "./config";
import type { Downloads } from "./files";
import type { Masks } from "./windows";

export const RUNTIME = "onnxruntime/";
export const MODEL = "model/";
const BUILDS = {
  wasm: { script: "ort.wasm.min.mjs", loader: "ort-wasm-simd-threaded.mjs", binary: "ort-wasm-simd-threaded.wasm" },
  webgpu: { script: "ort.webgpu.min.mjs", loader: "ort-wasm-simd-threaded.asyncify.mjs", binary: "ort-wasm-simd-threaded.asyncify.wasm" },
} as const;

export interface Networks {
  /** For people. */
  readonly backend: string;
  /** Why WebGPU is not used although the browser has it; null otherwise. */
  readonly webgpuFailure: string | null;
  run(pixels: Float32Array, canvas: Canvas): Promise<{ masks: Masks; regions: Float32Array }>;
  /** The embeddings of given masks, whose graph is loaded with the first call. */
  embed(pixels: Float32Array, canvas: Canvas, masks: Masks): Promise<Float32Array>;
}

export interface Preferences {
  /** "auto": where the browser has an adapter that is not computed by the processor. */
  readonly webgpu: "auto" | "never" | "always";
  readonly threads: number;
}

interface Adapter {
  readonly isFallbackAdapter?: boolean;
  readonly info?: { readonly isFallbackAdapter?: boolean };
}

/** Whether the browser gives an adapter; asked before anything is fetched. WebAssembly is faster than one in software. */
async function hasWebGpu(software: boolean): Promise<boolean> {
  try {
    const { gpu } = navigator as { gpu?: { requestAdapter(): Promise<Adapter | null> } };
    const adapter = (await gpu?.requestAdapter()) ?? null;
    return adapter !== null && (software || !(adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter));
  } catch {
    return false;
  }
}

export async function openNetworks(config: ModelConfig, weights: Promise<ReadonlyMap<string, Uint8Array>>, downloads: Downloads, preferences: Preferences): Promise<Networks> {
  let webgpuFailure: string | null = null;
  if (preferences.webgpu !== "never" && (await hasWebGpu(preferences.webgpu === "always")))
    try {
      return await open("webgpu", config, weights, downloads, preferences.threads);
    } catch (error) {
      if (error instanceof EngineError) throw error; // a file that cannot be fetched
      webgpuFailure = error instanceof Error ? error.message.split("\n")[0] : String(error);
    }
  try {
    return { ...(await open("wasm", config, weights, downloads, preferences.threads)), webgpuFailure };
  } catch (error) {
    if (error instanceof EngineError) throw error;
    throw new EngineError(`The model does not run in this browser: ${error instanceof Error ? error.message.split("\n")[0] : String(error)}`);
  }
}

async function open(kind: keyof typeof BUILDS, config: ModelConfig, weights: Promise<ReadonlyMap<string, Uint8Array>>, downloads: Downloads, threads: number): Promise<Networks> {
  const build = BUILDS[kind];
  const binary = downloads.get(RUNTIME + build.binary);
  const script: string = downloads.address(RUNTIME + build.script);
  const ort = (await import(script)) as typeof Ort;
  ort.env.wasm.wasmBinary = (await binary).buffer;
  ort.env.wasm.wasmPaths = { mjs: downloads.address(RUNTIME + build.loader) };
  ort.env.wasm.numThreads = threads;
  ort.env.logLevel = "error";
  const files = await weights;
  const create = (graph: Uint8Array, data: readonly (readonly [string, Uint8Array])[]): Promise<Ort.InferenceSession> =>
    ort.InferenceSession.create(graph, {
      executionProviders: [kind],
      externalData: data.map(([path, bytes]) => ({ path, data: bytes })),
      enableMemPattern: false, // memory must not grow with the number of sizes
      enableCpuMemArena: false,
      logSeverityLevel: 3,
      extra: { session: { disable_quant_qdq: config.graph.includes("int8") ? "0" : "1" } },
    });
  const session = await create(files.get(config.graph)!, [...files].filter(([name]) => name !== config.graph));
  const feedsOf = (pixels: Float32Array, { resized, padded }: Canvas): Record<string, Ort.Tensor> => ({
    pixels: new ort.Tensor("float32", pixels, [1, 3, padded.height, padded.width]),
    size: new ort.Tensor("int64", BigInt64Array.of(BigInt(resized.height), BigInt(resized.width)), [2]),
  });
  // Small, and fetched at once, so that examples can be learned when the network is gone.
  const graph = config.regionsGraph === null ? null : downloads.get(MODEL + config.regionsGraph);
  graph?.catch(() => undefined); // reported below, where it is awaited
  let regions: Promise<Ort.InferenceSession> | null = null;
  const embed: Networks["embed"] = async (pixels, canvas, masks) => {
    // The weights again, from the browser's cache: few people teach names, and keeping them would cost everyone memory.
    regions ??= Promise.all(weightsOf(config).map(async (name) => [name, await downloads.get(MODEL + name)] as const)).then(async (data) => create((await graph)!, data));
    regions.catch(() => (regions = null));
    const result = await (await regions).run({ ...feedsOf(pixels, canvas), masks: new ort.Tensor("float32", masks.logits, [masks.count, masks.height, masks.width]) });
    return (result.regions.data as Float32Array).slice();
  };
  const run: Networks["run"] = async (pixels, canvas) => {
    const result = await session.run(feedsOf(pixels, canvas));
    const [logits, rows] = [result.masks.data as Float32Array, result.regions.data as Float32Array];
    const [count, height, width] = result.masks.dims;
    const kept = Array.from(result.valid.data as Uint8Array, (flag, n) => (flag ? n : -1)).filter((n) => n >= 0);
    return { masks: { count: kept.length, height, width, logits: select(logits, kept, count) }, regions: select(rows, kept, count) };
  };
  // Kernels that a back end lacks show when they run, so a small picture goes first.
  const side = 4 * config.multiple;
  const size = { height: side, width: side };
  await run(new Float32Array(3 * side * side), { photo: size, resized: size, padded: size });
  const backend = kind === "webgpu" ? "WebGPU" : `WebAssembly, ${threads} ${threads === 1 ? "thread" : "threads"}`;
  return { backend, webgpuFailure: null, run, embed };
}

/** The files with weights that the graphs share. */
export const weightsOf = (config: ModelConfig): string[] => Object.keys(config.files).filter((name) => name.endsWith(".safetensors"));

/** Some rows of values in `count` rows, copied. */
function select(values: Float32Array, kept: readonly number[], count: number): Float32Array {
  const stride = values.length / Math.max(1, count);
  if (kept.length === count) return values.slice();
  const result = new Float32Array(kept.length * stride);
  kept.forEach((row, place) => result.set(values.subarray(row * stride, (row + 1) * stride), place * stride));
  return result;
}

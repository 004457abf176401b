/** The worker: runs the model, so that the page stays responsive. */

import { type Capabilities, EngineError, type Example, type Mark, type Taught } from "../types";
import { type Encoded, Model, type Question } from "./model";
import type { Preferences } from "./session";

export interface Calls {
  start(base: string, preferences: Preferences): Promise<Pick<Capabilities, "model" | "backend" | "defaults" | "examples"> & { webgpuFailure: string | null }>;
  encode(file: Blob): Promise<{ id: number; width: number; height: number }>;
  label(id: number, question: Question): Promise<ReturnType<Model["label"]>>;
  heatmap(id: number, question: Question, index: number): Promise<ReturnType<Model["heatmap"]>>;
  release(id: number): Promise<void>;
  teach(id: number, examples: readonly Example[]): Promise<Taught>;
  marked(id: number, mark: Mark): Promise<{ pixels: Uint8Array }>;
  embed(id: number, marks: readonly Mark[]): Promise<void>;
  openBank(file: File): Promise<Taught>;
  bankFile(): Promise<{ bytes: Uint8Array<ArrayBuffer> }>;
  clearBank(): Promise<void>;
}

export type Request = { [K in keyof Calls]: { call: K; number: number; given: Parameters<Calls[K]> } }[keyof Calls];
export type Reply =
  | { number: number; value: unknown }
  | { number: number; error: string; plain: boolean; again: boolean }
  | { done: number; total: number };

const photos = new Map<number, Encoded>();
let model: Promise<Model> | null = null;
let next = 1;

const find = (id: number): Encoded => {
  const encoded = photos.get(id);
  if (!encoded) throw new EngineError("The photo is no longer there. Add it again.");
  return encoded;
};

const calls: Calls = {
  async start(base, preferences) {
    model = Model.load(base, preferences, (done, total) => post({ done, total }));
    const { config, networks } = await model;
    const { name, threshold, smallestRegion, regionsGraph } = config;
    return { model: name, examples: regionsGraph !== null, backend: networks.backend, defaults: { threshold, smallestRegion }, webgpuFailure: networks.webgpuFailure };
  },
  async encode(file) {
    const encoded = await (await model!).encode(file);
    photos.set(next, encoded);
    return { id: next++, width: encoded.canvas.photo.width, height: encoded.canvas.photo.height };
  },
  label: async (id, question) => (await model!).label(find(id), question),
  heatmap: async (id, question, index) => (await model!).heatmap(find(id), question, index),
  async release(id) {
    photos.delete(id);
  },
  teach: async (id, examples) => (await model!).teacher.teach(find(id), examples),
  marked: async (id, mark) => ({ pixels: (await model!).teacher.marked(find(id), mark) }),
  async embed(id, marks) {
    await (await model!).teacher.embed(find(id), marks);
  },
  openBank: async (file) => (await model!).teacher.open(new Uint8Array(await file.arrayBuffer()), file.name),
  bankFile: async () => ({ bytes: await (await model!).teacher.file() }),
  async clearBank() {
    (await model!).teacher.clear();
  },
};

const scope = self as unknown as { onmessage: ((event: MessageEvent<Request>) => void) | null; postMessage(message: Reply, transfer?: Transferable[]): void };
const post = (reply: Reply, transfer: Transferable[] = []): void => scope.postMessage(reply, transfer);

// One call after another: ONNX Runtime runs one photo at a time.
let queue: Promise<unknown> = Promise.resolve();
scope.onmessage = ({ data: { call, number, given } }) => {
  queue = queue.then(async () => {
    try {
      const value = await (calls[call] as (...given: unknown[]) => Promise<unknown>)(...given);
      post({ number, value }, buffersOf(value));
    } catch (error) {
      const plain = error instanceof EngineError;
      post({ number, error: error instanceof Error ? error.message : String(error), plain, again: plain && error.again });
    }
  });
};

/** The large arrays of an answer, which are handed over instead of copied. */
function buffersOf(value: unknown): Transferable[] {
  if (typeof value !== "object" || value === null) return [];
  return Object.values(value).flatMap((each) => (ArrayBuffer.isView(each) ? [each.buffer as ArrayBuffer] : []));
}

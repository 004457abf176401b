/** Banks as safetensors files: `deop.bank.storage`. A file of the page loads in Python, and the other way round. */

import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex } from "@noble/hashes/utils.js";
import { EngineError } from "../../types";
import { floatsOf, metadataOf, readTensors, type Tensor } from "../tensors";
import type { Bank } from "./bank";

const KEY = "deop.bank";
const VERSION = 1;
const DTYPES = { probe: "F32", area: "F32", name_of: "I32", photo_of: "I32", regions: "F16", marked: "BOOL" } as const;
type Key = keyof typeof DTYPES;
const ORDER = Object.keys(DTYPES) as Key[];

/** The model that computed embeddings, and how: `deop.bank.space`. */
export interface Space {
  /** (3, C), the embeddings of three regions of a drawn picture. */
  readonly probe: Float32Array;
  readonly precision: string;
  /** The options that embeddings depend on. */
  readonly encoding: Readonly<Record<string, unknown>>;
  readonly model: string;
  readonly license: string;
  readonly note: string;
}

type Arrays = Record<Key, { readonly shape: readonly number[]; readonly bytes: Uint8Array }>;

const bytesOf = ({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array => new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength);

/** As Python's `json.dumps` writes two lists of texts. */
const listed = (names: readonly string[], photos: readonly string[]): string => `[${[names, photos].map((texts) => `[${texts.map((text) => JSON.stringify(text)).join(", ")}]`).join(", ")}]`;

function digestOf(arrays: Arrays, names: readonly string[], photos: readonly string[]): string {
  const digest = sha256.create().update(new TextEncoder().encode(listed(names, photos)));
  for (const key of ORDER) digest.update(arrays[key].bytes);
  return bytesToHex(digest.digest());
}

/** @param version of the program that writes it */
export function writeBank(bank: Bank, space: Space, version: string): Uint8Array<ArrayBuffer> {
  const count = bank.nameOf.length;
  const arrays: Arrays = {
    probe: { shape: [space.probe.length / bank.width, bank.width], bytes: bytesOf(space.probe) },
    area: { shape: [count], bytes: bytesOf(bank.area) },
    name_of: { shape: [count], bytes: bytesOf(bank.nameOf) },
    photo_of: { shape: [count], bytes: bytesOf(bank.photoOf) },
    regions: { shape: [count, bank.width], bytes: bytesOf(bank.regions) },
    marked: { shape: [count], bytes: bank.marked },
  };
  const { model, license, note, precision, encoding } = space;
  const { names, photos } = bank;
  const described = { version: VERSION, deop: version, model, license, note, precision, encoding, names, photos, sha256: digestOf(arrays, names, photos) };
  const header: Record<string, unknown> = { __metadata__: { [KEY]: JSON.stringify(described) } };
  let offset = 0;
  for (const key of ORDER) {
    const { shape, bytes } = arrays[key];
    header[key] = { dtype: DTYPES[key], shape, data_offsets: [offset, offset + bytes.length] };
    offset += bytes.length;
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const length = Math.ceil(text.length / 8) * 8;
  const file = new Uint8Array(8 + length + offset);
  new DataView(file.buffer).setBigUint64(0, BigInt(length), true);
  file.fill(32, 8, 8 + length).set(text, 8);
  let at = 8 + length;
  for (const key of ORDER) {
    file.set(arrays[key].bytes, at);
    at += arrays[key].bytes.length;
  }
  return file;
}

/**
 * @param name of the file, for messages
 * @throws EngineError no bank, a newer version, or a damaged one
 */
export function readBank(file: Uint8Array, name: string): { bank: Bank; space: Space } {
  let metadata: Record<string, string>;
  let tensors: Map<string, Tensor>;
  try {
    [tensors, metadata] = [readTensors(file), metadataOf(file)];
  } catch {
    throw new EngineError(`${name} is no bank of examples, or is damaged.`);
  }
  let described: any; // of any shape: what is missing becomes an error below
  try {
    described = JSON.parse(metadata[KEY]);
  } catch {
    throw new EngineError(`${name} is no bank of examples.`);
  }
  if (described?.version !== VERSION) throw new EngineError(`${name} was written by a newer version of deop than this page.`);
  try {
    return parse(described, tensors);
  } catch (error) {
    throw new EngineError(`${name} is damaged: ${error instanceof Error ? error.message : String(error)}. Copy or make it again.`);
  }
}

function parse(described: any, tensors: Map<string, Tensor>): { bank: Bank; space: Space } {
  const arrays = Object.fromEntries(
    ORDER.map((key) => {
      const tensor = tensors.get(key);
      if (tensor?.dtype !== DTYPES[key]) throw new RangeError(`it has no ${key} of type ${DTYPES[key]}`);
      return [key, tensor];
    }),
  ) as Record<Key, Tensor>;
  const [count, width] = arrays.regions.shape;
  const { names, photos } = described;
  const sizes = { probe: 4 * arrays.probe.shape[0] * width, area: 4 * count, name_of: 4 * count, photo_of: 4 * count, regions: 2 * count * width, marked: count };
  if (arrays.regions.shape.length !== 2 || arrays.probe.shape[1] !== width || ORDER.some((key) => arrays[key].bytes.length !== sizes[key])) throw new RangeError("its tensors do not fit each other");
  if (![names, photos].every((texts) => Array.isArray(texts) && texts.every((text) => typeof text === "string"))) throw new RangeError("a name is not a text");
  if (described.sha256 !== digestOf(arrays, names, photos)) throw new RangeError("its SHA-256 is not the one that it names");
  const copy = (key: Key): ArrayBuffer => arrays[key].bytes.slice().buffer as ArrayBuffer;
  const [nameOf, photoOf, regions] = [new Int32Array(copy("name_of")), new Int32Array(copy("photo_of")), new Uint16Array(copy("regions"))];
  if (!nameOf.every((at) => at >= 0 && at < names.length) || !photoOf.every((at) => at >= 0 && at < photos.length)) throw new RangeError("it refers to a name that it does not have");
  if (regions.some((bits) => (bits & 0x7c00) === 0x7c00)) throw new RangeError("an embedding is not finite");
  const { precision, encoding, model, license, note } = described;
  return {
    bank: { width, names, photos, regions, nameOf, photoOf, marked: new Uint8Array(copy("marked")), area: floatsOf(arrays.area) },
    space: { probe: floatsOf(arrays.probe), precision, encoding, model, license, note },
  };
}

const SAME = 0.999; // cosine of the embeddings of the test regions from which two models count as the same
const COMPARED = ["classifier", "severance", "severed_layers", "residual", "severance_values", "anchors", "windows"];

/** @throws EngineError examples of another model, or that were learned in another way */
export function checkSame(bank: Space, page: Space, name: string): void {
  const again = "Learn the examples again with this model.";
  if (bank.precision !== page.precision) throw new EngineError(`${name} was learned in ${bank.precision}, and this page computes in ${page.precision}. ${again}`);
  const width = page.probe.length / 3;
  const cosine = (row: number): number => {
    let sum = 0;
    for (let at = row * width; at < (row + 1) * width; at++) sum += bank.probe[at] * page.probe[at];
    return sum;
  };
  if (bank.probe.length !== page.probe.length || ![0, 1, 2].every((row) => cosine(row) >= SAME)) {
    const which = bank.model === page.model ? `another version of ${page.model}` : `${bank.model || "another model"}, and this page has ${page.model}`;
    throw new EngineError(`${name} does not fit: it was learned with ${which}. ${again}`);
  }
  for (const key of COMPARED)
    if (JSON.stringify(bank.encoding[key]) !== JSON.stringify(page.encoding[key]))
      throw new EngineError(`${name} does not fit: it was learned with ${key} ${JSON.stringify(bank.encoding[key])}, and this page has ${JSON.stringify(page.encoding[key])}. ${again}`);
}

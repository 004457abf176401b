/** The examples of a page: learned from photos, read from files, written into one. */

import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex } from "@noble/hashes/utils.js";
import { cleanName } from "../../../names";
import { EngineError, type Example, type Mark, type Taught } from "../../types";
import { canvasOf } from "../canvas";
import type { ModelConfig } from "../config";
import { readPixels } from "../decode";
import type { Encoded } from "../model";
import { normalise, resizePhoto } from "../resize";
import type { Networks } from "../session";
import { type Bank, countsOf, joinBanks, NOT, UNMARKED } from "./bank";
import { cellLogits, drawnPicture, learnPhoto, type Marked } from "./learning";
import { regionOf } from "./marks";
import { checkSame, readBank, type Space, writeBank } from "./storage";

const KEPT = 8; // embeddings of a photo's marks: undoing a step must not run the networks again

interface Embedded {
  /** Digest of the photo. */
  readonly photo: string;
  /** Null without marks. */
  readonly learned: Omit<Marked, "names"> | null;
}

export class Teacher {
  /** All examples; null: none. */
  bank: Bank | null = null;
  private readonly photos = new Map<string, Bank>();
  private readonly embedded = new WeakMap<Encoded, Map<string, Promise<Embedded>>>();
  private files: { bank: Bank; space: Space }[] = [];
  private probe: Promise<Float32Array> | null = null;

  constructor(
    private readonly config: ModelConfig,
    private readonly networks: Networks,
    private readonly version: string,
  ) {}

  /** Learns the examples of a photo in place of those that it had. */
  async teach(encoded: Encoded, examples: readonly Example[]): Promise<Taught> {
    const names = examples.map(({ name }) => cleanExample(name));
    const { photo, learned } = await this.embed(encoded, examples.map(({ mark }) => mark));
    const before = this.photos.get(photo);
    if (learned) this.photos.set(photo, learnPhoto(photo, encoded, { names, ...learned }, encoded.canvas));
    else this.photos.delete(photo);
    try {
      return this.join();
    } catch (error) {
      // What does not go with the other examples is not learned.
      if (before) this.photos.set(photo, before);
      else this.photos.delete(photo);
      this.join();
      throw error;
    }
  }

  /** The embeddings of marked regions, computed once: they do not depend on the names, which people type meanwhile. */
  embed(encoded: Encoded, marks: readonly Mark[]): Promise<Embedded> {
    let known = this.embedded.get(encoded);
    if (!known) this.embedded.set(encoded, (known = new Map()));
    const key = JSON.stringify(marks);
    let embedded = known.get(key);
    if (!embedded) {
      known.set(key, (embedded = this.compute(encoded, marks)));
      embedded.catch(() => known.delete(key));
      for (const old of known.keys()) {
        if (known.size <= KEPT) break;
        known.delete(old);
      }
    }
    return embedded;
  }

  private async compute(encoded: Encoded, marks: readonly Mark[]): Promise<Embedded> {
    const { canvas, masks, file } = encoded;
    const digest = sha256.create().update(new TextEncoder().encode(`(${canvas.photo.height}, ${canvas.photo.width}, 3)`));
    const { pixels } = await readPixels(file, this.config, (rows) => digest.update(rows));
    const photo = bytesToHex(digest.digest()).slice(0, 32);
    if (!marks.length) return { photo, learned: null };
    const size = masks.height * masks.width;
    const cells = new Float32Array(marks.length * size);
    // One after the other, since the regions of a large photo need much memory.
    const areas = marks.map((mark, m) => {
      const region = regionOf(mark, masks, canvas);
      cells.set(cellLogits([region], canvas, masks.height, masks.width), m * size);
      return region.reduce((sum, value) => sum + value, 0) / region.length;
    });
    const regions = await this.networks.embed(pixels, canvas, { count: marks.length, height: masks.height, width: masks.width, logits: cells });
    return { photo, learned: { areas, cells, regions } };
  }

  marked(encoded: Encoded, mark: Mark): Uint8Array {
    return regionOf(mark, encoded.masks, encoded.canvas);
  }

  async open(content: Uint8Array, name: string): Promise<Taught> {
    const { bank, space } = readBank(content, name);
    checkSame(space, await this.space(), name);
    this.files.push({ bank, space });
    try {
      return this.join();
    } catch (error) {
      this.files.pop();
      this.join();
      throw error;
    }
  }

  async file(): Promise<Uint8Array<ArrayBuffer>> {
    if (!this.bank) throw new EngineError("There are no examples yet.");
    const notes = new Set(this.files.flatMap(({ space }) => space.note.split("; ").filter(Boolean)));
    return writeBank(this.bank, { ...(await this.space()), note: [...notes].sort().join("; ") }, this.version);
  }

  clear(): void {
    this.photos.clear();
    this.files = [];
    this.join();
  }

  private join(): Taught {
    const banks = [...this.files.map(({ bank }) => bank), ...this.photos.values()];
    this.bank = banks.length ? joinBanks(banks) : null;
    return this.bank ? countsOf(this.bank).filter(({ name }) => name !== UNMARKED) : [];
  }

  /** The description of this page's model. */
  private async space(): Promise<Space> {
    this.probe ??= this.test();
    this.probe.catch(() => (this.probe = null));
    const { precision, encoding, name: model, licence: license } = this.config;
    return { probe: await this.probe, precision, encoding, model, license, note: "" };
  }

  private async test(): Promise<Float32Array> {
    const { height, width, pixels, masks } = drawnPicture();
    const canvas = canvasOf({ height, width }, this.config);
    const read = (first: number, count: number): Uint8ClampedArray => Uint8ClampedArray.from({ length: 4 * count * width }, (_, i) => (i % 4 === 3 ? 255 : pixels[3 * (first * width + (i >> 2)) + (i % 4)]));
    const input = normalise(resizePhoto({ height, width }, canvas.resized, read), canvas, this.config.mean, this.config.std);
    const [rows, columns] = [canvas.padded.height / 4, canvas.padded.width / 4];
    return this.networks.embed(input, canvas, { count: masks.length, height: rows, width: columns, logits: cellLogits(masks, canvas, rows, columns) });
  }
}

/** A name as banks store it. */
function cleanExample(name: string): string {
  const sign = name.trim().startsWith(NOT) ? NOT : "";
  const text = cleanName(name.trim().slice(sign.length));
  if (!text) throw new EngineError("The name of the example is blank.");
  return sign + text;
}

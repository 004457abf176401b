/** The photos of a page: files and samples, of which only the last few shown are kept decoded. */

import { readPhoto, readSample, SAMPLES, type ShownPhoto } from "./photo";

export interface Entry {
  readonly id: number;
  readonly name: string;
  readonly sample: string | null;
  /** Address of a small picture. */
  readonly thumbnail: string;
  readonly file: Blob;
}

const THUMBNAIL = 160; // pixels
const KEPT = 3;

export class Photos {
  private readonly decoded = new Map<number, Promise<ShownPhoto>>();
  private next = 1;

  constructor(private readonly maxPixels: () => number) {}

  /** @throws PhotoError */
  async add(file: Blob, name: string): Promise<Entry> {
    return this.enter(await readPhoto(file, name, this.maxPixels()), null);
  }

  /** @throws PhotoError */
  async addSample(id: string): Promise<Entry> {
    return this.enter(await readSample(id, this.maxPixels()), SAMPLES.find((sample) => sample.id === id)?.id ?? null);
  }

  private async enter(photo: ShownPhoto, sample: string | null): Promise<Entry> {
    const factor = Math.min(1, THUMBNAIL / Math.min(photo.width, photo.height));
    const canvas = new OffscreenCanvas(Math.max(1, Math.round(photo.width * factor)), Math.max(1, Math.round(photo.height * factor)));
    canvas.getContext("2d")!.drawImage(photo.bitmap, 0, 0, canvas.width, canvas.height);
    const thumbnail = URL.createObjectURL(await canvas.convertToBlob({ type: "image/webp", quality: 0.85 }));
    const entry: Entry = { id: this.next++, name: photo.name, sample, thumbnail, file: photo.file };
    this.keep(entry.id, Promise.resolve(photo));
    return entry;
  }

  load(entry: Entry): Promise<ShownPhoto> {
    const photo = this.decoded.get(entry.id) ?? readPhoto(entry.file, entry.name, this.maxPixels());
    this.keep(entry.id, photo);
    return photo;
  }

  forget(entry: Entry): void {
    this.decoded.delete(entry.id);
    URL.revokeObjectURL(entry.thumbnail);
  }

  private keep(id: number, photo: Promise<ShownPhoto>): void {
    this.decoded.delete(id);
    this.decoded.set(id, photo);
    for (const old of this.decoded.keys()) {
      if (this.decoded.size <= KEPT) break;
      this.decoded.delete(old);
    }
  }
}

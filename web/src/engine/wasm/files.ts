/** The files of the model and of ONNX Runtime, from the page's own folder, with progress. */

import { EngineError } from "../types";

export interface SiteFile {
  readonly size: number;
  readonly sha256: string;
}

/** `site.json`, which the export writes: files by path, relative to the page. */
export interface Site {
  /** Version of deop that exported the page. */
  readonly deop: string;
  /** Version of onnxruntime-web. */
  readonly runtime: string;
  readonly files: Readonly<Record<string, SiteFile>>;
}

const ATTEMPTS = 2;

export class Downloads {
  private done = 0;
  private total = 0;

  constructor(
    private readonly base: string,
    private readonly site: Site,
    private readonly report: (done: number, total: number) => void,
  ) {}

  /** The address of a file. It changes with the file, so that no cache gives an old one. */
  address(path: string): string {
    const file = this.site.files[path];
    return new URL(file ? `${path}?v=${file.sha256.slice(0, 12)}` : path, this.base).href;
  }

  /**
   * A file, checked against its SHA-256 where the browser can compute one (in secure contexts).
   *
   * @throws EngineError it cannot be fetched, or is not the file that the export wrote
   */
  async get(path: string): Promise<Uint8Array<ArrayBuffer>> {
    const file = this.site.files[path];
    if (!file) throw new EngineError(`The page lacks ${path}. Export it again.`);
    this.total += file.size;
    for (let attempt = 1; ; attempt++) {
      const before = this.done;
      try {
        const bytes = await this.fetch(path, file.size, attempt > 1);
        if (bytes.length !== file.size) throw new EngineError(`${path} is incomplete: ${bytes.length} of ${file.size} bytes. Reload the page, or export it again.`);
        if (globalThis.crypto?.subtle && (await digest(bytes)) !== file.sha256)
          throw new EngineError(`${path} is not the file that was exported with this page. Reload the page, or export it again.`);
        return bytes;
      } catch (error) {
        this.done = before;
        if (attempt === ATTEMPTS) throw error;
      }
    }
  }

  private async fetch(path: string, size: number, again: boolean): Promise<Uint8Array<ArrayBuffer>> {
    let answer: Response;
    try {
      answer = await fetch(this.address(path), again ? { cache: "reload" } : {});
    } catch {
      throw new EngineError(`${path} cannot be fetched: the server does not answer.`, true);
    }
    if (!answer.ok || !answer.body) throw new EngineError(`${path} cannot be fetched: the server answered ${answer.status}.`, answer.status >= 500);
    let bytes = new Uint8Array(size);
    let at = 0;
    const reader = answer.body.getReader();
    for (;;) {
      let part: ReadableStreamReadResult<Uint8Array>;
      try {
        part = await reader.read();
      } catch {
        throw new EngineError(`${path} cannot be fetched: the connection broke off.`, true);
      }
      if (part.done) break;
      if (at + part.value.length > size) throw new EngineError(`${path} is longer than the file that was exported with this page. Export it again.`);
      bytes.set(part.value, at);
      at += part.value.length;
      this.done += part.value.length;
      this.report(this.done, this.total);
    }
    if (at < size) bytes = bytes.slice(0, at);
    return bytes;
  }
}

async function digest(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

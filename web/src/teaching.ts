/** The examples of a page, and the engine's copy of them. */

import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex } from "@noble/hashes/utils.js";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { LostBank, type Engine, type Example, type Taught } from "./engine/types";
import { failure, type Handles } from "./hooks";
import { displayName } from "./names";
import type { ShownPhoto } from "./photo";
import type { Entry } from "./photos";

/** An example that somebody marked on this page. */
export interface Lesson extends Example {
  readonly id: number;
  readonly entry: Entry;
}

/** "not cup" for "-cup". */
export const spokenName = (name: string): string => (name.startsWith("-") ? `not ${displayName(name.slice(1))}` : displayName(name));

/** All that names are learned from. */
interface Lessons {
  readonly marked: readonly Lesson[];
  /** Banks that were opened. */
  readonly files: readonly File[];
}

export interface TeachingState extends Lessons {
  /** What the engine has learned. */
  readonly taught: Taught;
  /** Changes with what the engine has learned; 0: nothing. */
  readonly version: number;
  readonly busy: boolean;
  readonly canUndo: boolean;
}

const digests = new WeakMap<Blob, Promise<string>>();

/** The SHA-256 of a file. */
function contentOf(file: Blob): Promise<string> {
  let digest = digests.get(file);
  if (!digest) digests.set(file, (digest = file.arrayBuffer().then((content) => bytesToHex(sha256(new Uint8Array(content))))));
  return digest;
}

const NOTHING: Lessons = { marked: [], files: [] };

export class Teaching {
  state: TeachingState = { ...NOTHING, taught: [], version: 0, busy: false, canUndo: false };
  private past: Lessons[] = [];
  /** What the engine has: the marks of each photo, as text, and files. Null: unknown, so that all is taught again. */
  private done: { photos: Map<string, { entry: Entry; text: string }>; files: readonly File[]; severance: string | null } | null = null;
  private queue: Promise<unknown> = Promise.resolve();
  private next = 1;
  private severance: string | null = null;

  constructor(
    private readonly engine: Engine,
    private readonly handles: Handles,
    private readonly load: (entry: Entry) => Promise<ShownPhoto>,
    private readonly changed: (state: TeachingState) => void,
  ) {}

  /** Each change is refused as a whole: then all is as before, and the error is thrown. */
  add(entry: Entry, example: Example): Promise<void> {
    return this.apply((old) => ({ ...old, marked: [...old.marked, { ...example, entry, id: this.next++ }] }));
  }

  remove(id: number): Promise<void> {
    return this.apply((old) => ({ ...old, marked: old.marked.filter((lesson) => lesson.id !== id) }));
  }

  removeFile(file: File): Promise<void> {
    return this.apply((old) => ({ ...old, files: old.files.filter((other) => other !== file) }));
  }

  open(files: readonly File[]): Promise<void> {
    return this.apply((old) => ({ ...old, files: [...old.files, ...files] }));
  }

  clear(): Promise<void> {
    return this.apply(() => NOTHING);
  }

  undo(): Promise<void> {
    const before = this.past.pop();
    return before ? this.apply(() => before, false) : Promise.resolve();
  }

  /** Learns all examples again: with another severance, their embeddings differ. */
  encodeWith(severance: string | null): Promise<void> {
    if (severance === this.severance) return Promise.resolve();
    this.severance = severance;
    return this.state.version ? this.again() : Promise.resolve();
  }

  /** Teaches an engine that has lost its examples. */
  again(): Promise<void> {
    this.done = null;
    return this.apply((old) => old, false);
  }

  private apply(change: (old: Lessons) => Lessons, remember = true): Promise<void> {
    const job = this.queue.then(async () => {
      const { marked, files } = this.state;
      const wanted = change({ marked, files });
      this.tell({ busy: true });
      try {
        const taught = await this.sync(wanted);
        if (remember) this.past.push({ marked, files });
        this.tell({ marked: wanted.marked, files: wanted.files, taught, version: taught.length ? this.next++ : 0 });
      } finally {
        this.tell({ busy: false });
      }
    });
    this.queue = job.catch(() => undefined);
    return job;
  }

  private tell(change: Partial<TeachingState>): void {
    this.state = { ...this.state, ...change, canUndo: this.past.length > 0 };
    this.changed(this.state);
  }

  /** Teaches the engine what it does not have yet, and lets it forget the rest. */
  private async sync(wanted: Lessons): Promise<Taught> {
    try {
      return await this.attempt(wanted);
    } catch (error) {
      if (!(error instanceof LostBank)) throw error;
      this.done = null;
      return this.attempt(wanted);
    }
  }

  private async attempt({ marked, files }: Lessons): Promise<Taught> {
    const { severance } = this;
    let taught = this.state.taught;
    // An engine adds files, but takes none away.
    if (!this.done || this.done.severance !== severance || this.done.files.some((file, at) => file !== files[at]) || (!marked.length && !files.length)) {
      await this.engine.clearBank();
      this.done = { photos: new Map(), files: [], severance };
      taught = [];
    }
    const { done } = this;
    for (const file of files.slice(done.files.length)) {
      taught = await this.engine.openBank(file);
      done.files = [...done.files, file];
    }
    // Engines know photos by their content, so that the marks of two copies of one photo belong together.
    const photos = new Map([...done.photos].map(([key, { entry }]) => [key, { entry, examples: [] as Example[] }]));
    for (const { entry, mark, name } of marked) {
      const key = await contentOf(entry.file);
      if (!photos.has(key)) photos.set(key, { entry, examples: [] });
      photos.get(key)!.examples.push({ mark, name });
    }
    for (const [key, { entry, examples }] of photos) {
      const text = JSON.stringify(examples);
      if (done.photos.get(key)?.text === text) continue;
      taught = await this.engine.teach(await this.handles.get(await this.load(entry), severance), examples);
      if (examples.length) done.photos.set(key, { entry, text });
      else done.photos.delete(key);
    }
    return taught;
  }
}

/**
 * The examples of a page, as state.
 *
 * @param learned is told what the engine has learned, before the page is drawn with it
 */
export function useTeaching(engine: Engine, handles: Handles, load: (entry: Entry) => Promise<ShownPhoto>, severance: string | null, learned: (taught: Taught) => void, report: (message: string) => void): { teaching: Teaching; state: TeachingState } {
  const [state, setState] = useState<TeachingState | null>(null);
  const listener = useRef(learned);
  listener.current = learned;
  const teaching = useMemo(() => {
    let version = 0;
    return new Teaching(engine, handles, load, (next) => {
      if (next.version !== version) listener.current(next.taught);
      version = next.version;
      setState(next);
    });
  }, [engine]);
  useEffect(() => {
    teaching.encodeWith(severance).catch((error: unknown) => report(failure(error).message));
  }, [severance]);
  return { teaching, state: state ?? teaching.state };
}

/** What the page asks of the engine, as state. */

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { EngineError, LostBank, type Engine, type Handle, type Heatmap, type Labelling } from "./engine/types";
import { Latest } from "./latest";
import type { ShownPhoto } from "./photo";
import { askedNames, labelOptions, type Settings } from "./settings";

/** Photos that have been encoded; each once for a severance, however often its names change. */
export class Handles {
  private readonly handles = new Map<string, Promise<Handle>>();
  private readonly numbers = new WeakMap<Blob, number>();
  private next = 1;

  constructor(
    private readonly engine: Engine,
    private readonly most = 16,
  ) {}

  get(photo: ShownPhoto, severance: string | null): Promise<Handle> {
    const key = `${this.number(photo.file)} ${severance ?? ""}`;
    const handle = this.handles.get(key) ?? this.engine.encode(photo, { severance });
    this.handles.delete(key);
    this.handles.set(key, handle);
    handle.catch(() => this.handles.delete(key)); // the next question tries again
    for (const old of this.handles.keys()) {
      if (this.handles.size <= this.most) break;
      this.drop(old);
    }
    return handle;
  }

  /** Frees what belongs to a photo. */
  forget(file: Blob): void {
    const number = this.numbers.get(file);
    for (const key of [...this.handles.keys()]) if (key.startsWith(`${number} `)) this.drop(key);
  }

  private drop(key: string): void {
    const handle = this.handles.get(key);
    this.handles.delete(key);
    handle?.then((value) => this.engine.release(value)).catch(() => undefined);
  }

  private number(file: Blob): number {
    const number = this.numbers.get(file) ?? this.next++;
    this.numbers.set(file, number);
    return number;
  }
}

export interface Failure {
  readonly message: string;
  readonly again: boolean;
  /** Whether the engine has lost its examples. */
  readonly lost?: boolean;
}

export function failure(error: unknown): Failure {
  if (error instanceof EngineError) return { message: error.message, again: error.again, lost: error instanceof LostBank };
  console.error(error);
  return { message: `Something went wrong: ${error instanceof Error ? error.message : String(error)}`, again: false };
}

export interface Answer<T> {
  /** The newest answer for the photo; kept while the next one is on its way. */
  readonly value: T | null;
  readonly settings: Settings | null;
  readonly busy: boolean;
  readonly failure: Failure | null;
  retry(): void;
}

const PAUSE = 3000; // milliseconds before a question is asked again by itself

function useAnswer<T>(
  engine: Engine,
  handles: Handles,
  photo: ShownPhoto | null,
  settings: Settings | null,
  key: string | null,
  ask: (handle: Handle, settings: Settings, signal: AbortSignal) => Promise<T>,
): Answer<T> {
  const latest = useMemo(() => new Latest(), [engine]);
  const [state, setState] = useState<{ photo: ShownPhoto | null; key: string | null; settings: Settings | null; value: T | null; failure: Failure | null }>(
    { photo: null, key: null, settings: null, value: null, failure: null },
  );
  const [turn, setTurn] = useState(0);
  const abort = useRef<AbortController | null>(null);
  useEffect(() => () => abort.current?.abort(), [photo, settings?.severance]);
  useEffect(() => {
    if (!photo || !settings || key === null) return;
    let current = true;
    latest.ask(async () => {
      if (!current) return;
      const controller = new AbortController();
      abort.current = controller;
      try {
        const value = await ask(await handles.get(photo, settings.severance), settings, controller.signal);
        if (!controller.signal.aborted) setState({ photo, key, settings, value, failure: null });
      } catch (error) {
        if (!controller.signal.aborted)
          setState((old) => ({ photo, key, settings: old.settings, value: old.photo === photo ? old.value : null, failure: failure(error) }));
      }
    });
    return () => {
      current = false;
    };
  }, [engine, photo, key, turn]);

  const retry = (): void => setTurn((value) => value + 1);
  const own = state.photo === photo && key !== null;
  const problem = own && state.key === key ? state.failure : null;
  useEffect(() => {
    if (!problem?.again) return;
    const timer = setInterval(retry, PAUSE);
    return () => clearInterval(timer);
  }, [problem]);
  return {
    value: own ? state.value : null,
    settings: own ? state.settings : null,
    busy: photo !== null && key !== null && !(own && state.key === key),
    failure: problem,
    retry,
  };
}

/**
 * The result for a photo; null settings: none is wanted.
 *
 * @param bank the number of the engine's examples, which changes with them; 0: none
 */
export function useLabelling(engine: Engine, handles: Handles, photo: ShownPhoto | null, settings: Settings | null, bank: number): Answer<Labelling> {
  const key = settings && askedNames(settings).length ? questionKey(settings, bank) : null;
  return useAnswer(engine, handles, photo, settings, key, (handle, own, signal) =>
    engine.label(handle, askedNames(own), labelOptions(own, bank > 0), signal),
  );
}

/** The heatmap of a name; null: none is wanted. */
export function useHeatmap(engine: Engine, handles: Handles, photo: ShownPhoto | null, settings: Settings, index: number | null, bank: number): Answer<Heatmap> {
  const key = index === null || index < 0 ? null : `${index} ${questionKey(settings, bank)}`;
  return useAnswer(engine, handles, photo, settings, key, (handle, own, signal) =>
    engine.heatmap(handle, askedNames(own), index!, labelOptions(own, bank > 0), signal),
  );
}

/** What an answer depends on; opacity and style are not part of it. */
const questionKey = (settings: Settings, bank: number): string => JSON.stringify([askedNames(settings), labelOptions(settings, bank > 0), settings.severance, bank]);

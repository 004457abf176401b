/** The engine at the start: what it can do, and how far it is loaded until then. */

import { useEffect, useState } from "preact/hooks";
import type { Capabilities, Engine } from "./engine/types";
import { failure, type Failure } from "./hooks";

const RETRY = 3000; // milliseconds

export interface Start {
  /** Null until the engine is ready. */
  readonly capabilities: Capabilities | null;
  /** Bytes of the model that have arrived; null where nothing is loaded. */
  readonly loaded: { readonly done: number; readonly total: number } | null;
  readonly failure: Failure | null;
  /** The engine or its state, for people. */
  readonly about: string;
}

/** Starts the engine, again and again until it is there. */
export function useCapabilities(engine: Engine): Start {
  const [capabilities, setCapabilities] = useState<Capabilities | null>(null);
  const [loaded, setLoaded] = useState<Start["loaded"]>(null);
  const [problem, setProblem] = useState<Failure | null>(null);
  useEffect(() => {
    let timer = 0;
    const start = (): void => {
      engine.capabilities((done, total) => setLoaded({ done, total })).then(
        (value) => {
          setCapabilities(value);
          setProblem(null);
        },
        (error: unknown) => {
          const found = failure(error);
          setProblem(found);
          if (found.again) timer = window.setTimeout(start, RETRY);
        },
      );
    };
    start();
    return () => clearTimeout(timer);
  }, [engine]);
  return { capabilities, loaded, failure: problem, about: describe(capabilities, problem, loaded) };
}

function describe(capabilities: Capabilities | null, problem: Failure | null, loaded: Start["loaded"]): string {
  if (capabilities) {
    const place = capabilities.local ? "photos stay in this browser" : "photos go to this server only";
    return `${capabilities.model} · ${capabilities.backend} · ${place}`;
  }
  if (problem) return "not available";
  if (!loaded) return "starting";
  const megabytes = (bytes: number): string => (bytes / 1e6).toFixed(0);
  return loaded.done < loaded.total ? `loading the model, ${megabytes(loaded.done)} of ${megabytes(loaded.total)} MB` : "starting the model";
}

/** The photos of the page, as state: which there are, and which is shown. */

import { useCallback, useEffect, useState } from "preact/hooks";
import { failure, type Handles } from "./hooks";
import { PhotoError, type ShownPhoto } from "./photo";
import type { Entry, Photos } from "./photos";

export interface Entries {
  readonly entries: readonly Entry[];
  /** The one that is shown. */
  readonly entry: Entry | null;
  readonly photo: ShownPhoto | null;
  readonly reading: boolean;
  show(entry: Entry): void;
  takeFiles(files: readonly File[]): void;
  takeSample(id: string): void;
  remove(entry: Entry): void;
}

/** @param onProblems is told what was wrong with the files that were taken last; none: nothing */
export function useEntries(photos: Photos, handles: Handles, onProblems: (messages: readonly string[]) => void): Entries {
  const [entries, setEntries] = useState<readonly Entry[]>([]);
  const [entry, setEntry] = useState<Entry | null>(null);
  const [photo, setPhoto] = useState<ShownPhoto | null>(null);
  const [reading, setReading] = useState(false);
  const take = useCallback(
    async (jobs: readonly (() => Promise<Entry>)[]): Promise<void> => {
      setReading(true);
      const failures: string[] = [];
      let shown: Entry | null = null;
      for (const job of jobs) {
        try {
          const added = await job();
          setEntries((old) => [...old, added]);
          shown ??= added;
        } catch (error) {
          failures.push(reasonOf(error));
        }
        if (shown && jobs.length > 1) setEntry(shown);
      }
      setReading(false);
      onProblems(failures);
      if (shown) setEntry(shown);
    },
    [photos],
  );
  useEffect(() => {
    if (!entry) return setPhoto(null);
    let current = true;
    photos.load(entry).then(
      (value) => current && setPhoto(value),
      (error: unknown) => current && onProblems([reasonOf(error)]),
    );
    return () => {
      current = false;
    };
  }, [entry]);
  return {
    entries,
    entry,
    photo,
    reading,
    show: setEntry,
    takeFiles: (files) => void take(files.map((file) => () => photos.add(file, file.name || "pasted.png"))),
    takeSample(id) {
      const there = entries.find(({ sample }) => sample === id);
      if (there) setEntry(there);
      else void take([() => photos.addSample(id)]);
    },
    remove(gone) {
      const index = entries.indexOf(gone);
      const rest = entries.filter((other) => other !== gone);
      setEntries(rest);
      if (entry === gone) setEntry(rest[Math.min(index, rest.length - 1)] ?? null);
      photos.forget(gone);
      handles.forget(gone.file);
    },
  };
}

const reasonOf = (error: unknown): string => (error instanceof PhotoError ? error.message : failure(error).message);

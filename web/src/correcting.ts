/** Marking regions and naming them, as state of the page. */

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { BANK_FILE } from "./commands";
import { save } from "./downloads";
import type { Capabilities, Engine, Mark, Taught } from "./engine/types";
import { failure, type Handles } from "./hooks";
import { addNames, displayName, synonyms } from "./names";
import type { ShownPhoto } from "./photo";
import type { Entry, Photos } from "./photos";
import { askedNames, type Settings } from "./settings";
import { type Lesson, spokenName, type TeachingState, useTeaching } from "./teaching";

interface Parts {
  engine: Engine;
  handles: Handles;
  photos: Photos;
  capabilities: Capabilities | null;
  settings: Settings;
  entry: Entry | null;
  photo: ShownPhoto | null;
  onNames(names: readonly string[]): void;
  /** Something went well. */
  onNote(text: string): void;
  onProblem(text: string): void;
}

/** A mark that waits for a name. */
interface Pending {
  readonly mark: Mark;
  /** What the region is called now; null: it has no name. */
  readonly present: string | null;
  /** The pixels that it stands for, if they are known. */
  readonly pixels: Uint8Array | null;
}

export interface Correcting {
  readonly lessons: TeachingState;
  /** Whether there are examples that count. */
  readonly taught: boolean;
  /** Texts of names that have examples, in lower case. */
  readonly withExamples: ReadonlySet<string>;
  /** Whether a click marks a region. */
  readonly active: boolean;
  readonly pending: Pending | null;
  /** Why an example was refused; empty: it was not. */
  readonly refused: string;
  toggle(): void;
  mark(mark: Mark, present: string | null): void;
  cancel(): void;
  teach(name: string, negative: boolean): void;
  remove(lesson: Lesson): void;
  removeFile(file: File): void;
  undo(): void;
  clear(): void;
  open(files: readonly File[]): void;
  saveBank(): Promise<void>;
  /** Teaches an engine that has lost its examples. */
  restore(): void;
}

const isPositive = (name: string): boolean => !name.startsWith("-");

export function useCorrecting({ engine, handles, photos, capabilities, settings, entry, photo, onNames, onNote, onProblem }: Parts): Correcting {
  const names = useNamesOfExamples(settings, capabilities?.maxNames ?? 1000, onNames);
  const { teaching, state: lessons } = useTeaching(engine, handles, (each) => photos.load(each), settings.severance, names.learned, onProblem);
  const [active, setActive] = useState(false);
  const [pending, setPending] = useState<Pending | null>(null);
  const [refused, setRefused] = useState("");
  const latest = useRef<Pending | null>(null);
  latest.current = pending;
  useEffect(() => {
    setPending(null);
    setRefused("");
  }, [entry, active]);
  const withExamples = useMemo(() => new Set(lessons.taught.filter(({ name }) => isPositive(name)).flatMap(({ name }) => synonyms(name).map((text) => text.toLowerCase()))), [lessons.taught]);

  const attempt = (job: Promise<void>, done: string): void => void job.then(() => onNote(done), (error: unknown) => onProblem(failure(error).message));
  const cancel = (): void => {
    setPending(null);
    setRefused("");
    document.querySelector<HTMLElement>(".frame")?.focus({ preventScroll: true });
  };
  return {
    lessons,
    taught: lessons.version > 0,
    withExamples,
    active: active && (capabilities?.examples ?? false) && photo !== null,
    pending,
    refused,
    cancel,
    toggle() {
      setActive(!active);
      if (!active) requestAnimationFrame(() => document.querySelector(".work")?.scrollIntoView({ block: "nearest" }));
    },
    mark(mark, present) {
      if (!photo) return;
      const next: Pending = { mark, present, pixels: null };
      setRefused("");
      setPending(next);
      handles
        .get(photo, settings.severance)
        .then((handle) => engine.marked(handle, mark, lessons.marked.filter((lesson) => lesson.entry === entry).map((lesson) => lesson.mark)))
        .then(
          (pixels) => setPending((old) => (old === next && pixels ? { ...next, pixels } : old)),
          // An answer may come when another region is marked, or none.
          (error: unknown) => latest.current === next && setRefused(failure(error).message),
        );
    },
    teach(name, negative) {
      if (!entry || !pending) return;
      if (!negative) names.wish(name);
      const full = negative ? `-${name}` : name;
      const asked = askedNames(settings).flatMap(synonyms);
      const absent = settings.vocabulary !== null && !synonyms(name).some((text) => asked.includes(text));
      teaching.add(entry, { mark: pending.mark, name: full }).then(
        () => {
          onNote(`Learned: ${spokenName(full)}.${absent ? " The vocabulary does not have this name; choose “your names” to look for it." : ""}`);
          cancel();
        },
        (error: unknown) => setRefused(failure(error).message),
      );
    },
    remove: ({ id, name }) => attempt(teaching.remove(id), `The example was removed: ${spokenName(name)}.`),
    removeFile: (file) => attempt(teaching.removeFile(file), `The examples of ${file.name} were removed.`),
    undo: () => attempt(teaching.undo(), "Undone."),
    clear: () => attempt(teaching.clear(), "All examples were removed."),
    open: (files) => attempt(teaching.open(files), settings.vocabulary === null ? "The examples were opened." : "The examples were opened. Of their names, those in the vocabulary are looked for."),
    async saveBank() {
      try {
        save(await engine.bankFile(), BANK_FILE);
        onNote(`${BANK_FILE} was saved.`);
      } catch (error) {
        onProblem(failure(error).message);
      }
    },
    restore: () => void teaching.again().catch((error: unknown) => onProblem(failure(error).message)),
  };
}

/** Names that have examples are looked for: they join the names of the page, and leave with their last example. */
function useNamesOfExamples(settings: Settings, most: number, onNames: (names: readonly string[]) => void): { learned(taught: Taught): void; wish(name: string): void } {
  const own = useRef(settings);
  own.current = settings;
  const joined = useRef<ReadonlySet<string>>(new Set());
  const before = useRef<ReadonlySet<string>>(new Set());
  return {
    learned(taught) {
      const now = taught.map(({ name }) => name).filter(isPositive);
      const { names, background } = own.current;
      const kept = names.filter((name) => !joined.current.has(name) || now.includes(name));
      const fresh = now.filter((name) => !before.current.has(name));
      const all = addNames([...background, ...kept], fresh).names.slice(background.length, background.length + most);
      joined.current = new Set([...joined.current, ...all.slice(kept.length)].filter((name) => now.includes(name)));
      before.current = new Set(now);
      if (all.join("\n") !== names.join("\n")) onNames(all);
    },
    // Whoever teaches a name asks for it, even if it was removed from the names before.
    wish(name) {
      before.current = new Set([...before.current].filter((each) => displayName(each) !== displayName(name)));
    },
  };
}

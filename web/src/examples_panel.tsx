/** The examples: what was marked and opened, to remove, undo, clear, save. */

import type { JSX } from "preact";
import { Bank, Cross } from "./icons";
import type { Entry } from "./photos";
import { spokenName, type Lesson, type TeachingState } from "./teaching";

interface Props {
  state: TeachingState;
  /** The photo that is shown; null: none is. */
  current: Entry | null;
  correcting: boolean;
  onCorrect(): void;
  onShow(entry: Entry): void;
  onRemove(lesson: Lesson): void;
  onRemoveFile(file: File): void;
  onUndo(): void;
  onClear(): void;
  onOpen(files: readonly File[]): void;
  onSave(): void;
}

/** Asks for files; the field is not part of the page, where it would stand beside that of the photos. */
function chooseBanks(take: (files: readonly File[]) => void): void {
  const input = Object.assign(document.createElement("input"), { type: "file", accept: ".safetensors", multiple: true });
  input.addEventListener("change", () => input.files?.length && take([...input.files]));
  input.click();
}

export function ExamplesPanel({ state, current, correcting, onCorrect, onShow, onRemove, onRemoveFile, onUndo, onClear, onOpen, onSave }: Props): JSX.Element {
  const { marked, files, taught, busy, canUndo } = state;
  const some = marked.length > 0 || files.length > 0;
  return (
    <section aria-labelledby="examples-title" class="examples-panel">
      <div class="results-head">
        <h2 id="examples-title" class="label">
          Examples
        </h2>
        <span class="links">
          {canUndo && (
            <button type="button" class="text-button" aria-label="Undo: last change of the examples" disabled={busy} onClick={onUndo}>
              Undo
            </button>
          )}
          {some && (
            <button type="button" class="text-button" aria-label="Clear: all examples" disabled={busy} onClick={onClear}>
              Clear
            </button>
          )}
        </span>
      </div>
      {!some && <p class="hint">Mark a region and name it: this photo and the next ones follow. Also for names that no word describes, such as a part number.</p>}
      {some && (
        <ul class="examples">
          {marked.map((lesson) => (
            <li key={lesson.id}>
              <button type="button" class="example" aria-pressed={lesson.entry === current} title="Show the photo" onClick={() => onShow(lesson.entry)}>
                <span class="name">{spokenName(lesson.name)}</span>
                <span class="where">
                  <span class="spoken"> in </span>
                  {lesson.entry.name}
                </span>
              </button>
              <button type="button" class="quiet" aria-label={`Remove the example: ${spokenName(lesson.name)} in ${lesson.entry.name}`} title="Remove" disabled={busy} onClick={() => onRemove(lesson)}>
                <Cross />
              </button>
            </li>
          ))}
          {files.map((file, index) => (
            <li key={`${index} ${file.name}`}>
              <span class="example">
                <Bank />
                <span class="name">{file.name}</span>
              </span>
              <button type="button" class="quiet" aria-label={`Remove the examples of ${file.name}`} title="Remove" disabled={busy} onClick={() => onRemoveFile(file)}>
                <Cross />
              </button>
            </li>
          ))}
        </ul>
      )}
      <div class="buttons">
        <button type="button" class="outlined" aria-pressed={correcting} disabled={!current} onClick={onCorrect}>
          {correcting ? "Stop marking" : "Mark a region"}
        </button>
        <button type="button" class="outlined" disabled={busy} title="Examples of this page or of “deop learn”, a .safetensors file" onClick={() => chooseBanks(onOpen)}>
          Open<span class="spoken"> examples</span>
        </button>
        <button type="button" class="outlined" disabled={busy || !taught.length} title="A file for this page, “deop segment --bank” and Python" onClick={onSave}>
          Save<span class="spoken"> examples</span>
        </button>
      </div>
    </section>
  );
}

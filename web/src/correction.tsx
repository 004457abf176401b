/** The bar below the photo, where somebody says what a marked region is. */

import type { JSX } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import type { Mark } from "./engine/types";
import { Cross } from "./icons";
import { cleanName } from "./names";

interface Props {
  /** The region that waits for a name; null: none is marked. */
  pending: Mark | null;
  /** What the region is called now; null: it has no name. */
  present: string | null;
  busy: boolean;
  /** Names to choose from. */
  names: readonly string[];
  /** Why the example was refused; empty: it was not. */
  problem: string;
  onTeach(name: string, negative: boolean): void;
  onCancel(): void;
  onDone(): void;
}

export function CorrectionBar({ pending, present, busy, names, problem, onTeach, onCancel, onDone }: Props): JSX.Element {
  const id = useId();
  const input = useRef<HTMLInputElement>(null);
  const [text, setText] = useState("");
  const [negative, setNegative] = useState(false);
  useEffect(() => {
    setText("");
    setNegative(false);
    if (pending) input.current?.focus();
  }, [pending]);
  const name = cleanName(text.replace(/^\s*-+/, "")); // in banks, a dash means "not"
  const choose = (value: boolean): void => {
    setNegative(value);
    // What a region is not is nearly always what it is called now.
    if (value && !text) setText(present ?? "");
    if (!value && text === present) setText("");
  };
  return (
    <div class="correction" role="group" aria-label="Correct">
      {pending ? (
        <form
          onSubmit={(event) => {
            event.preventDefault();
            if (name && !busy) onTeach(name, negative);
          }}
          onKeyDown={(event) => event.key === "Escape" && onCancel()}
        >
          <fieldset class="choice">
            <legend class="spoken">The marked region</legend>
            <div class="segments">
              {[false, true].map((value) => (
                <label key={String(value)}>
                  <input type="radio" name={id} checked={negative === value} onChange={() => choose(value)} />
                  <span>{value ? "is not" : "This is"}</span>
                </label>
              ))}
            </div>
          </fieldset>
          <input
            ref={input}
            class="line"
            list={`${id}-names`}
            value={text}
            placeholder="name"
            aria-label="Name of the marked region"
            autocomplete="off"
            autocapitalize="none"
            spellcheck={false}
            enterkeyhint="done"
            onInput={(event) => setText(event.currentTarget.value)}
          />
          <datalist id={`${id}-names`}>
            {names.map((each) => (
              <option key={each} value={each} />
            ))}
          </datalist>
          <button type="submit" class="primary" disabled={!name || busy}>
            {busy ? "Learning" : "Learn"}
          </button>
          <button type="button" class="quiet" aria-label="Cancel" title="Cancel" onClick={onCancel}>
            <Cross />
          </button>
        </form>
      ) : (
        <>
          <p>Click what has a wrong name or none, or drag a box around it.</p>
          <button type="button" class="primary" onClick={onDone}>
            Done
          </button>
        </>
      )}
      {problem && (
        <p class="refused" role="alert">
          {problem}
        </p>
      )}
    </div>
  );
}

/** A field of names: each a chip that can be edited and removed, with a place to type more. */

import type { JSX } from "preact";
import { useId, useRef, useState } from "preact/hooks";
import { cssColour } from "./colours";
import type { Colour } from "./engine/types";
import { Cross, Pin } from "./icons";
import { addNames, displayName, splitNames, synonyms } from "./names";

interface Props {
  label: string;
  hint: string;
  placeholder: string;
  names: readonly string[];
  /** Names that are in use elsewhere. */
  taken?: readonly string[];
  /** Colours of the names; undefined for one that is not known yet. */
  colours?: readonly (Colour | undefined)[];
  /** Texts that have examples, in lower case. */
  taught?: ReadonlySet<string>;
  maxNames: number;
  onChange(names: string[]): void;
}

export function NameField({ label, hint, placeholder, names, taken = [], colours, taught, maxNames, onChange }: Props): JSX.Element {
  const id = useId();
  const input = useRef<HTMLInputElement>(null);
  const list = useRef<HTMLUListElement>(null);
  const [text, setText] = useState("");
  const [remark, setRemark] = useState("");

  const add = (typed: string): void => {
    const given = splitNames(typed);
    setText("");
    if (!given.length) return;
    const { names: all, repeated } = addNames([...taken, ...names], given);
    const own = all.slice(taken.length, taken.length + maxNames);
    setRemark(
      all.length - taken.length > maxNames
        ? `At most ${maxNames} names are possible here.`
        : repeated.length
          ? `“${displayName(repeated[0])}” is already there.`
          : "",
    );
    if (own.length !== names.length) onChange(own);
  };
  const remove = (index: number): void => {
    onChange(names.filter((_, k) => k !== index));
    setRemark("");
  };
  const edit = (index: number): void => {
    if (text.trim()) add(text);
    remove(index);
    setText(names[index]);
    input.current?.focus();
  };
  const focusChip = (index: number): void => {
    const chips = list.current?.querySelectorAll<HTMLButtonElement>(".chip-text");
    if (chips && index >= 0 && index < chips.length) chips[index].focus();
    else input.current?.focus();
  };

  const onInputKey = (event: KeyboardEvent): void => {
    if (event.isComposing) return;
    const empty = !text;
    const atStart = empty || (input.current?.selectionStart === 0 && input.current.selectionEnd === 0);
    if (event.key === "Enter" || (event.key === "," && text.trim() && !text.includes(";"))) {
      event.preventDefault();
      add(text);
    } else if (event.key === "Backspace" && empty && names.length) {
      event.preventDefault();
      edit(names.length - 1);
    } else if (event.key === "ArrowLeft" && atStart && names.length) {
      event.preventDefault();
      focusChip(names.length - 1);
    } else if (event.key === "Escape" && text) {
      event.stopPropagation();
      setText("");
    }
  };
  const onChipKey = (event: KeyboardEvent, index: number): void => {
    const move = { ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: names.length }[event.key];
    if (move !== undefined) {
      event.preventDefault();
      focusChip(Math.max(0, move));
    } else if (event.key === "Delete" || event.key === "Backspace") {
      event.preventDefault();
      remove(index);
      requestAnimationFrame(() => focusChip(Math.min(index, names.length - 2)));
    }
  };
  const onPaste = (event: ClipboardEvent): void => {
    const pasted = event.clipboardData?.getData("text") ?? "";
    if (!/[,;\n]/.test(pasted)) return;
    event.preventDefault();
    add(`${text}${pasted}`);
  };

  return (
    <div class="field">
      <label for={id}>{label}</label>
      {/* A click on the empty part of the field goes on typing, as in any text field; keys reach the input by themselves. */}
      <div class="chips" onClick={(event) => event.target === event.currentTarget && input.current?.focus()}>
        {names.length > 0 && (
          <ul ref={list} aria-label={`${label} so far`}>
            {names.map((name, index) => (
              <li class="chip" key={name}>
                <button type="button" class="chip-text" title="Edit" onClick={() => edit(index)} onKeyDown={(event) => onChipKey(event, index)}>
                  {colours && <span class="dot" style={{ background: colours[index] && cssColour(colours[index]) }} />}
                  <span>{displayName(name)}</span>
                  {taught && synonyms(name).some((text) => taught.has(text.toLowerCase())) && (
                    <span class="has-examples" title="Has examples">
                      <Pin />
                      <span class="spoken"> with examples</span>
                    </span>
                  )}
                  {synonyms(name).length > 1 && <span class="synonyms">{synonyms(name).slice(1).map((text) => ` | ${text}`)}</span>}
                </button>
                <button type="button" class="chip-remove" aria-label={`Remove ${displayName(name)}`} tabIndex={-1} onClick={() => remove(index)}>
                  <Cross />
                </button>
              </li>
            ))}
          </ul>
        )}
        <input
          ref={input}
          id={id}
          value={text}
          placeholder={names.length ? "" : placeholder}
          aria-describedby={`${id}-hint`}
          autocomplete="off"
          autocapitalize="none"
          spellcheck={false}
          enterkeyhint="done"
          onInput={(event) => setText(event.currentTarget.value)}
          onKeyDown={onInputKey}
          onPaste={onPaste}
          onBlur={() => add(text)}
        />
      </div>
      <p class="hint" id={`${id}-hint`}>
        {hint}
      </p>
      <p class="remark" role="status">
        {remark}
      </p>
    </div>
  );
}

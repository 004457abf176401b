/** Small parts of the panel. */

import type { ComponentChildren, JSX } from "preact";
import { useId, useState } from "preact/hooks";

interface ChoiceProps<T extends string> {
  label: string;
  value: T;
  options: readonly { value: T; text: string; title?: string; disabled?: boolean }[];
  onChange(value: T): void;
}

/** One of a few: radio buttons side by side. */
export function Choice<T extends string>({ label, value, options, onChange }: ChoiceProps<T>): JSX.Element {
  const id = useId();
  return (
    <fieldset class="choice">
      <legend class="label">{label}</legend>
      <div class="segments">
        {options.map((option) => (
          <label key={option.value} title={option.title}>
            <input type="radio" name={id} value={option.value} checked={option.value === value} disabled={option.disabled} onChange={() => onChange(option.value)} />
            <span>{option.text}</span>
          </label>
        ))}
      </div>
    </fieldset>
  );
}

interface SliderProps {
  label: string;
  value: number;
  step: number;
  text: string;
  disabled?: boolean;
  onChange(value: number): void;
}

export function Slider({ label, value, step, text, disabled = false, onChange }: SliderProps): JSX.Element {
  const id = useId();
  return (
    <div class="slider">
      <label for={id}>{label}</label>
      <output for={id}>{text}</output>
      <input
        id={id}
        type="range"
        min="0"
        max="1"
        step={step}
        value={value}
        disabled={disabled}
        aria-valuetext={text}
        style={{ "--value": String(value) }}
        onInput={(event) => onChange(Number(event.currentTarget.value))}
      />
    </div>
  );
}

interface TextFieldProps {
  label: string;
  hint: string;
  placeholder: string;
  value: string;
  /** Returns a remark about what was typed; empty: none. */
  onChange(text: string): string;
}

/** A line of text, which counts when it is left or Enter is pressed. */
export function TextField({ label, hint, placeholder, value, onChange }: TextFieldProps): JSX.Element {
  const id = useId();
  const [remark, setRemark] = useState("");
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <input
        id={id}
        class="line"
        value={value}
        placeholder={placeholder}
        aria-describedby={`${id}-hint`}
        autocomplete="off"
        autocapitalize="none"
        spellcheck={false}
        onChange={(event) => setRemark(onChange(event.currentTarget.value))}
        onKeyDown={(event) => event.key === "Enter" && setRemark(onChange(event.currentTarget.value))}
      />
      <p class="hint" id={`${id}-hint`}>
        {hint}
      </p>
      <p class="remark" role="status">
        {remark}
      </p>
    </div>
  );
}

interface MenuProps {
  id: string;
  label: string;
  icon: ComponentChildren;
  disabled?: boolean;
  children: ComponentChildren;
}

/** A button that opens a small sheet below it; Escape and a click elsewhere close it. */
export function Menu({ id, label, icon, disabled = false, children }: MenuProps): JSX.Element {
  return (
    <>
      <button type="button" class="bar-button" popovertarget={id} disabled={disabled} aria-label={label} title={label}>
        {icon}
        <span class="bar-text">{label}</span>
      </button>
      <div id={id} class="sheet" popover="auto" role="dialog" aria-label={label}>
        {children}
      </div>
    </>
  );
}

export const closeMenu = (id: string): void => document.getElementById(id)?.hidePopover();

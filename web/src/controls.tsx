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
  max?: number;
  text: string;
  /** What the slider changes, where its label does not say it. */
  hint?: string;
  disabled?: boolean;
  onChange(value: number): void;
  /** Goes back to the model's setting; undefined: it applies already. */
  onReset?: (() => void) | undefined;
}

export function Slider({ label, value, step, max = 1, text, hint, disabled = false, onChange, onReset }: SliderProps): JSX.Element {
  const id = useId();
  return (
    <div class="slider">
      <label for={id}>{label}</label>
      <span class="slider-value">
        {onReset && (
          <button type="button" class="text-button" aria-label={`Reset: ${label}`} onClick={onReset}>
            Reset
          </button>
        )}
        <output for={id}>{text}</output>
      </span>
      <input
        id={id}
        type="range"
        min="0"
        max={max}
        step={step}
        value={value}
        disabled={disabled}
        aria-valuetext={text}
        aria-describedby={hint === undefined ? undefined : `${id}-hint`}
        style={{ "--value": String(value / max) }}
        onInput={(event) => onChange(Number(event.currentTarget.value))}
      />
      {hint !== undefined && (
        <p class="hint" id={`${id}-hint`}>
          {hint}
        </p>
      )}
    </div>
  );
}

export function Switch({ label, checked, disabled = false, onChange }: { label: string; checked: boolean; disabled?: boolean; onChange(checked: boolean): void }): JSX.Element {
  return (
    <label class="switch">
      <span>{label}</span>
      <input type="checkbox" role="switch" checked={checked} disabled={disabled} onChange={(event) => onChange(event.currentTarget.checked)} />
    </label>
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

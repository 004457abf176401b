/** Small parts of the panel. */

import type { ComponentChildren, JSX } from "preact";
import { useId } from "preact/hooks";

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

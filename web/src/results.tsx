/** The names and how much of the photo each one has: switch off, isolate, heatmap. */

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { cssColour } from "./colours";
import type { Labelling } from "./engine/types";
import { Eye, EyeOff, Heat } from "./icons";

const MOST_NOT_FOUND = 6; // rows, unless somebody asks for all

export const percent = (share: number): string => {
  const value = 100 * share;
  return `${value === 0 || value >= 9.95 ? Math.round(value) : value < 0.05 ? "<0.1" : value.toFixed(1)} %`;
};

export const decimal = (score: number): string => score.toFixed(2);

interface Props {
  labelling: Labelling;
  hidden: ReadonlySet<string>;
  isolated: string | null;
  emphasised: number | null;
  heat: string | null;
  heatmaps: boolean;
  onToggle(name: string): void;
  onIsolate(name: string): void;
  onHeat(name: string): void;
  onHover(index: number | null): void;
  /** Ends isolation and heatmap, and switches all names on. */
  onShowAll(): void;
}

export function Results(props: Props): JSX.Element {
  const { labelling, hidden, isolated, emphasised, heat } = props;
  const order = labelling.classes.map((_, k) => k).sort((a, b) => labelling.classes[b].share - labelling.classes[a].share || a - b);
  const missing = labelling.classes.filter(({ share }) => share === 0).length;
  const [all, setAll] = useState(false);
  const shown = all || missing <= MOST_NOT_FOUND ? order : order.slice(0, order.length - missing);
  const rest = Math.max(0, 1 - labelling.classes.reduce((sum, { share }) => sum + share, 0));
  const pieces = (k: number): number => labelling.segments.filter(({ classIndex }) => classIndex === k).length;
  return (
    <section aria-labelledby="results-title">
      <div class="results-head">
        <h2 id="results-title" class="label">
          Result
        </h2>
        {(isolated !== null || heat !== null || hidden.size > 0) && (
          <button type="button" class="text-button" onClick={props.onShowAll}>
            Show all
          </button>
        )}
      </div>
      {missing === order.length && <p class="hint rest">None of the names was found.</p>}
      <ul class="results" onPointerLeave={() => props.onHover(null)}>
        {shown.map((k) => {
          const { name, share, score, colour } = labelling.classes[k];
          const off = hidden.has(name);
          const count = pieces(k);
          const found = score !== null && share > 0;
          return (
            <li
              key={name}
              class={`result${off || !found ? " off" : ""}${emphasised === k ? " near" : ""}${isolated === name ? " alone" : ""}`}
              onPointerEnter={() => props.onHover(found ? k : null)}
            >
              <button
                type="button"
                class="result-name"
                aria-pressed={isolated === name}
                title={isolated === name ? "Show all names" : "Show only this name"}
                disabled={!found}
                onFocus={() => props.onHover(k)}
                onBlur={() => props.onHover(null)}
                onClick={() => props.onIsolate(name)}
              >
                <span class="swatch" style={{ background: cssColour(colour) }} />
                <span class="name">
                  <span class="spoken">Isolate </span>
                  {name}
                </span>
                {count > 1 && (
                  <span class="count">
                    {count}
                    <span class="spoken"> segments</span>
                  </span>
                )}
                {found ? (
                  <>
                    <span class="share">
                      {percent(share)}
                      <span class="spoken"> of the photo, score </span>
                    </span>
                    <span class="score" title="Score">
                      {decimal(score)}
                    </span>
                  </>
                ) : (
                  <span class="share none">not found</span>
                )}
                <span class="bar">
                  <span style={{ width: `${100 * share}%`, background: cssColour(colour) }} />
                </span>
              </button>
              <button type="button" class="quiet" aria-pressed={!off} aria-label={`Colour ${name}`} title={off ? "Switch on" : "Switch off"} disabled={!found} onClick={() => props.onToggle(name)}>
                {off ? <EyeOff /> : <Eye />}
              </button>
              {props.heatmaps && (
                <button type="button" class="quiet" aria-pressed={heat === name} aria-label={`Heatmap of ${name}`} title="Heatmap" onClick={() => props.onHeat(name)}>
                  <Heat />
                </button>
              )}
            </li>
          );
        })}
      </ul>
      {missing > MOST_NOT_FOUND && (
        <button type="button" class="text-button more" aria-expanded={all} onClick={() => setAll(!all)}>
          {all ? "Hide" : "Show"} {missing} names that were not found
        </button>
      )}
      {rest > 0.0005 && missing < order.length && <p class="hint rest">{percent(rest)} of the photo has no name.</p>}
      {labelling.remarks.map((remark) => (
        <p class="hint" key={remark}>
          {remark}
        </p>
      ))}
    </section>
  );
}

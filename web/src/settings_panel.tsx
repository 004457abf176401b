/** How the result is shown and computed: style, mode, threshold, smoothing, comparison, and what few people need. */

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { NameField } from "./chips";
import { Choice, Slider, Switch, TextField } from "./controls";
import type { Capabilities } from "./engine/types";
import { displayName } from "./names";
import { FITTED_WEIGHT, MODES, shareText, STYLES, weightText, type Settings } from "./settings";
import { formatThresholds, parseThresholds, unknownThresholds } from "./thresholds";

const MODE_TITLES = {
  semantic: "One name for each pixel",
  panoptic: "Also separates things of the same name",
  instance: "Countable things only, each with its own mask",
};
const STYLE_TITLES = {
  overlay: "Regions in colour over the photo",
  outline: "Only the edges of regions",
  labels: "Only their colours",
};
/** Shares of the photo that the slider for smoothing offers. */
const SMOOTHING = [0, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2];

const capital = (text: string): string => text[0].toUpperCase() + text.slice(1);

export type Comparison = "nothing" | "photo" | "kept";

interface Props {
  settings: Settings;
  capabilities: Capabilities | null;
  /** The names of the question. */
  asked: readonly string[];
  /** Opacity of the heatmap that is shown; null: none is. */
  heatAlpha: number | null;
  comparison: Comparison;
  /** Whether the settings that are kept for the comparison are those of now. */
  unchanged: boolean;
  /** Whether there are examples. */
  examples: boolean;
  onChange(changes: Partial<Settings>): void;
  onHeatAlpha(alpha: number): void;
  onCompare(comparison: Comparison): void;
}

export function SettingsPanel(props: Props): JSX.Element {
  const { settings, capabilities, heatAlpha, comparison, onChange } = props;
  const { threshold, smallestRegion, alpha } = settings;
  const { defaults } = capabilities ?? { defaults: { threshold: 0, smallestRegion: 0 } };
  const known = capabilities !== null;
  const opacity = heatAlpha ?? alpha;
  const share = smallestRegion ?? defaults.smallestRegion;
  return (
    <>
      <Choice label="Style" value={settings.style} options={STYLES.map((value) => ({ value, text: capital(value), title: STYLE_TITLES[value] }))} onChange={(style) => onChange({ style })} />
      <Slider
        label="Opacity"
        value={opacity}
        step={0.05}
        text={`${Math.round(100 * opacity)} %`}
        disabled={heatAlpha === null && settings.style !== "overlay"}
        onChange={(value) => (heatAlpha === null ? onChange({ alpha: value }) : props.onHeatAlpha(value))}
      />
      <Switch label="Names on the photo" checked={settings.written} onChange={(written) => onChange({ written })} />
      <Choice
        label="Mode"
        value={settings.mode}
        options={MODES.filter((mode) => capabilities?.modes.includes(mode) ?? true).map((value) => ({ value, text: capital(value), title: MODE_TITLES[value] }))}
        onChange={(mode) => onChange({ mode })}
      />
      <Slider
        label="Threshold"
        value={threshold ?? defaults.threshold}
        step={0.01}
        text={known || threshold !== null ? (threshold ?? defaults.threshold).toFixed(2) : "default"}
        hint="What scores lower gets no name."
        onChange={(value) => onChange({ threshold: value })}
        onReset={threshold === null ? undefined : () => onChange({ threshold: null })}
      />
      <Slider
        label="Smoothing"
        value={nearest(share)}
        step={1}
        max={SMOOTHING.length - 1}
        text={!known && smallestRegion === null ? "default" : share === 0 ? "off" : `under ${shareText(share)}`}
        hint="Smaller regions get the name of their surroundings."
        onChange={(place) => onChange({ smallestRegion: SMOOTHING[place] })}
        onReset={smallestRegion === null ? undefined : () => onChange({ smallestRegion: null })}
      />
      {props.examples && (
        <Slider
          label="Examples beside words"
          value={settings.bankWeight ?? FITTED_WEIGHT}
          step={0.05}
          text={weightTitle(settings.bankWeight)}
          hint="Left: words alone. Right: examples alone, where there are some."
          onChange={(value) => onChange({ bankWeight: value })}
          onReset={settings.bankWeight === null ? undefined : () => onChange({ bankWeight: null })}
        />
      )}
      <div>
        <Choice
          label="Compare with"
          value={comparison}
          options={[
            { value: "nothing", text: "Nothing" },
            { value: "photo", text: "Photo" },
            { value: "kept", text: "These settings", title: "Keeps the present settings on the left; then change them", disabled: !props.asked.length },
          ]}
          onChange={props.onCompare}
        />
        {comparison === "kept" && (
          <p class="hint kept">
            {props.unchanged ? "These settings stay on the left. Now change some." : "The left side keeps earlier settings. "}
            {!props.unchanged && (
              <button type="button" class="text-button" onClick={() => props.onCompare("kept")}>
                Keep the present ones
              </button>
            )}
          </p>
        )}
      </div>
      <More {...props} />
    </>
  );
}

function More({ settings, capabilities, asked, onChange }: Props): JSX.Element {
  const { background, things, severance, thresholds, vocabulary, mode } = settings;
  const maxNames = capabilities?.maxNames ?? 1000;
  const severances = capabilities?.severances ?? [];
  const used = background.length > 0 || things.length > 0 || severance !== null || Object.keys(thresholds).length > 0;
  const [open, setOpen] = useState(used);
  useEffect(() => {
    if (used) setOpen(true); // and it stays open when the last one is removed
  }, [used]);
  return (
    <details open={open} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>More</summary>
      <TextField
        label="Minimum scores by name"
        hint="Where they differ from the threshold above."
        placeholder="dog=0.6, cat=0.4"
        value={formatThresholds(null, thresholds)}
        onChange={(text) => {
          const { all, named, wrong } = parseThresholds(text);
          const unknown = unknownThresholds(asked, named);
          for (const name of unknown) delete named[name];
          onChange({ thresholds: named, ...(all === null ? {} : { threshold: all }) });
          return wrong !== null ? `“${wrong}” is not a threshold: write a name, “=” and a number from 0 to 1.` : unknown.length ? `“${unknown[0]}” is not among the names.` : "";
        }}
      />
      <NameField
        label="Background"
        hint="What else the photo may show; its pixels get no name."
        placeholder="road, sky"
        names={background}
        taken={settings.names}
        maxNames={maxNames}
        onChange={(names) => onChange({ background: names })}
      />
      {mode !== "semantic" && vocabulary === null && (
        <NameField
          label="Things"
          hint="Which of the names are countable; guessed if empty."
          placeholder={settings.names.slice(0, 2).map(displayName).join(", ")}
          names={things}
          maxNames={maxNames}
          onChange={(names) => onChange({ things: names })}
        />
      )}
      {(severances.length > 1 || severance !== null) && (
        <div class="field">
          <label for="severance">Severance</label>
          <select id="severance" value={severance ?? ""} aria-describedby="severance-hint" onChange={(event) => onChange({ severance: event.currentTarget.value || null })}>
            <option value="">the model’s</option>
            {[...severances, ...(severance === null || severances.includes(severance) ? [] : [severance])].map((kind) => (
              <option key={kind}>{kind}</option>
            ))}
          </select>
          <p class="hint" id="severance-hint">
            How attention is restricted to the masks; each choice runs the network once.
          </p>
        </div>
      )}
    </details>
  );
}

const weightTitle = (weight: number | null): string => (weight === null ? "as fitted" : weight === 0 ? "words alone" : weight === 1 ? "examples alone" : weightText(weight));

/** The place of the step nearest to a share, by ratio. */
function nearest(share: number): number {
  const distance = (step: number): number => Math.abs(Math.log((step + 1e-4) / (share + 1e-4)));
  return SMOOTHING.reduce((best, step, place) => (distance(step) < distance(SMOOTHING[best]) ? place : best), 0);
}

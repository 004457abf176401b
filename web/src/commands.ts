/** The command and the Python lines that give what the page shows. */

import { joinNames } from "./names";
import { DEFAULTS, thresholdText, type Settings } from "./settings";

const shell = (text: string): string => (/^[\w./:=-]+$/.test(text) && !text.startsWith("-") ? text : `'${text.replaceAll("'", "'\\''")}'`);
const python = (text: string): string => JSON.stringify(text).replace(/\u007f/g, "\\u007f");

/** The path of a photo for a command; one that starts with a dash would be taken for an option. */
const path = (photo: string): string => (photo.startsWith("-") ? `./${photo}` : photo);

/** Semantic mode separates no things, and built-in vocabularies have flags of their own. */
const hasThings = ({ things, mode, vocabulary }: Settings): boolean => things.length > 0 && mode !== "semantic" && vocabulary === null;

export const HEAT_ALPHA = 0.7;

/** A heatmap that is shown instead of the result. */
export interface ShownHeat {
  readonly name: string;
  readonly alpha: number;
}

/** The file that the page saves examples to. */
export const BANK_FILE = "bank.safetensors";

/** @param bank whether there are examples, which the file `BANK_FILE` has */
export function commandLine(photo: string, settings: Settings, model: string, heat: ShownHeat | null = null, bank = false): string {
  const names = settings.vocabulary === null ? ["--classes", shell(joinNames(settings.names))] : ["--vocabulary", settings.vocabulary];
  const parts = ["deop segment", shell(path(photo)), ...names];
  if (settings.background.length) parts.push("--background", shell(joinNames(settings.background)));
  if (settings.mode !== DEFAULTS.mode) parts.push("--mode", settings.mode);
  if (hasThings(settings)) parts.push("--things", shell(joinNames(settings.things)));
  if (thresholdText(settings)) parts.push("--threshold", shell(thresholdText(settings)));
  if (settings.smallestRegion !== null) parts.push("--smallest-region", String(settings.smallestRegion));
  if (settings.severance) parts.push("--severance", shell(settings.severance));
  if (bank) parts.push("--bank", BANK_FILE);
  if (bank && settings.bankWeight !== null) parts.push("--bank-weight", String(settings.bankWeight));
  if (heat) {
    parts.push("--heatmap", shell(heat.name));
    if (heat.alpha !== HEAT_ALPHA) parts.push("--alpha", String(heat.alpha));
  } else parts.push(...drawing(settings));
  if (model !== "nano") parts.push("--model", shell(model));
  return parts.join(" ");
}

/** Options of the picture. */
function drawing(settings: Settings): string[] {
  const parts: string[] = [];
  if (settings.style !== DEFAULTS.style) parts.push("--style", settings.style);
  if (settings.style === "overlay" && settings.alpha !== DEFAULTS.alpha) parts.push("--alpha", String(settings.alpha));
  return parts;
}

const LONGEST_LINE = 64; // letters; the sheet of the page has about 50, the rest wraps

/** A call on one line, or with one line for each argument. */
function call(start: string, options: readonly string[]): string[] {
  const line = `${start}(${options.join(", ")})`;
  return line.length <= LONGEST_LINE ? [line] : [`${start}(`, ...options.map((option) => `    ${option},`), ")"];
}

export function pythonLines(photo: string, settings: Settings, model: string, heat: ShownHeat | null = null, bank = false): string {
  const list = (names: readonly string[]): string => `[${names.map(python).join(", ")}]`;
  const { vocabulary } = settings;
  const options: string[] = [python(path(photo)), vocabulary === null ? list(settings.names) : `builtin_vocabulary(${python(vocabulary)})`];
  if (settings.background.length) options.push(`background=${list(settings.background)}`);
  if (settings.mode !== DEFAULTS.mode) options.push(`mode=${python(settings.mode)}`);
  if (hasThings(settings)) options.push(`things=${list(settings.things)}`);
  const thresholds = Object.entries(settings.thresholds).map(([name, value]) => `${python(name)}: ${value}`);
  if (settings.threshold !== null && thresholds.length) thresholds.unshift(`"*": ${settings.threshold}`);
  if (thresholds.length) options.push(`threshold={${thresholds.join(", ")}}`);
  else if (settings.threshold !== null) options.push(`threshold=${settings.threshold}`);
  if (settings.smallestRegion !== null) options.push(`smallest_region=${settings.smallestRegion}`);
  if (settings.severance) options.push(`severance=${python(settings.severance)}`);
  if (bank) options.push(`bank=deop.load_bank(${python(BANK_FILE)})`);
  if (bank && settings.bankWeight !== null) options.push(`bank_weight=${settings.bankWeight}`);
  if (heat) options.push(`heatmaps=${list([heat.name])}`);
  const drawing: string[] = [];
  if (settings.style === "overlay" && settings.alpha !== DEFAULTS.alpha) drawing.push(`alpha=${settings.alpha}`);
  if (settings.style !== DEFAULTS.style) drawing.push(`style=${python(settings.style)}`);
  const picture = heat
    ? `heatmap(${python(heat.name)}${heat.alpha === HEAT_ALPHA ? "" : `, alpha=${heat.alpha}`})`
    : `overlay(${drawing.join(", ")})`;
  return [
    "import deop",
    ...(vocabulary === null ? [] : ["from deop.text.builtin import builtin_vocabulary"]),
    "",
    `model = deop.load(${python(model)})`,
    ...call("result = model.segment", options),
    `result.${picture}.save("result.png")`,
  ].join("\n");
}

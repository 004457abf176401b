/** The command and the Python lines that give what the page shows. */

import { joinNames } from "./names";
import { DEFAULTS, thresholdText, type Settings } from "./settings";

const shell = (text: string): string => (/^[\w./:=-]+$/.test(text) && !text.startsWith("-") ? text : `'${text.replaceAll("'", "'\\''")}'`);
const python = (text: string): string => JSON.stringify(text).replace(/\u007f/g, "\\u007f");

/** The path of a photo for a command; one that starts with a dash would be taken for an option. */
const path = (photo: string): string => (photo.startsWith("-") ? `./${photo}` : photo);

export function commandLine(photo: string, settings: Settings, model: string): string {
  const names = settings.vocabulary === null ? ["--classes", shell(joinNames(settings.names))] : ["--vocabulary", settings.vocabulary];
  const parts = ["deop segment", shell(path(photo)), ...names];
  if (settings.background.length) parts.push("--background", shell(joinNames(settings.background)));
  if (settings.mode !== DEFAULTS.mode) parts.push("--mode", settings.mode);
  if (settings.things.length && settings.vocabulary === null) parts.push("--things", shell(joinNames(settings.things)));
  if (thresholdText(settings)) parts.push("--threshold", shell(thresholdText(settings)));
  if (settings.severance) parts.push("--severance", settings.severance);
  if (settings.style !== DEFAULTS.style) parts.push("--style", settings.style);
  if (settings.style === "overlay" && settings.alpha !== DEFAULTS.alpha) parts.push("--alpha", String(settings.alpha));
  if (model !== "nano") parts.push("--model", shell(model));
  return parts.join(" ");
}

export function pythonLines(photo: string, settings: Settings, model: string): string {
  const list = (names: readonly string[]): string => `[${names.map(python).join(", ")}]`;
  const { vocabulary } = settings;
  const options: string[] = [python(path(photo)), vocabulary === null ? list(settings.names) : `builtin_vocabulary(${python(vocabulary)})`];
  if (settings.background.length) options.push(`background=${list(settings.background)}`);
  if (settings.mode !== DEFAULTS.mode) options.push(`mode=${python(settings.mode)}`);
  if (settings.things.length && vocabulary === null) options.push(`things=${list(settings.things)}`);
  const thresholds = Object.entries(settings.thresholds).map(([name, value]) => `${python(name)}: ${value}`);
  if (settings.threshold && thresholds.length) thresholds.unshift(`"*": ${settings.threshold}`);
  if (thresholds.length) options.push(`threshold={${thresholds.join(", ")}}`);
  else if (settings.threshold) options.push(`threshold=${settings.threshold}`);
  if (settings.severance) options.push(`severance=${python(settings.severance)}`);
  const drawing: string[] = [];
  if (settings.style === "overlay" && settings.alpha !== DEFAULTS.alpha) drawing.push(`alpha=${settings.alpha}`);
  if (settings.style !== DEFAULTS.style) drawing.push(`style=${python(settings.style)}`);
  return [
    "import deop",
    ...(vocabulary === null ? [] : ["from deop.text.builtin import builtin_vocabulary"]),
    "",
    `model = deop.load(${python(model)})`,
    `result = model.segment(${options.join(", ")})`,
    `result.overlay(${drawing.join(", ")}).save("result.png")`,
  ].join("\n");
}

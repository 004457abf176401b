/** The bar at the top: what runs, link, code, downloads, light and dark. */

import type { JSX } from "preact";
import { BANK_FILE } from "./commands";
import { Menu } from "./controls";
import type { Download } from "./downloads";
import * as icons from "./icons";

interface Props {
  about: string;
  theme: "light" | "dark";
  /** Whether there are names, and whether there is a result. */
  named: boolean;
  labelled: boolean;
  isolated: string | null;
  /** The name whose heatmap is shown. */
  heat: string | null;
  command: string;
  lines: string;
  /** Whether regions can be marked: null if the engine learns nothing. */
  correcting: boolean | null;
  /** Whether there is a photo. */
  shown: boolean;
  /** Whether the code needs the file of the examples. */
  bank: boolean;
  onCorrect(): void;
  onSaveBank(): void;
  onTheme(): void;
  onCopy(text: string, what: string): void;
  onDownload(kind: Download): void;
}

export function Header({ about, theme, named, labelled, isolated, heat, command, lines, correcting, shown, bank, onCorrect, onSaveBank, onTheme, onCopy, onDownload }: Props): JSX.Element {
  return (
    <header>
      <h1>
        <img src="icon.svg" alt="" width="24" height="24" />
        deop
      </h1>
      <p class="engine" title={about}>
        {about}
      </p>
      <div class="bar">
        {correcting !== null && (
          <button type="button" class="bar-button" aria-pressed={correcting} disabled={!shown} aria-label="Correct" title="Mark a region and say what it is" onClick={onCorrect}>
            <icons.Pin />
            <span class="bar-text">Correct</span>
          </button>
        )}
        <button type="button" class="bar-button" disabled={!named} aria-label="Copy link" title="Copy a link to these names and settings" onClick={() => onCopy(location.href, "Link")}>
          <icons.Link />
          <span class="bar-text">Link</span>
        </button>
        <Menu id="code" label="Code" icon={<icons.Code />} disabled={!named}>
          {bank && (
            <p class="hint needs-bank">
              {`It needs the examples, in ${BANK_FILE}. `}
              <button type="button" class="text-button" onClick={onSaveBank}>
                Save the examples
              </button>
            </p>
          )}
          <CodeBlock title="Command" text={command} onCopy={() => onCopy(command, "Command")} />
          <CodeBlock title="Python" text={lines} onCopy={() => onCopy(lines, "Python lines")} />
        </Menu>
        <Menu id="download" label="Download" icon={<icons.Download />} disabled={!labelled}>
          <ul class="menu">
            {(
              [
                ["picture", "Picture", heat === null ? "as shown, at the photo’s size" : `the heatmap of ${heat}, at the photo’s size`],
                ["cutout", "Cut-out", isolated ? `${isolated}, on a transparent background` : "all that is switched on, transparent elsewhere"],
                ["labels", "Label map", "PNG: 1 is the first name, 0 none"],
                ["coco", "COCO", "annotations of the segments, for other tools"],
                ["json", "JSON", "shares, scores, boxes and masks (COCO RLE)"],
              ] as const
            ).map(([kind, title, text]) => (
              <li key={kind}>
                <button type="button" onClick={() => onDownload(kind)}>
                  {title}
                  <small>{text}</small>
                </button>
              </li>
            ))}
          </ul>
        </Menu>
        <button type="button" class="bar-button" aria-label={theme === "dark" ? "Light colours" : "Dark colours"} title={theme === "dark" ? "Light" : "Dark"} onClick={onTheme}>
          {theme === "dark" ? <icons.Sun /> : <icons.Moon />}
        </button>
      </div>
    </header>
  );
}

/** The text with lines that break between words only, not after the dashes of an option. */
const words = (text: string): JSX.Element[] => text.split(/(?<= )/).map((word, index) => <span key={index}>{word}</span>);

function CodeBlock({ title, text, onCopy }: { title: string; text: string; onCopy(): void }): JSX.Element {
  return (
    <section class="code">
      <div class="code-head">
        <h2 class="label">{title}</h2>
        <button type="button" class="text-button" aria-label={`Copy: ${title}`} onClick={onCopy}>
          Copy
        </button>
      </div>
      <pre tabIndex={0} aria-label={title}>
        {title === "Command" ? words(text) : text}
      </pre>
    </section>
  );
}

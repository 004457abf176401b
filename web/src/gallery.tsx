/** Where photos come from: the page before there is one, and the strip of those that there are. */

import type { JSX } from "preact";
import * as icons from "./icons";
import { displayName } from "./names";
import { SAMPLES } from "./photo";
import type { Entry } from "./photos";

interface Sources {
  reading: boolean;
  onChoose(): void;
  onSample(id: string): void;
}

export function Welcome({ reading, onChoose, onSample }: Sources): JSX.Element {
  return (
    <div class="welcome">
      <h2 class="tagline">Label every pixel of a photo with names of your choice</h2>
      <button type="button" class="drop" onClick={onChoose} disabled={reading}>
        <icons.Photo />
        <span class="big">
          {reading ? (
            "Reading"
          ) : (
            <>
              <span class="for-mouse">Drop photos, paste one, or choose</span>
              <span class="for-touch">Choose photos</span>
            </>
          )}
        </span>
        <span class="small">Then type names. The result appears on the photo.</span>
      </button>
      <p class="label" id="samples-title">
        Or start with one of these
      </p>
      <ul class="samples" aria-labelledby="samples-title">
        {SAMPLES.map((sample) => (
          <li key={sample.id}>
            <button type="button" onClick={() => onSample(sample.id)}>
              <span class="spoken">Sample: {sample.title}. Names: </span>
              <img src={`samples/${sample.file}`} alt="" />
              <span class="sample-names">{sample.names.map(displayName).join(", ")}</span>
            </button>
          </li>
        ))}
      </ul>
      <p class="hint credits">
        Photos: Daniel Buechele (CC BY 2.0), Stefan van der Walt, Rachel Michetti, SpaceX. <a href="samples/CREDITS.md">Credits</a>
      </p>
    </div>
  );
}

interface StripProps extends Sources {
  entries: readonly Entry[];
  current: Entry | null;
  onShow(entry: Entry): void;
  onRemove(entry: Entry): void;
}

export function Strip({ entries, current, reading, onShow, onRemove, onChoose, onSample }: StripProps): JSX.Element {
  return (
    <ul class="strip" aria-label="Photos">
      {entries.map((each) => (
        <li key={each.id}>
          <button type="button" class="thumbnail" aria-pressed={each === current} aria-label={each.name} title={each.name} onClick={() => onShow(each)}>
            <img src={each.thumbnail} alt="" />
          </button>
          <button type="button" class="remove" aria-label={`Remove ${each.name}`} title="Remove" onClick={() => onRemove(each)}>
            <icons.Cross />
          </button>
        </li>
      ))}
      <li>
        <button type="button" class="thumbnail add" aria-label="Add photos" title="Add photos" disabled={reading} onClick={onChoose}>
          <icons.Plus />
        </button>
      </li>
      {/* Once there are photos of one's own, samples would be in the way. */}
      {SAMPLES.filter(({ id }) => entries.every(({ sample }) => sample !== null && sample !== id)).map((sample) => (
        <li key={sample.id}>
          <button type="button" class="thumbnail faint" aria-label={`Sample: ${sample.title}`} title={`Sample: ${sample.title}`} onClick={() => onSample(sample.id)}>
            <img src={`samples/${sample.file}`} alt="" />
          </button>
        </li>
      ))}
    </ul>
  );
}

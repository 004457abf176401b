/** The photo, large, with what lies over it; hover, click, keyboard probe, comparison. */

import type { JSX } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { cssColour } from "./colours";
import { paint, paintHeat, paintMarked, pixelsOf, prepare, shownSize, stretchInto, type View } from "./draw";
import { plates } from "./written";
import type { Heatmap, Labelling, Mark } from "./engine/types";
import { displayName } from "./names";
import type { ShownPhoto } from "./photo";
import { decimal } from "./results";
import { spokenName } from "./teaching";

export interface Side {
  readonly title: string;
  readonly labelling: Labelling | null;
  readonly view: View;
}

interface Props {
  photo: ShownPhoto;
  side: Side;
  /** What the left half shows. */
  other: Side | null;
  heat: { name: string; alpha: number; heatmap: Heatmap } | null;
  busy: boolean;
  /** Regions are marked instead of isolated; null: they are not. */
  correction: Correction | null;
  onHover(index: number | null): void;
  onPick(index: number | null): void;
}

export interface Correction {
  /** Examples of this photo. */
  readonly examples: readonly { readonly id: number; readonly mark: Mark; readonly name: string }[];
  /** The mark that waits for a name, and the pixels that it stands for, if they are known. */
  readonly pending: Mark | null;
  readonly pixels: Uint8Array | null;
  onMark(mark: Mark, classIndex: number | null): void;
  onCancel(): void;
}

interface Probe {
  /** In the photo, both in [0, 1]. */
  readonly x: number;
  readonly y: number;
  readonly keyboard: boolean;
}

export function Stage({ photo, side, other, heat, busy, correction, onHover, onPick }: Props): JSX.Element {
  const [probe, setProbe] = useState<Probe | null>(null);
  const [split, setSplit] = useState(0.5);
  /** Where a box begins; the probe is its other corner. */
  const [corner, setCorner] = useState<Probe | null>(null);
  const frame = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(0);
  useEffect(() => setProbe(null), [photo]);
  useEffect(() => setCorner(null), [photo, correction === null]);
  useEffect(() => {
    const watching = new ResizeObserver(([entry]) => setWidth(Math.round(entry.contentRect.width)));
    watching.observe(frame.current!);
    return () => watching.disconnect();
  }, []);

  const shown = (at: Probe): Side => (other && at.x < split ? other : side);
  const classAt = (at: Probe | null): number | null => {
    const labelling = at && shown(at).labelling;
    if (!at || !labelling) return null;
    const value = labelling.labels[indexAt(labelling, at)];
    return value ? value - 1 : null;
  };
  const move = (next: Probe | null): void => {
    setProbe(next);
    onHover(next && shown(next) === side ? classAt(next) : null);
  };
  const pointed = (event: MouseEvent, keyboard = false): Probe => {
    const box = frame.current!.getBoundingClientRect();
    const inside = (value: number): number => Math.min(0.999999, Math.max(0, value));
    return { x: inside((event.clientX - box.left) / box.width), y: inside((event.clientY - box.top) / box.height), keyboard };
  };
  /** Marks a point, or a box from the corner to it if that is more than a click. */
  const mark = (at: Probe, smallest: number): void => {
    const { width: across, height: down } = photo;
    const box = frame.current!.getBoundingClientRect();
    const [dx, dy] = corner ? [Math.abs(at.x - corner.x) * box.width, Math.abs(at.y - corner.y) * box.height] : [0, 0];
    const first = corner && Math.max(dx, dy) > smallest ? corner : null;
    setCorner(null);
    const [x, y] = [Math.floor(at.x * across), Math.floor(at.y * down)];
    if (!first) return correction!.onMark({ x, y }, classAt(at));
    const [left, right] = [Math.min(first.x, at.x) * across, Math.max(first.x, at.x) * across];
    const [top, bottom] = [Math.min(first.y, at.y) * down, Math.max(first.y, at.y) * down];
    const middle = { x: (first.x + at.x) / 2, y: (first.y + at.y) / 2, keyboard: false };
    correction!.onMark({ left: Math.floor(left), top: Math.floor(top), right: Math.ceil(right), bottom: Math.ceil(bottom) }, classAt(middle));
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.target !== event.currentTarget) return;
    const step = event.shiftKey ? 0.1 : 0.02;
    const [dx, dy] = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key] ?? [0, 0];
    if (dx || dy) {
      event.preventDefault();
      const { x, y } = probe ?? { x: 0.5, y: 0.5 };
      const inside = (value: number): number => Math.min(0.995, Math.max(0.005, value));
      move({ x: inside(x + dx), y: inside(y + dy), keyboard: true });
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      if (probe && correction) mark(probe, 0);
      else if (probe) onPick(classAt(probe));
    } else if (correction && event.key.toLowerCase() === "b" && probe) setCorner(probe);
    else if (event.key === "Escape") {
      if (correction && (corner || correction.pending)) correction.onCancel();
      setCorner(null);
      move(null);
    }
  };

  const text = probe ? describe(probe, shown(probe), heat) : null;
  return (
    <div class="stage" style={{ "--ratio": String(photo.width / photo.height) }}>
      <div
        ref={frame}
        class={`frame${correction ? " correcting" : ""}`}
        role="application"
        aria-label={`${photo.name}. Arrow keys read the name and score at a point; ${correction ? "Enter marks the region there; B begins a box that Enter ends." : "Enter isolates it."}`}
        tabIndex={0}
        onPointerDown={(event) => {
          if (!correction || event.button || (event.target as Element).closest("input")) return;
          event.currentTarget.setPointerCapture(event.pointerId);
          setCorner(pointed(event));
        }}
        onPointerUp={(event) => {
          if (!correction || !corner || corner.keyboard) return;
          mark(pointed(event), SMALLEST_BOX);
        }}
        onPointerCancel={() => setCorner(null)}
        onPointerMove={(event) => (event.pointerType !== "touch" || corner) && move(pointed(event))}
        onPointerLeave={() => !probe?.keyboard && move(null)}
        onClick={(event) => {
          if (correction || (event.target as Element).closest("input")) return;
          const at = pointed(event);
          move(at);
          onPick(classAt(at));
        }}
        onKeyDown={onKeyDown}
        onBlur={() => probe?.keyboard && move(null)}
      >
        <PhotoLayer photo={photo} />
        <ResultLayer photo={photo} side={side} heat={heat} width={width} />
        {other && (
          <>
            <div class="left-half" style={{ "--split": String(split) }}>
              <PhotoLayer photo={photo} />
              <ResultLayer photo={photo} side={other} heat={null} width={width} />
            </div>
            <span class="side-title left" title={other.title}>
              {other.title}
            </span>
            <span class="side-title right" title={side.title}>
              {side.title}
            </span>
            <input
              class="split"
              type="range"
              min="0"
              max="1"
              step="0.01"
              value={split}
              aria-label="Position of the comparison"
              style={{ "--split": String(split) }}
              onInput={(event) => setSplit(Number(event.currentTarget.value))}
            />
          </>
        )}
        {correction && <Marks photo={photo} correction={correction} labelling={side.labelling} corner={corner} probe={probe} />}
        {heat && (
          <span class="heat-title">
            {heat.name} 0 <i /> 1
          </span>
        )}
        {busy && <div class="progress" />}
        {probe && text && (
          <div class={`tip${probe.x > 0.6 ? " to-left" : ""}${probe.y > 0.8 ? " above" : ""}${probe.keyboard ? " marked" : ""}`} style={{ left: `${100 * probe.x}%`, top: `${100 * probe.y}%` }}>
            <span class="tip-text" role={probe.keyboard ? "status" : undefined}>
              {text.colour && <span class="swatch" style={{ background: text.colour }} />}
              {text.name}
              {text.number && <b>{text.number}</b>}
            </span>
          </div>
        )}
      </div>
    </div>
  );
}

const SMALLEST_BOX = 6; // CSS pixels; a shorter drag is a click

interface MarksProps {
  photo: ShownPhoto;
  correction: Correction;
  labelling: Labelling | null;
  corner: Probe | null;
  probe: Probe | null;
}

/** The marks of the photo, the one that waits for a name, and the box that is being drawn. */
function Marks({ photo, correction: { examples, pending, pixels }, labelling, corner, probe }: MarksProps): JSX.Element {
  const { width, height } = photo;
  const place = (mark: Mark): Record<string, string> =>
    "x" in mark
      ? { left: `${(100 * (mark.x + 0.5)) / width}%`, top: `${(100 * (mark.y + 0.5)) / height}%` }
      : { left: `${(100 * mark.left) / width}%`, top: `${(100 * mark.top) / height}%`, width: `${(100 * (mark.right - mark.left)) / width}%`, height: `${(100 * (mark.bottom - mark.top)) / height}%` };
  /** Whether the result has the name there, so that it need not be written again. */
  const isFound = (mark: Mark, name: string): boolean => {
    if (!labelling) return false;
    const [x, y] = "x" in mark ? [mark.x, mark.y] : [(mark.left + mark.right) / 2, (mark.top + mark.bottom) / 2];
    const value = labelling.labels[indexAt(labelling, { x: x / width, y: y / height })];
    return value > 0 && labelling.classes[value - 1].name === displayName(name);
  };
  const shape = (mark: Mark): string => ("x" in mark ? "point" : "box");
  return (
    <>
      {pending && pixels && <MarkedLayer photo={photo} pixels={pixels} />}
      <div class="marks" aria-hidden="true">
        {examples.map(({ id, mark, name }) => (
          <span key={id} class={`mark ${shape(mark)}`} style={place(mark)}>
            {!isFound(mark, name) && <b>{spokenName(name)}</b>}
          </span>
        ))}
        {pending && <span class={`mark pending ${shape(pending)}`} style={place(pending)} />}
        {corner && probe && (
          <span
            class="mark pending box"
            style={{
              left: `${100 * Math.min(corner.x, probe.x)}%`,
              top: `${100 * Math.min(corner.y, probe.y)}%`,
              width: `${100 * Math.abs(corner.x - probe.x)}%`,
              height: `${100 * Math.abs(corner.y - probe.y)}%`,
            }}
          />
        )}
      </div>
    </>
  );
}

/** The pixels that a mark stands for, with the rest of the photo darkened. */
function MarkedLayer({ photo, pixels }: { photo: ShownPhoto; pixels: Uint8Array }): JSX.Element {
  const canvas = useRef<HTMLCanvasElement>(null);
  const size = useMemo(() => shownSize(photo), [photo]);
  useEffect(() => canvas.current!.getContext("2d")!.putImageData(paintMarked(pixels, photo, size), 0, 0), [pixels]);
  return <canvas ref={canvas} class="marked-layer" width={size.width} height={size.height} aria-hidden="true" />;
}

const indexAt = ({ width, height }: { width: number; height: number }, { x, y }: { readonly x: number; readonly y: number }): number =>
  Math.floor(y * height) * width + Math.floor(x * width);

function describe(probe: Probe, side: Side, heat: Props["heat"]): { name: string; number: string | null; colour: string | null } | null {
  if (heat) return { name: heat.name, number: decimal(heat.heatmap.values[indexAt(heat.heatmap, probe)]), colour: null };
  const { labelling } = side;
  if (!labelling) return null;
  const at = indexAt(labelling, probe);
  const value = labelling.labels[at];
  if (!value) return { name: "no name", number: null, colour: null };
  const entry = labelling.classes[value - 1];
  const segment = labelling.segmentMap ? labelling.segments[labelling.segmentMap[at] - 1] : undefined;
  const score = segment?.score ?? entry.score;
  return { name: entry.name, number: score === null ? null : decimal(score), colour: cssColour(entry.colour) };
}

function PhotoLayer({ photo }: { photo: ShownPhoto }): JSX.Element {
  const canvas = useRef<HTMLCanvasElement>(null);
  const { width, height } = photo.bitmap;
  useEffect(() => canvas.current!.getContext("2d")!.drawImage(photo.bitmap, 0, 0), [photo]);
  return <canvas ref={canvas} key={photo.name} width={width} height={height} aria-hidden="true" />;
}

interface LayerProps {
  photo: ShownPhoto;
  side: Side;
  heat: Props["heat"];
  /** Of the frame, in CSS pixels. */
  width: number;
}

function ResultLayer({ photo, side, heat, width }: LayerProps): JSX.Element {
  const canvas = useRef<HTMLCanvasElement>(null);
  const size = useMemo(() => shownSize(photo), [photo]);
  const { labelling, view } = side;
  const prepared = useMemo(
    () => (labelling && labelling.width === photo.width && labelling.height === photo.height ? prepare(labelling, pixelsOf(photo.bitmap, size)) : null),
    [labelling, size],
  );
  const hidden = [...view.hidden].join();
  useEffect(() => {
    const context = canvas.current!.getContext("2d")!;
    if (heat) stretchInto(canvas.current!, paintHeat(heat.heatmap), heat.alpha);
    else if (prepared) context.putImageData(paint(prepared, view), 0, 0);
    else context.clearRect(0, 0, size.width, size.height);
  }, [prepared, heat?.heatmap, heat?.alpha, hidden, view.style, view.alpha, view.isolated, view.emphasised]);
  const letters = width < 560 ? 11.5 : 13; // CSS pixels
  const written = useMemo(
    () => (prepared && labelling && view.written && width && !heat ? plates(labelling, prepared, view, (letters * size.width) / width) : []),
    [prepared, width, heat === null, hidden, view.written, view.isolated],
  );
  return (
    <>
      <canvas ref={canvas} class="result-layer" width={size.width} height={size.height} aria-hidden="true" />
      <div class="plates" style={{ fontSize: `${letters}px` }} aria-hidden="true">
        {written.map(({ id, x, y, text, ground }) => (
          <span key={id} style={{ left: `${(100 * x) / size.width}%`, top: `${(100 * y) / size.height}%`, background: ground }}>
            {text}
          </span>
        ))}
      </div>
    </>
  );
}

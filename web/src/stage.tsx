/** The photo, large, with what lies over it; hover, click, keyboard probe, comparison. */

import type { JSX } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { cssColour } from "./colours";
import { paint, paintHeat, pixelsOf, prepare, shownSize, stretchInto, type View } from "./draw";
import { plates } from "./written";
import type { Heatmap, Labelling } from "./engine/types";
import type { ShownPhoto } from "./photo";
import { decimal } from "./results";

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
  onHover(index: number | null): void;
  onPick(index: number | null): void;
}

interface Probe {
  /** In the photo, both in [0, 1]. */
  readonly x: number;
  readonly y: number;
  readonly keyboard: boolean;
}

export function Stage({ photo, side, other, heat, busy, onHover, onPick }: Props): JSX.Element {
  const [probe, setProbe] = useState<Probe | null>(null);
  const [split, setSplit] = useState(0.5);
  const frame = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(0);
  useEffect(() => setProbe(null), [photo]);
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
      if (probe) onPick(classAt(probe));
    } else if (event.key === "Escape") move(null);
  };

  const text = probe ? describe(probe, shown(probe), heat) : null;
  return (
    <div class="stage" style={{ "--ratio": String(photo.width / photo.height) }}>
      <div
        ref={frame}
        class="frame"
        role="application"
        aria-label={`${photo.name}. Arrow keys read the name and score at a point; Enter isolates it.`}
        tabIndex={0}
        onPointerMove={(event) => event.pointerType !== "touch" && move(pointed(event))}
        onPointerLeave={() => !probe?.keyboard && move(null)}
        onClick={(event) => {
          if ((event.target as Element).closest("input")) return;
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

const indexAt = ({ width, height }: { width: number; height: number }, { x, y }: Probe): number =>
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

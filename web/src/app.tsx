/** The page. */

import type { JSX } from "preact";
import { useCallback, useEffect, useMemo, useRef, useState } from "preact/hooks";
import { useCapabilities } from "./capabilities";
import { NameField } from "./chips";
import { commandLine, HEAT_ALPHA, pythonLines } from "./commands";
import { titlesOf } from "./comparison";
import { closeMenu } from "./controls";
import { useCorrecting } from "./correcting";
import { CorrectionBar } from "./correction";
import { makeDownload, save, type Download } from "./downloads";
import type { View } from "./draw";
import type { Engine, Labelling } from "./engine/types";
import { useEntries } from "./entries";
import { ExamplesPanel } from "./examples_panel";
import { Strip, Welcome } from "./gallery";
import { Header } from "./header";
import { failure, Handles, useHeatmap, useLabelling } from "./hooks";
import { useDropAndPaste } from "./intake";
import { displayName } from "./names";
import { SAMPLES } from "./photo";
import { Photos } from "./photos";
import { Problems } from "./problems";
import { percent, Results } from "./results";
import { askedNames, toHash, fromHash, type Settings } from "./settings";
import { SettingsPanel } from "./settings_panel";
import { Stage, type Side } from "./stage";
import { useTheme } from "./theme";
import { VOCABULARIES } from "./vocabularies";

const sentence = (text: string): string => `${text[0].toUpperCase()}${text.slice(1)}.`;

export function App({ engine }: { engine: Engine }): JSX.Element {
  const first = useMemo(() => fromHash(location.hash), []);
  const [settings, setSettings] = useState<Settings>(first.settings);
  const [kept, setKept] = useState<Settings | null>(first.left);
  const [comparePhoto, setComparePhoto] = useState(false);
  const { capabilities, loaded, failure: engineFailure, about } = useCapabilities(engine);
  const [problems, setProblems] = useState<readonly string[]>([]);
  const [hidden, setHidden] = useState<ReadonlySet<string>>(new Set());
  const [isolated, setIsolated] = useState<string | null>(null);
  const [hovered, setHovered] = useState<number | null>(null);
  const [heat, setHeat] = useState<string | null>(null);
  const [heatAlpha, setHeatAlpha] = useState(HEAT_ALPHA);
  const [note, setNote] = useState("");
  const chooser = useRef<HTMLInputElement>(null);
  const [theme, switchTheme] = useTheme();

  const limits = useRef(Infinity);
  limits.current = capabilities?.maxPixels ?? Infinity;
  const photos = useMemo(() => new Photos(() => limits.current), []);
  const handles = useMemo(() => new Handles(engine), [engine]);
  const change = useCallback((changes: Partial<Settings>) => setSettings((old) => ({ ...old, ...changes })), []);

  const { entries, entry, photo, reading, ...own } = useEntries(photos, handles, setProblems);
  const correcting = useCorrecting({
    engine,
    handles,
    photos,
    capabilities,
    settings,
    entry,
    photo,
    onNames: (names) => change({ names }),
    onNote: setNote,
    onProblem: (text) => setProblems([text]),
  });
  const { lessons, taught } = correcting;
  const takeFiles = (files: Iterable<File>): void => {
    const given = [...files];
    const banks = given.filter(({ name }) => name.endsWith(".safetensors"));
    if (banks.length) correcting.open(banks);
    if (given.length > banks.length) own.takeFiles(given.filter((file) => !banks.includes(file)));
  };
  const takeSample = (id: string): void => {
    const names = SAMPLES.find((sample) => sample.id === id)?.names ?? [];
    const suggested = SAMPLES.some((sample) => sample.names.join() === settings.names.join());
    if (settings.vocabulary === null && (!settings.names.length || suggested)) change({ names });
    own.takeSample(id);
  };
  useEffect(() => {
    if (first.sample) own.takeSample(first.sample);
  }, []);
  useEffect(() => {
    setIsolated(null);
    setHovered(null);
  }, [entry]);
  // The networks see a photo before its names are typed.
  useEffect(() => {
    if (photo && capabilities) handles.get(photo, settings.severance).catch(() => undefined);
  }, [photo, capabilities, settings.severance]);
  const dragging = useDropAndPaste(takeFiles);

  // The address follows the settings, and the settings an address that is typed.
  const hash = toHash(settings, entry?.sample ?? null, kept);
  useEffect(() => {
    if (reading || (first.sample && !entries.length && !problems.length)) return;
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  }, [hash, reading]);
  useEffect(() => {
    const follow = (): void => {
      const { settings: typed, sample, left } = fromHash(location.hash);
      setSettings(typed);
      setKept(left);
      if (sample && sample !== entry?.sample) own.takeSample(sample);
    };
    window.addEventListener("hashchange", follow);
    return () => window.removeEventListener("hashchange", follow);
  }, [entry, entries]);

  // Answers.
  const ready = capabilities ? photo : null;
  const asked = askedNames(settings);
  const answer = useLabelling(engine, handles, ready, settings, lessons.version);
  const keptAnswer = useLabelling(engine, handles, ready, kept, lessons.version);
  const heatIndex = heat === null ? null : asked.findIndex((name) => displayName(name) === heat);
  const heatAnswer = useHeatmap(engine, handles, ready, settings, heatIndex !== null && heatIndex >= 0 ? heatIndex : null, lessons.version);
  const labelling = asked.length ? answer.value : null;
  const problem = answer.failure ?? keptAnswer.failure ?? heatAnswer.failure ?? (capabilities ? null : engineFailure);

  useEffect(() => {
    if (problem?.lost) correcting.restore();
  }, [problem?.lost]);

  const view = (labels: Labelling | null, own: Settings, live: boolean): View => {
    const index = (name: string | null): number | null => {
      const found = labels?.classes.findIndex((entry) => entry.name === name) ?? -1;
      return found < 0 ? null : found;
    };
    const off = (labels?.classes ?? []).flatMap(({ name }, k) => (hidden.has(name) ? [k] : []));
    return { style: own.style, alpha: own.alpha, written: own.written, hidden: new Set(off), isolated: index(isolated), emphasised: live ? hovered : null };
  };
  const [keptTitle, nowTitle] = kept && !comparePhoto ? titlesOf(kept, settings) : ["Kept", "Result"];
  const side: Side = { title: nowTitle, labelling, view: view(labelling, settings, true) };
  const other: Side | null = comparePhoto
    ? { title: "Photo", labelling: null, view: view(null, settings, false) }
    : kept
      ? { title: keptTitle, labelling: keptAnswer.value, view: view(keptAnswer.value, kept, false) }
      : null;

  const shownHeat = heat !== null && heatAnswer.value ? { name: heat, alpha: heatAlpha, heatmap: heatAnswer.value } : null;

  const isolate = (name: string | null): void => setIsolated((old) => (name === null || old === name ? null : name));
  const toggle = (name: string): void =>
    setHidden((old) => {
      const next = new Set(old);
      if (!next.delete(name)) next.add(name);
      return next;
    });

  const found = labelling?.classes.filter(({ share }) => share > 0) ?? [];
  const spoken = answer.busy
    ? ""
    : labelling
      ? found.length
        ? `Result: ${found.map(({ name, share }) => `${name} ${percent(share)}`).join(", ")}`
        : "Result: none of the names was found"
      : "";
  const known = new Map(labelling?.classes.map(({ name, colour }) => [name, colour]));
  const colours = settings.names.map((name) => known.get(displayName(name)));

  const download = async (kind: Download): Promise<void> => {
    closeMenu("download");
    if (!photo || !labelling) return;
    try {
      const { blob, name } = await makeDownload(kind, { photo, labelling, view: side.view, heat: shownHeat }, answer.settings ?? settings, capabilities?.model ?? "nano", taught);
      save(blob, name);
      setNote(`${name} was saved.`);
    } catch (error) {
      setProblems([failure(error).message]);
    }
  };
  const copy = async (text: string, what: string): Promise<void> => {
    try {
      await navigator.clipboard.writeText(text);
      setNote(`${what} copied.`);
    } catch {
      setNote("The browser does not allow copying; select the text instead.");
    }
  };
  useEffect(() => {
    if (!note) return;
    const timer = setTimeout(() => setNote(""), 4000);
    return () => clearTimeout(timer);
  }, [note]);

  const photoName = entry?.sample ? `examples/${entry.name}` : (entry?.name ?? "photo.jpg");
  const model = capabilities?.model ?? "nano";
  const command = commandLine(photoName, settings, model, shownHeat, taught);
  const lines = pythonLines(photoName, settings, model, shownHeat, taught);
  useEffect(() => {
    document.title = asked.length && entry ? `${entry.name} – deop` : "deop";
  }, [entry, asked.length > 0]);
  const choose = (): void => chooser.current?.click();

  return (
    <div class={`page${dragging ? " dragging" : ""}${entry ? "" : " empty"}`}>
      <Header
        about={about}
        theme={theme}
        named={asked.length > 0}
        labelled={labelling !== null}
        isolated={isolated}
        heat={shownHeat?.name ?? null}
        command={command}
        lines={lines}
        correcting={capabilities?.examples ? correcting.active : null}
        shown={photo !== null}
        bank={taught}
        onCorrect={correcting.toggle}
        onSaveBank={correcting.saveBank}
        onTheme={switchTheme}
        onCopy={copy}
        onDownload={download}
      />

      <main>
        <div class="view">
          <Problems
            failure={problem}
            messages={problems}
            onRetry={() => [answer, keptAnswer, heatAnswer].forEach((each) => each.failure && each.retry())}
            onClose={() => setProblems([])}
          />
          {photo && entry ? (
            <div class="work" style={{ "--ratio": String(photo.width / photo.height) }}>
              <Stage
                key={entry.id}
                photo={photo}
                side={side}
                other={other}
                heat={shownHeat}
                busy={answer.busy || keptAnswer.busy || heatAnswer.busy || lessons.busy || (!capabilities && !engineFailure && asked.length > 0)}
                correction={
                  correcting.active
                    ? {
                        examples: lessons.marked.filter((lesson) => lesson.entry === entry),
                        pending: correcting.pending?.mark ?? null,
                        pixels: correcting.pending?.pixels ?? null,
                        onMark: (mark, k) => correcting.mark(mark, k === null ? null : (labelling?.classes[k]?.name ?? null)),
                        onCancel: correcting.cancel,
                      }
                    : null
                }
                onHover={setHovered}
                onPick={(k) => isolate(k === null ? null : (labelling?.classes[k]?.name ?? null))}
              />
              {correcting.active && (
                <CorrectionBar
                  pending={correcting.pending?.mark ?? null}
                  present={correcting.pending?.present ?? null}
                  busy={lessons.busy}
                  names={[...new Set([...asked, ...lessons.taught.map(({ name }) => name.replace(/^-/, ""))])]}
                  problem={correcting.refused}
                  onTeach={correcting.teach}
                  onCancel={correcting.cancel}
                  onDone={correcting.toggle}
                />
              )}
            </div>
          ) : (
            <Welcome reading={reading} onChoose={choose} onSample={takeSample} />
          )}
          {entries.length > 0 && (
            <Strip entries={entries} current={entry} reading={reading} onShow={own.show} onRemove={own.remove} onChoose={choose} onSample={takeSample} />
          )}
        </div>

        <div class="panel">
          {!capabilities && loaded && (
            <div class="loading">
              <div role="progressbar" aria-label="Loading the model" aria-valuemin={0} aria-valuemax={100} aria-valuenow={Math.round((100 * loaded.done) / loaded.total)}>
                <span style={{ width: `${(100 * loaded.done) / loaded.total}%` }} />
              </div>
              <p class="hint">{sentence(about)}</p>
            </div>
          )}
          {settings.vocabulary === null && (
            <NameField
              label="Names"
              hint="Enter adds a name; | joins synonyms: sofa|couch. “background” is everything else."
              placeholder="cat, sofa|couch, wall"
              names={settings.names}
              taken={settings.background}
              colours={colours}
              taught={correcting.withExamples}
              maxNames={capabilities?.maxNames ?? 1000}
              onChange={(names) => change({ names })}
            />
          )}
          <div class="field inline">
            <label for="vocabulary">Vocabulary</label>
            <select id="vocabulary" value={settings.vocabulary ?? ""} onChange={(event) => change({ vocabulary: event.currentTarget.value || null })}>
              <option value="">your names</option>
              {VOCABULARIES.map(({ id, title }) => (
                <option key={id} value={id}>
                  {title}, {askedNames({ ...settings, vocabulary: id }).length} names
                </option>
              ))}
            </select>
          </div>
          {labelling && (
            <Results
              labelling={labelling}
              hidden={hidden}
              isolated={isolated}
              emphasised={hovered}
              heat={heat}
              heatmaps={capabilities?.heatmaps ?? false}
              onToggle={toggle}
              onIsolate={isolate}
              onHeat={(name) => setHeat((old) => (old === name ? null : name))}
              onShowAll={() => {
                setIsolated(null);
                setHidden(new Set());
                setHeat(null);
              }}
              onHover={setHovered}
            />
          )}
          {capabilities?.examples && (
            <ExamplesPanel
              state={lessons}
              current={photo && entry}
              correcting={correcting.active}
              onCorrect={correcting.toggle}
              onShow={(shown) => entries.includes(shown) && own.show(shown)}
              onRemove={correcting.remove}
              onRemoveFile={correcting.removeFile}
              onUndo={correcting.undo}
              onClear={correcting.clear}
              onOpen={correcting.open}
              onSave={correcting.saveBank}
            />
          )}
          <SettingsPanel
            settings={settings}
            examples={taught}
            capabilities={capabilities}
            asked={asked}
            heatAlpha={shownHeat?.alpha ?? null}
            comparison={comparePhoto ? "photo" : kept ? "kept" : "nothing"}
            unchanged={kept !== null && toHash(kept, null) === toHash(settings, null)}
            onChange={change}
            onHeatAlpha={setHeatAlpha}
            onCompare={(value) => {
              setComparePhoto(value === "photo");
              setKept(value === "kept" ? settings : null);
            }}
          />
          <p class="engine">{about}</p>
        </div>
      </main>

      <input
        ref={chooser}
        type="file"
        accept="image/*"
        multiple
        hidden
        aria-label="Choose photos"
        onChange={(event) => {
          const { files } = event.currentTarget;
          if (files?.length) void takeFiles([...files]);
          event.currentTarget.value = "";
        }}
      />
      <p class="toast" role="status">
        {note}
      </p>
      <p class="spoken" role="status">
        {spoken}
      </p>
    </div>
  );
}

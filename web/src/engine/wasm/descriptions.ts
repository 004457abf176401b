/** Which words of a description matter: `deop.text.descriptions`. */

const MODIFIER_WEIGHT = 0.4;
const REST_WEIGHT = 0.2;

export const PUNCTUATION = ",(;:";

/** Words without a meaning that a photo shows. */
const FILLERS = new Set(
  (
    "a an the this that these those some any each every my your his her its our their and or very one two three four " +
    "five six seven eight nine ten several many few both all"
  ).split(" "),
);
/** Words before "of" whose head is the word after it. */
const AMOUNTS = new Set(
  (
    "photo photograph picture image drawing view closeup close-up piece pieces slice slices bunch pair pairs group " +
    "groups herd flock pile stack row rows set kind kinds type types sort bit patch area body stretch expanse lot lots " +
    "couple number part parts crowd"
  ).split(" "),
);
/** Words after which no head follows, and which mean nothing themselves. */
const LINKS = new Set(
  (
    "of on in at with without by from for near behind under above between beside below over inside outside against " +
    "around along among across through next while who which whose where is are to into onto up"
  ).split(" "),
);
/** Verbs of captions, after which no head follows either, except at the start. */
const VERBS = new Set(
  (
    "smiling standing sitting walking running riding holding wearing sleeping eating lying flying playing looking " +
    "jumping driving drinking reading talking laughing carrying watching using cooking working waiting waving grazing " +
    "hanging posing facing parked seated dressed covered filled made called shaped"
  ).split(" "),
);

/**
 * The weight of each unit of a text: 1 for the head, less for other words, 0 for articles and punctuation.
 *
 * @param units words, phrases and punctuation marks, in lower case
 */
export function weigh(units: readonly string[]): number[] {
  let before: number[] = [];
  const after: number[] = [];
  let ended = false;
  units.forEach((unit, place) => {
    if (unit === "of" && before.length && !ended && AMOUNTS.has(units[before[before.length - 1]])) before = [];
    else if (PUNCTUATION.includes(unit) || LINKS.has(unit)) ended = before.length > 0;
    else if (!FILLERS.has(unit)) {
      ended ||= VERBS.has(unit) && before.length > 0;
      (ended ? after : before).push(place);
    }
  });
  if (!before.length) return units.map((unit) => (PUNCTUATION.includes(unit) ? 0 : 1));
  const weights = units.map(() => 0);
  const head = before[before.length - 1];
  const modifiers = before.slice(0, -1);
  for (const place of modifiers) weights[place] = MODIFIER_WEIGHT / modifiers.length;
  for (const place of after) weights[place] = REST_WEIGHT / after.length;
  weights[head] = 1;
  return weights;
}

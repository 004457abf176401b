/** Class names as people write them; the rules are those of `deop.text.vocabulary`. */

const EVERYTHING_ELSE = new Set(
  (
    "background,backdrop,bg,other,others,other things,other objects,rest,remainder,everything,everything else," +
    "anything else,something else,all else,all others,nothing else,none,none of these,none of them," +
    "none of the above,no class,no label,nothing,void,ignore,ignored,unlabeled,unlabelled,not labeled," +
    "not labelled,unannotated,unassigned,unclassified,unspecified,undefined,misc,miscellaneous"
  ).split(","),
);

/** Whether a name means everything that the other names do not. */
export function meansEverythingElse(text: string): boolean {
  const words = text
    .toLowerCase()
    .replace(/[\s_/-]+/g, " ")
    .replace(/^[ ()[\]<>.'"]+|[ ()[\]<>.'"]+$/g, "");
  return EVERYTHING_ELSE.has(words.replace(/^the /, ""));
}

/** Invisible marks that copied text may contain: soft hyphens, spaces of no width, marks of direction. */
const INVISIBLE = /[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g;

/** A name with single spaces; without blank or repeated synonyms. Empty if nothing is left. */
export function cleanName(text: string): string {
  const seen = new Set<string>();
  return text
    .replace(INVISIBLE, "")
    .replace(/\p{Cc}/gu, " ")
    .split("|")
    .map((part) => part.trim().replace(/\s+/g, " ").normalize("NFC"))
    .filter((part) => part && !seen.has(part.toLowerCase()) && seen.add(part.toLowerCase()))
    .join("|");
}

/** "cat, sofa|couch" as a list. A semicolon separates instead of commas, and line breaks always do. */
export function splitNames(text: string): string[] {
  return text.split(text.includes(";") ? /[;\n]/ : /[,\n]/).map(cleanName).filter(Boolean);
}

/** A list as one string that `splitNames` reads. */
export function joinNames(names: readonly string[]): string {
  if (!names.some((name) => name.includes(","))) return names.join(", ");
  return names.length > 1 ? names.join("; ") : `${names[0]};`;
}

export const synonyms = (name: string): string[] => name.split("|");
export const displayName = (name: string): string => name.split("|", 1)[0];

/** Adds names to a list; those with a text that the list has are left out and returned as `repeated`. */
export function addNames(names: readonly string[], added: readonly string[]): { names: string[]; repeated: string[] } {
  const result = [...names];
  const texts = new Set(names.flatMap(synonyms).map((text) => text.toLowerCase()));
  const repeated: string[] = [];
  for (const name of added) {
    const own = synonyms(name).map((text) => text.toLowerCase());
    if (own.some((text) => texts.has(text))) {
      repeated.push(name);
      continue;
    }
    for (const text of own) texts.add(text);
    result.push(name);
  }
  return { names: result, repeated };
}

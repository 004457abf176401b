/** Letters that a table of English words lacks, written in those that it has: `deop.text.folding`. */

/** Upper and lower case as equal, and "ß" as "ss": Python's `str.casefold`. */
export const caseFold = (text: string): string => text.toUpperCase().toLowerCase().replaceAll("ς", "σ");

const VARIANTS = new Map<string, string>(
  (
    // Letters that do not decompose, each group behind the letter that it is a form of: Unicode's LATIN LETTER O WITH ...
    "aᶏⱥ bƀƃɓᵬᶀꞗ cƈȼɕꞓꞔ dđƌȡɖɗᵭᶁᶑꟈ eɇᶒⱸꬴ fƒᵮᶂꞙ gǥɠᶃꞡ hħɦⱨꞕ iɨᶖ jɉʝ kƙᶄⱪꝁꝃꝅꞣ lłƚȴɫɬɭᶅⱡꝉꞎꬷꬸꬹ mɱᵯᶆꬺ nƞȵɲɳᵰᶇꞑꞥꬻ " +
    "oøⱺꝋꝍ pƥᵱᵽᶈꝑꝓꝕ qɋʠꝗꝙ rɍɼɽɾᵲᵳᶉꞧꭉ sȿʂᵴᶊꞩꟊ tŧƫƭȶʈᵵⱦ uᶙꞹꭎꭒ vʋᶌⱱⱴꝟ wⱳ xᶍꭖꭗꭘꭙ yƴɏỿꭚ zƶȥɀʐʑᵶᶎⱬ"
  )
    .split(" ")
    .flatMap((group) => [...group].slice(1).map((letter) => [letter, group[0]] as const)),
);

const LETTERS = new Map<string, string>([
  ...Object.entries({ æ: "ae", œ: "oe", ð: "d", þ: "th", "\u0131": "i", ŋ: "ng", ə: "e", "\u2044": "/", "\u00b7": "" }),
  ...[..."\u2018\u2019\u201a\u201b\u2032\u2035\u02bc\u02b9\u02bb\u00b4\u0060\uff07"].map((mark) => [mark, "'"] as const),
  ...[..."\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"].map((mark) => [mark, "-"] as const),
]);

const translate = (text: string): string => Array.from(text, (letter) => LETTERS.get(letter) ?? letter).join("");
const isAscii = (text: string): boolean => !/[^\0-\x7f]/.test(text);

/** The value of a decimal digit of any script; digits lie in runs of ten. */
function digitOf(letter: string): string {
  let before = 0;
  const code = letter.codePointAt(0)!;
  while (/\p{Decimal_Number}/u.test(String.fromCodePoint(code - before - 1))) before++;
  return String(before % 10);
}

function plain(letter: string): string {
  if (letter <= "\x7f") return letter;
  return VARIANTS.get(letter) ?? (/\p{Decimal_Number}/u.test(letter) ? digitOf(letter) : letter);
}

/** A text in lower case, without accents, ligatures and typographic variants of letters, hyphens and apostrophes. */
export function fold(text: string): string {
  if (isAscii(text) && !text.includes("`")) return text.toLowerCase();
  // Apostrophes first: NFKD turns "´" into a space and an accent.
  const letters = translate(caseFold(translate(text).normalize("NFKD")));
  return Array.from(letters.normalize("NFKD"), (letter) => (/[\p{Mn}\p{Me}]/u.test(letter) ? "" : plain(letter))).join("");
}

/** The letters, digits and signs of a folded text that are not ASCII, each once, in their order. */
export const unreadLetters = (folded: string): string =>
  [...new Set(Array.from(folded).filter((letter) => letter > "\x7f" && /[\p{L}\p{N}\p{So}\p{Mc}\p{Co}\p{Cn}]/u.test(letter)))].join("");

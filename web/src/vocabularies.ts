/** The built-in vocabularies: lists of names of which a photo keeps those that it shows. */

import lists from "deop:vocabularies";

export const VOCABULARIES: readonly { id: string; title: string }[] = [
  { id: "everyday", title: "Everyday" },
  { id: "coco", title: "COCO-Stuff" },
  { id: "ade20k", title: "ADE20K" },
  { id: "cityscapes", title: "Cityscapes" },
];

/** The names of a list, "sofa|couch". */
export const namesOfList = (id: string): readonly string[] => lists[id].names;

/** Whether each name of a list is a countable thing; null for names that somebody chose. */
export const thingsOfList = (id: string | null): boolean[] | null => (id === null ? null : Array.from(lists[id].things, (flag) => flag === "1"));

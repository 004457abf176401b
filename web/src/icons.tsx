/** Icons, drawn on a grid of 24. They are decoration: the buttons that hold them have labels. */

import type { ComponentChildren, JSX } from "preact";

function icon(children: ComponentChildren): () => JSX.Element {
  return () => (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      {children}
    </svg>
  );
}

export const Cross = icon(<path d="M6 6l12 12M18 6L6 18" />);
export const Plus = icon(<path d="M12 5v14M5 12h14" />);
export const Eye = icon(
  <>
    <path d="M2.500 12S6 5.500 12 5.500 21.500 12 21.500 12 18 18.500 12 18.500 2.500 12 2.500 12z" />
    <circle cx="12" cy="12" r="2.800" />
  </>,
);
export const EyeOff = icon(<path d="M4 4l16 16M9.500 5.900A9 9 0 0 1 12 5.500c6 0 9.500 6.500 9.500 6.500a17 17 0 0 1-3.200 3.900M6 7.600A17 17 0 0 0 2.500 12S6 18.500 12 18.500a9 9 0 0 0 4-.900" />);
export const Heat = icon(<path d="M12 3c1 4 5 5.500 5 10.500a5 5 0 0 1-10 0c0-2 1-3.200 2-4.200.300 1.500 1 2.200 1.700 2.400C10.500 8.500 11 5.500 12 3z" />);
export const Compare = icon(<path d="M12 3v18M4 6h5v12H4M15 6h5v12h-5" />);
export const Download = icon(<path d="M12 4v11m-4.500-4L12 15.500l4.500-4.500M5 20h14" />);
export const Code = icon(<path d="M8.500 7L3.500 12l5 5M15.500 7l5 5-5 5" />);
export const Link = icon(<path d="M10 14a4 4 0 0 0 5.700 0l3-3A4 4 0 0 0 13 5.300l-1 1M14 10a4 4 0 0 0-5.700 0l-3 3A4 4 0 0 0 11 18.700l1-1" />);
export const Sun = icon(
  <>
    <circle cx="12" cy="12" r="4" />
    <path d="M12 2.500v2M12 19.500v2M2.500 12h2M19.500 12h2M5.300 5.300l1.400 1.400M17.300 17.300l1.400 1.400M5.300 18.700l1.400-1.400M17.300 6.700l1.400-1.400" />
  </>,
);
export const Moon = icon(<path d="M19.500 14.500A8 8 0 0 1 9.500 4.500a8 8 0 1 0 10 10z" />);
export const Pin = icon(
  <>
    <path d="M12 21.500s-6.500-6.300-6.500-11.500a6.500 6.500 0 0 1 13 0c0 5.200-6.500 11.500-6.500 11.500z" />
    <path d="M9.300 10l2 2 3.500-3.500" />
  </>,
);
export const Bank = icon(<path d="M5 5.500h14v4H5zM5 9.500h14v9H5zM10 13h4" />);
export const Photo = icon(
  <>
    <rect x="3.500" y="5" width="17" height="14" rx="2.500" />
    <path d="M4 16.500l4.500-4.500 4 4 2.500-2.500 5 4.500" />
    <circle cx="15.500" cy="9.300" r="1.200" />
  </>,
);

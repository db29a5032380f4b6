// Paul Tol's "light" scheme: distinct for every kind of colour vision, and each light enough for dark letters.
const COLOURS = ["#77aadd", "#ee8866", "#eedd88", "#ffaabb", "#99ddff", "#44bb99", "#bbcc33", "#dddddd", "#aaaa00"];

/** Colour of a class; the name beside it tells apart those that share one. */
export function colourOf(classId) {
  return COLOURS[Math.abs(Math.trunc(classId)) % COLOURS.length] ?? COLOURS[0];
}

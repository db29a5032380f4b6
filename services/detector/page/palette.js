// Paul Tol's "light" scheme: distinct for every kind of colour vision, and each light enough for dark letters.
const COLOURS = ["#77aadd", "#ee8866", "#eedd88", "#ffaabb", "#99ddff", "#44bb99", "#bbcc33", "#dddddd", "#aaaa00"];

const places = new Map(); // class → index of its colour

/** Colour of a class: the same on every page unless another class came first; shared once all are taken. */
export function colourOf(classId) {
  let place = places.get(classId);
  if (place === undefined) {
    const taken = new Set(places.values());
    const wanted = classId % COLOURS.length;
    const order = COLOURS.map((_, step) => (wanted + step) % COLOURS.length);
    place = order.find((free) => !taken.has(free)) ?? wanted;
    places.set(classId, place);
  }
  return COLOURS[place];
}

// Paul Tol's "light" scheme: distinct for every kind of color vision, and each light enough for dark letters.
const COLORS = ["#77aadd", "#ee8866", "#eedd88", "#ffaabb", "#99ddff", "#44bb99", "#bbcc33", "#dddddd", "#aaaa00"];

const places = new Map(); // class → index of its color

/** Color of a class: the same on every page unless another class came first; shared once all are taken. */
export function colorOf(classId) {
  let place = places.get(classId);
  if (place === undefined) {
    const taken = new Set(places.values());
    const wanted = classId % COLORS.length;
    const order = COLORS.map((_, step) => (wanted + step) % COLORS.length);
    place = order.find((free) => !taken.has(free)) ?? wanted;
    places.set(classId, place);
  }
  return COLORS[place];
}

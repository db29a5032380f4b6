// Where the time of a frame goes: one bar, stacked by stage, and the same as numbers.

import { follow, make, write } from "./dom.js";
import { milliseconds } from "./format.js";

// In the order a frame passes them; the stages of one place share a color.
const PLACES = [
  ["camera", ["grab", "head", "encode", "send"]],
  ["link", ["network"]],
  ["detector", ["queue", "decode", "tail", "nms", "publish"]],
];

/** `stages` maps names to mean milliseconds. */
export function drawStages(bar, list, stages) {
  const places = PLACES.map(([place, names]) => [
    place,
    names.filter((name) => stages.has(name)).map((name) => [name, Math.max(0, stages.get(name))]),
  ]).filter(([, parts]) => parts.length);

  const segments = places.flatMap(([place, parts]) =>
    parts.map(([name, mean], shade) => [name, { place, shade, mean }]),
  );
  follow(
    bar,
    segments,
    () => make("span"),
    (segment, { place, shade, mean }) => {
      segment.dataset.place = place;
      segment.dataset.shade = shade;
      segment.style.flexGrow = mean;
    },
  );

  follow(list, places, newPlace, (item, parts) => {
    const [heading, stageList] = item.children;
    const sum = parts.reduce((total, [, mean]) => total + mean, 0);
    write(heading.lastElementChild, `${milliseconds(sum)} ms`);
    follow(stageList, [...parts.entries()].map(([shade, [name, mean]]) => [name, { shade, mean }]), newStage,
      (row, { shade, mean }) => {
        row.dataset.place = item.dataset.key;
        row.dataset.shade = shade;
        write(row.lastElementChild, milliseconds(mean));
      });
  });
}

function newPlace(place) {
  return make("li", "place", make("p", "", make("b", "", place), " ", make("span")), make("ul"));
}

function newStage(name) {
  return make("li", "", make("i", "swatch"), make("span", "name", name), " ", make("span", "mean"));
}

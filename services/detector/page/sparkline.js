// The last minutes of one series as a small curve, with the same told in words.

import { duration } from "./format.js";

const NAMESPACE = "http://www.w3.org/2000/svg";
const SHORTEST_S = 60; // of the time axis, which then grows with the history
const HEIGHT = 32;

/**
 * Draw `values`, one for each of `times` (Unix seconds, oldest first), into an <svg>; null leaves a gap.
 * The right edge is the newest time, the baseline zero. `label` begins the text alternative. `losses`, a share of 0 to 1
 * for each of the times, rise from the baseline as marks.
 * Returns the highest value, or null.
 */
export function drawSparkline(svg, times, values, { label, format, losses = [] }) {
  const known = values.filter(Number.isFinite);
  if (!known.length) {
    svg.setAttribute("aria-label", `${label}: no history yet`);
    svg.replaceChildren();
    return null;
  }
  const most = known.reduce((a, b) => Math.max(a, b));
  const least = known.reduce((a, b) => Math.min(a, b));
  const newest = times.at(-1);
  const span = Math.max(SHORTEST_S, newest - times[0]);
  svg.setAttribute("viewBox", `0 0 ${span.toFixed(1)} ${HEIGHT}`);
  svg.setAttribute(
    "aria-label",
    `${label} in the last ${duration(span)}: lowest ${format(least)}, highest ${format(most)}`,
  );
  const top = most > 0 ? most * 1.1 : 1;
  const place = (i) => [
    (span - (newest - times[i])).toFixed(1),
    (HEIGHT - (Math.max(0, values[i]) / top) * (HEIGHT - 1)).toFixed(2),
  ];
  let line = "";
  let area = "";
  for (const run of runs(values)) {
    const points = run.map(place);
    const curve = points.join("L");
    line += `M${curve}`;
    area += `M${points[0][0]},${HEIGHT}L${curve}L${points.at(-1)[0]},${HEIGHT}Z`;
  }
  let marks = "";
  losses.forEach((share, i) => {
    if (share > 0) marks += `M${place(i)[0]},${HEIGHT}v${(-HEIGHT * (0.15 + 0.85 * share)).toFixed(2)}`;
  });
  const paths = svg.childElementCount ? svg.children : ["area", "line", "lost"].map((name) => newPath(svg, name));
  const [areaPath, linePath, lossPath] = paths;
  areaPath.setAttribute("d", area);
  linePath.setAttribute("d", line);
  lossPath.setAttribute("d", marks);
  return most;
}

/** Indices of the values that are known, as lists without gaps. */
function runs(values) {
  const found = [];
  for (let i = 0; i < values.length; i++) {
    if (!Number.isFinite(values[i])) continue;
    if (i > 0 && Number.isFinite(values[i - 1])) found.at(-1).push(i);
    else found.push([i]);
  }
  return found;
}

function newPath(svg, className) {
  const path = document.createElementNS(NAMESPACE, "path");
  path.setAttribute("class", className);
  path.setAttribute("vector-effect", "non-scaling-stroke");
  svg.append(path);
  return path;
}

// Numbers and times as people read them. Whatever is not a finite number reads as a dash.

const formats = [0, 1, 2].map(
  (digits) => new Intl.NumberFormat("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }),
);
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

export const NONE = "–";

/** With a fixed number of digits, so that a number that changes stays where it stands. */
export function number(value, digits = 0) {
  if (!Number.isFinite(value)) return NONE;
  return Math.abs(value) >= 1e6 ? compact.format(value) : formats[digits].format(value);
}

/** Two or three significant digits: 0.42, 4.2, 42. */
export function measure(value) {
  const size = Math.abs(value);
  return number(value, size >= 99.5 ? 0 : size >= 9.95 ? 1 : 2);
}

/** Milliseconds, without more digits than they deserve. */
export function milliseconds(value) {
  return number(value, Math.abs(value) >= 9.95 ? 0 : 1);
}

/** A bit rate as [number, unit]. */
export function bitRate(kbit) {
  return kbit >= 1e4 ? [number(kbit / 1e3, 1), "Mbit/s"] : [number(kbit), "kbit/s"];
}

const UNITS = [
  ["days", 86400],
  ["h", 3600],
  ["min", 60],
];

/** In the largest unit of which there are two. */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return NONE;
  const [name, length] = UNITS.find((unit) => seconds >= 2 * unit[1]) ?? ["s", 1];
  return `${Math.floor(Math.max(0, seconds) / length)} ${name}`;
}

const timeOfDay = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const date = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

/** Unix seconds as a time of day here, with the date unless it is within half a day of `now`. */
export function instant(unix, now) {
  if (!Number.isFinite(unix)) return NONE;
  return (Math.abs(now - unix) < 43200 ? timeOfDay : date).format(unix * 1000);
}

export function plural(count, noun) {
  return `${number(count)} ${noun}${count === 1 ? "" : "s"}`;
}

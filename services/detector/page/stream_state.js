import { duration, number } from "./format.js";

const SILENT_S = 5;
// From a state's length to words; what ends a stream is told by its instant.
const STATES = {
  waiting: (long) => `waiting for ${long}`,
  stalled: (long) => `stalled for ${long}`,
  frozen: (long) => `frozen for ${long}`,
  lost: (long) => `lost ${long} ago`,
  ended: (long) => `ended ${long} ago`,
};

/** Whether the camera is connected and has said what it sends. */
export function isStreaming({ state }) {
  return ["connected", "stalled", "frozen"].includes(state);
}

/**
 * State of a stream as a word for the style, one of the detector's or "live" or "silent" for what is connected, and as
 * words for people. `now` is Unix time in seconds on the detector's clock.
 */
export function stateOf(stream, now) {
  const told = STATES[stream.state];
  if (told) return { state: stream.state, words: told(duration(now - stream.state_since)) };
  const age = stream.last_frame_age_s;
  if (age === null) return { state: "silent", words: "connected, no frame yet" };
  if (age > SILENT_S) return { state: "silent", words: `connected, silent, last frame ${duration(age)} ago` };
  const what = stream.late ? "late, frames of an outage" : "connected";
  return { state: "live", words: `${what}, ${number(stream.frames_per_second, 1)} frames/s` };
}

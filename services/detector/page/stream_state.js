import { duration, number } from "./format.js";

const SILENT_S = 5;

/** State of a stream as a word for the style, "live", "silent" or "lost", and as words for people. */
export function stateOf(stream) {
  const age = stream.last_frame_age_s;
  const ago = age === null ? "before its first frame" : `last frame ${duration(age)} ago`;
  if (stream.state !== "connected") return { state: "lost", words: `lost, ${ago}` };
  if (age === null) return { state: "silent", words: "connected, no frame yet" };
  if (age > SILENT_S) {
    const source = stream.camera?.source_state === "lost" ? "source lost" : "silent";
    return { state: "silent", words: `connected, ${source}, ${ago}` };
  }
  return { state: "live", words: `connected, ${number(stream.frames_per_second, 1)} frames/s` };
}

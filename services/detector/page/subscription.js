// The detections of one stream, kept until the display takes them, and what is told of those that are missing.

import { openDetections } from "./detector.js";

const TEXTS_KEPT = 8; // of those that come between two paints; what a slow display misses is gone
const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 15000;
const TRY_AGAIN_LATER = 1013;
// Of a gap, or of a loss: within a text, quotes are escaped.
const LOSS = /"type":\s*"gap"|"dropped":/;
const DEAF_MS = 10000; // without a message while frames are published

export class Subscription {
  #name;
  #onArrival;
  #socket = null;
  #texts = [];
  #waitMs = FIRST_WAIT_MS;
  #retryAt = 0;
  #frames = null; // of the stream, when it was last told
  #heardAt = 0;

  /** Messages that the detector dropped, because this browser took them too slowly. */
  dropped = 0;

  /** The latest message of a gap, or null. */
  gap = null;

  /** True while the detector has as many subscribers as it allows. */
  refused = false;

  constructor(name, onArrival) {
    this.#name = name;
    this.#onArrival = onArrival;
  }

  /** True where the socket never opened: a proxy or the detector does not let it through. */
  blocked = false;

  /**
   * Open the socket unless it is open, or was closed only a moment ago. `frames` counts the stream's frames: a socket
   * that is mute while they grow is dead without knowing it, as after a sleep or a change of network.
   */
  keep(frames) {
    const now = performance.now();
    if (frames === this.#frames) this.#heardAt = now; // there was nothing to hear
    this.#frames = frames;
    if (this.#socket && now - this.#heardAt > DEAF_MS) this.close();
    if (this.#socket || now < this.#retryAt) return;
    this.#heardAt = now;
    const socket = openDetections(this.#name);
    this.#socket = socket;
    let opened = false;
    socket.onopen = () => {
      opened = true;
      this.blocked = false;
    };
    socket.onmessage = ({ data }) => {
      if (this.#socket !== socket) return;
      this.#heardAt = performance.now();
      this.#waitMs = FIRST_WAIT_MS;
      this.refused = false;
      if (LOSS.test(data)) this.#note(data);
      this.#texts.push(data);
      if (this.#texts.length > TEXTS_KEPT) this.#texts.shift();
      this.#onArrival();
    };
    socket.onclose = ({ code }) => {
      if (this.#socket !== socket) return;
      this.#socket = null;
      this.refused = code === TRY_AGAIN_LATER;
      this.blocked = !opened;
      this.#retryAt = performance.now() + this.#waitMs;
      this.#waitMs = Math.min(2 * this.#waitMs, LONGEST_WAIT_MS);
    };
  }

  /** The newest frames since the last call, oldest first; parsed only now, so that a burst costs no more. */
  take() {
    return this.#texts.splice(0).map(parse).filter(hasBoxes);
  }

  /** Count at once what must not be missed, however slow the display is. */
  #note(text) {
    const message = parse(text);
    if (message?.dropped > 0) this.dropped += message.dropped;
    if (message?.type === "gap") this.gap = message;
  }

  close() {
    this.#socket?.close();
    this.#socket = null;
    this.#texts = [];
  }
}

/** A message; null for what is none, which a broken proxy may send. */
function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function hasBoxes(message) {
  return Array.isArray(message?.predictions) && Boolean(message.image);
}

// The detections of one stream, kept until the display takes them.

import { openDetections } from "./detector.js";

const TEXTS_KEPT = 8; // of those that come between two paints; what a slow display misses is gone
const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 15000;
const TRY_AGAIN_LATER = 1013;

export class Subscription {
  #name;
  #onArrival;
  #socket = null;
  #texts = [];
  #waitMs = FIRST_WAIT_MS;
  #retryAt = 0;

  /** True while the detector has as many subscribers as it allows. */
  refused = false;

  constructor(name, onArrival) {
    this.#name = name;
    this.#onArrival = onArrival;
  }

  /** Open the socket unless it is open, or was closed only a moment ago. */
  keep() {
    if (this.#socket || performance.now() < this.#retryAt) return;
    const socket = openDetections(this.#name);
    this.#socket = socket;
    socket.onmessage = ({ data }) => {
      if (this.#socket !== socket) return;
      this.#waitMs = FIRST_WAIT_MS;
      this.refused = false;
      this.#texts.push(data);
      if (this.#texts.length > TEXTS_KEPT) this.#texts.shift();
      this.#onArrival();
    };
    socket.onclose = ({ code }) => {
      if (this.#socket !== socket) return;
      this.#socket = null;
      this.refused = code === TRY_AGAIN_LATER;
      this.#retryAt = performance.now() + this.#waitMs;
      this.#waitMs = Math.min(2 * this.#waitMs, LONGEST_WAIT_MS);
    };
  }

  /** The newest frames since the last call, oldest first; parsed only now, so that a burst costs no more. */
  take() {
    return this.#texts.splice(0).map((text) => JSON.parse(text));
  }

  close() {
    this.#socket?.close();
    this.#socket = null;
    this.#texts = [];
  }
}

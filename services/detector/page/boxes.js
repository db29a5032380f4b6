// Draws detections: boxes of the newest frame over fading traces of those before.

import { colorOf } from "./palette.js";

const TRAIL_NS = 2e9;
const OUTLINE_NS = 3e8; // between the outlines of a trail
const OUTLINED = 24; // boxes of a frame; of more, outlines would be a thicket
const TRAIL_DOTS = 1500; // enough for any scene a person can read, few enough for any machine to draw
const LABELS = 48; // of the most certain boxes; more would only cover each other
const LARGEST_SIDE = 4096; // device pixels
const OUTSIDE = "#05080b"; // of the frame, where it does not fill the canvas
const STAGE = "#10161d";
const GRID = "#1b242e";
const INK = "#10161d";
const GRID_STEPS = 12;

const stillness = window.matchMedia("(prefers-reduced-motion: reduce)");

export class BoxPainter {
  #canvas;
  #context;
  #frames = []; // newest last; those before are the trail
  #picture = null;
  #labels = new Map(); // text → width, in the font of the last paint

  constructor(canvas, onResize) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d", { alpha: false });
    new ResizeObserver(() => {
      const density = window.devicePixelRatio || 1;
      canvas.width = Math.min(LARGEST_SIDE, Math.max(1, Math.round(canvas.clientWidth * density)));
      canvas.height = Math.min(LARGEST_SIDE, Math.max(1, Math.round(canvas.clientHeight * density)));
      onResize();
    }).observe(canvas);
  }

  /** The newest frame, or undefined. */
  get latest() {
    return this.#frames.at(-1);
  }

  add(frames) {
    this.#frames.push(...frames);
    const now = this.latest?.captured_ns ?? 0;
    // A camera that starts anew, or whose clock goes back, leaves no trail.
    this.#frames = this.#frames.filter(({ captured_ns: then }) => then <= now && now - then < TRAIL_NS);
  }

  /** Show a picture under the boxes; null for none. */
  show(picture) {
    this.#picture?.close();
    this.#picture = picture;
  }

  clear() {
    this.#frames = [];
    this.show(null);
  }

  paint() {
    const context = this.#context;
    const { width, height } = this.#canvas;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = OUTSIDE;
    context.fillRect(0, 0, width, height);
    const size = this.latest?.image ?? this.#picture ?? { width, height };
    const scale = Math.min(width / size.width, height / size.height);
    context.translate((width - size.width * scale) / 2, (height - size.height * scale) / 2);
    context.fillStyle = STAGE;
    context.fillRect(0, 0, size.width * scale, size.height * scale);
    if (this.#picture) {
      context.drawImage(this.#picture, 0, 0, size.width * scale, size.height * scale);
    } else {
      this.#paintGrid(size.width * scale, size.height * scale);
    }
    if (!this.latest) return;
    if (!stillness.matches) this.#paintTrail(scale);
    this.#paintBoxes(scale);
  }

  get #density() {
    return this.#canvas.width / (this.#canvas.clientWidth || this.#canvas.width);
  }

  #paintGrid(width, height) {
    const context = this.#context;
    const step = Math.max(width, height) / GRID_STEPS;
    context.fillStyle = GRID;
    const line = Math.max(1, Math.round(this.#density));
    for (let x = step; x < width - 1; x += step) context.fillRect(Math.round(x), 0, line, height);
    for (let y = step; y < height - 1; y += step) context.fillRect(0, Math.round(y), width, line);
  }

  #paintTrail(scale) {
    const context = this.#context;
    const now = this.latest.captured_ns;
    let dots = 0;
    let outlined = now;
    context.lineWidth = this.#density;
    for (const { captured_ns: then, predictions } of this.#frames.slice(0, -1).reverse()) {
      dots += predictions.length;
      if (dots > TRAIL_DOTS) break;
      const rest = 1 - (now - then) / TRAIL_NS;
      const radius = (0.9 + 1.6 * rest) * this.#density;
      context.globalAlpha = 0.8 * rest;
      for (const { x, y, class_id } of predictions) {
        context.fillStyle = colorOf(class_id);
        context.beginPath();
        context.arc(x * scale, y * scale, radius, 0, 7);
        context.fill();
      }
      if (outlined - then < OUTLINE_NS || predictions.length > OUTLINED) continue;
      outlined = then;
      context.globalAlpha = 0.3 * rest;
      for (const { x, y, width, height, class_id } of predictions) {
        context.strokeStyle = colorOf(class_id);
        context.strokeRect((x - width / 2) * scale, (y - height / 2) * scale, width * scale, height * scale);
      }
    }
    context.globalAlpha = 1;
  }

  #paintBoxes(scale) {
    const context = this.#context;
    const density = this.#density;
    const predictions = this.latest.predictions;
    const tint = 0.1 * Math.min(1, 20 / predictions.length); // many boxes must not add up to a wall
    context.lineWidth = 1.75 * density;
    for (const { x, y, width, height, class_id } of predictions) {
      context.strokeStyle = context.fillStyle = colorOf(class_id);
      const box = [(x - width / 2) * scale, (y - height / 2) * scale, width * scale, height * scale];
      context.globalAlpha = tint;
      context.fillRect(...box);
      context.globalAlpha = 1;
      context.strokeRect(...box);
    }
    // Labels after all boxes, the most certain last, so that it lies on top.
    const certain = predictions.toSorted((a, b) => a.confidence - b.confidence).slice(-LABELS);
    context.font = `600 ${11.5 * density}px system-ui, sans-serif`;
    context.textBaseline = "middle";
    for (const prediction of certain) this.#paintLabel(prediction, scale, density);
  }

  #paintLabel({ x, y, width, height, confidence, class: name, class_id }, scale, density) {
    const context = this.#context;
    const text = `${name.slice(0, 32)} ${Math.round(confidence * 100)} %`;
    const key = `${density} ${text}`;
    if (!this.#labels.has(key)) {
      if (this.#labels.size > 4096) this.#labels.clear();
      this.#labels.set(key, context.measureText(text).width);
    }
    const padding = 4 * density;
    const labelWidth = this.#labels.get(key) + 2 * padding;
    const labelHeight = 17 * density;
    // Inside the box where there is no room above it, and never beyond the frame's sides.
    const rightmost = this.latest.image.width * scale - labelWidth;
    const left = Math.max(0, Math.min((x - width / 2) * scale - context.lineWidth / 2, rightmost));
    const top = Math.max(0, (y - height / 2) * scale);
    const above = top >= labelHeight ? top - labelHeight : top;
    context.fillStyle = colorOf(class_id);
    context.fillRect(left, above, labelWidth, labelHeight);
    context.fillStyle = INK;
    context.fillText(text, left + padding, above + labelHeight / 2 + 0.5 * density);
  }
}

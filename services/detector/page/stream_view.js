// The open stream: its boxes and everything that the detector tells of it.

import { BoxPainter } from "./boxes.js";
import { follow, make, write } from "./dom.js";
import { bitRate, duration, instant, measure, milliseconds, NONE, number, plural } from "./format.js";
import { colorOf } from "./palette.js";
import { drawSparkline } from "./sparkline.js";
import { drawStages } from "./stages.js";
import { isStreaming, stateOf } from "./stream_state.js";

const WIDEST = 4; // of the stage; a frame of another shape is centered on it
const NARROWEST = 0.5;
const UNKNOWN = { model: NONE, codec: NONE, canvas: NONE }; // of a camera that has not said hello
const ALIKE = 0.05; // sizes that differ by less are told as the same

export class StreamView {
  #root;
  #painter;
  #due = false;
  #subscription = null;
  #frame = null; // [height, width], as the detector tells, also where no box has come yet
  #classes = new Map(); // of the latest frame: name → { count, class_id }

  constructor(root) {
    this.#root = root;
    this.#painter = new BoxPainter(this.#find("canvas"), () => this.redraw());
  }

  #find(selector) {
    return this.#root.querySelector(selector);
  }

  /** Show another stream's boxes; null for none. */
  attach(subscription) {
    this.#subscription?.close();
    this.#subscription = subscription;
    this.#painter.clear();
    this.#listClasses([]);
    this.redraw();
  }

  /** Paint with the next frame of the display, however often this is called before. */
  redraw() {
    if (this.#due) return;
    this.#due = true;
    requestAnimationFrame(() => {
      this.#due = false;
      const frames = this.#subscription?.take() ?? [];
      this.#painter.add(frames);
      this.#fit();
      this.#painter.paint();
      if (frames.length) this.#listClasses(frames.at(-1).predictions);
    });
  }

  #fit() {
    const [h, w] = this.#frame ?? [];
    const { width, height } = this.#painter.latest?.image ?? { width: w, height: h };
    if (!(width > 0 && height > 0)) return;
    const ratio = String(Math.min(WIDEST, Math.max(NARROWEST, width / height)));
    const stage = this.#find(".stage");
    if (stage.style.getPropertyValue("--ratio") !== ratio) stage.style.setProperty("--ratio", ratio);
  }

  /** The boxes of a frame by class: the legend of the colors, and what a screen reader hears of the canvas. */
  #listClasses(predictions) {
    this.#classes = new Map();
    for (const { class: name, class_id } of predictions) {
      const known = this.#classes.get(name) ?? { count: 0, class_id };
      known.count += 1;
      this.#classes.set(name, known);
    }
    const sorted = [...this.#classes].sort(([, a], [, b]) => a.class_id - b.class_id);
    follow(this.#find(".classes"), sorted, newClass, (item, { count, class_id }) => {
      item.firstElementChild.style.backgroundColor = colorOf(class_id);
      write(item.lastElementChild, number(count));
    });
  }

  /** Take a preview's picture, or null where there is none. */
  showPicture(picture) {
    this.#painter.show(picture);
    this.redraw();
  }

  /** Tell what the detector answered for this stream, at `now` by its clock, in Unix seconds. */
  update(stream, now) {
    const { state, words } = stateOf(stream, now);
    this.#root.dataset.state = state;
    this.#root.dataset.known = stream.model !== null; // a camera that waits may never have said what it sends
    write(this.#find("h2"), stream.name);
    this.#find(".state .dot").dataset.state = state;
    const reason = stream.reason || stream.waiting?.reason;
    write(this.#find(".state .words"), reason ? `${words}: ${reason}` : words);
    this.#frame = stream.frame;
    this.#tellScene(stream, state);
    this.#tellRates(stream, state);
    this.#tellStages(stream);
    this.#tellSizes(stream);
    this.#tellCounts(".drops .counts", stream.camera?.dropped, "none");
    this.#tellLosses(now);
    this.#tellCounts(".keyframes .counts", stream.camera?.keyframes, NONE);
    this.#tellCamera(stream, now);
  }

  #tellScene(stream, state) {
    // Once a second is often enough for a text alternative.
    const inventory = [...this.#classes].map(([name, { count }]) => `${count} ${name}`).slice(0, 12);
    const told = this.#painter.latest ? inventory.join(", ") || "nothing detected" : "no detections yet";
    this.#find("canvas").setAttribute("aria-label", `Boxes of the latest frame: ${told}`);

    this.#find(".preview-mark").hidden = !stream.previews;
    this.#find(".no-pixels-mark").hidden = stream.previews || !isStreaming(stream);
    write(
      this.#find(".promise"),
      stream.previews
        ? "The small picture is this camera's preview; detection works on features alone."
        : "Boxes only: the camera sends features, and not one pixel reaches this detector.",
    );
    const notice = this.#find(".notice");
    const text = this.#notice(state);
    notice.hidden = !text;
    write(notice, text);
  }

  #notice(state) {
    const last = this.#painter.latest ? "these are its last boxes" : "its boxes are gone";
    if (state === "lost") return `Stream lost: ${last}.`;
    if (state === "ended") return `Stream ended: ${last}.`;
    if (state === "waiting") return "The camera is there, but its source gives no picture. It goes on trying.";
    if (state === "stalled") return "The camera is silent. It counts as lost if it stays so.";
    if (state === "frozen") return "The picture stands still, so these boxes may be old. Is the camera stuck?";
    if (this.#subscription?.refused) return "The detector has as many viewers as it allows. Trying again.";
    if (this.#subscription?.blocked) return "Boxes do not get through: the WebSocket is refused. Behind a proxy the detector needs --allow-origin.";
    if (state === "silent" && this.#painter.latest) return "No new frames: these are the last boxes.";
    return "";
  }

  #tellRates(stream, state) {
    const { camera, history } = stream;
    const live = state === "live" || state === "frozen"; // frames come
    this.#tile("frames_per_second", history, {
      value: number(live ? stream.frames_per_second : null, 1),
      note: `${plural(stream.frames, "frame")} so far`,
      format: (value) => number(value, 1),
      losses: history.dropped.map((count, i) => count / (count + history.frames_per_second[i] * history.interval_s)),
    });
    const dropped = history.dropped.reduce((sum, count) => sum + count, 0);
    const told = this.#find(".tile .dropped");
    told.hidden = !dropped;
    write(told, `${number(dropped)} dropped in ${duration(history.dropped.length * history.interval_s)}`);
    const [rate, unit] = bitRate(live ? stream.kbit_per_second : null);
    this.#tile("kbit_per_second", history, {
      value: rate,
      unit,
      note: `${measure(recentKilobytes(stream))} kB a frame`,
      format: (value) => bitRate(value).join(" "),
    });
    this.#tile("latency_ms", history, {
      value: milliseconds(live ? (lastKnown(history.latency_ms) ?? camera?.latency?.mean_ms) : null),
      note: camera?.latency
        ? `mean ${milliseconds(camera.latency.mean_ms)}, p95 ${milliseconds(camera.latency.p95_ms)} ms`
        : NONE,
      format: (value) => `${milliseconds(value)} ms`,
    });
    this.#tile("detections", history, {
      value: number(live ? lastKnown(history.detections) : null, 1),
      note: `${plural(stream.detections, "detection")} so far`,
      format: (value) => number(value, 1),
    });
  }

  #tile(series, history, { value, unit, note, format, losses }) {
    const tile = this.#find(`.tile[data-series="${series}"]`);
    write(tile.querySelector("b"), value);
    if (unit) write(tile.querySelector(".value span"), unit);
    write(tile.querySelector(".note"), note);
    const label = tile.querySelector("h3").textContent;
    const svg = tile.querySelector("svg");
    const peak = drawSparkline(svg, history.unix_s, history[series], { label, format, losses });
    write(tile.querySelector(".peak"), peak === null ? "" : `peak ${format(peak)}`);
  }

  #tellStages(stream) {
    const reported = Object.entries(stream.camera?.stages ?? {}).map(([name, { mean_ms }]) => [name, mean_ms]);
    const stages = new Map(reported.length ? reported : Object.entries(stream.stages_ms));
    drawStages(this.#find(".latency .bar"), this.#find(".latency .places"), stages);
    write(
      this.#find(".latency .aside"),
      reported.length
        ? "Mean milliseconds a frame, of the last 1,024, from capture to the answer."
        : "The detector's own part, in mean milliseconds a frame; the camera has not reported yet.",
    );
  }

  #tellSizes(stream) {
    const features = recentKilobytes(stream);
    const jpeg = stream.camera?.jpeg_bytes;
    const sizes = [["features", { label: "features, as sent", kilobytes: features }]];
    if (!stream.previews && isStreaming(stream)) sizes.push(["pixels", { label: "pixels", kilobytes: 0 }]);
    if (Number.isFinite(jpeg)) sizes.push(["jpeg", { label: "JPEG of the same frames", kilobytes: jpeg / 1e3 }]);
    sizes.push(["raw", { label: "tensors, uncompressed", kilobytes: stream.raw_kb_per_frame }]);
    follow(this.#find(".sizes"), sizes, newSize, (item, { label, kilobytes }) => {
      const [name, value, bar] = item.children;
      write(name, label);
      write(value, kilobytes === 0 ? "0 kB" : `${measure(kilobytes)} kB`);
      bar.style.setProperty("--share", Math.min(1, kilobytes / stream.raw_kb_per_frame || 0));
    });
    const compression = measure(stream.raw_kb_per_frame / features);
    write(this.#find(".ratio"), `${compression}×`);
    const against = [`${compression} times smaller than the raw tensors`];
    if (jpeg > 0 && features > 0) {
      const ratio = jpeg / 1e3 / features;
      if (Math.abs(ratio - 1) < ALIKE) against.push("as large as JPEG (quality 90)");
      else if (ratio > 1) against.push(`${measure(ratio)} times smaller than JPEG (quality 90)`);
      else against.push(`${measure(1 / ratio)} times larger than JPEG (quality 90)`);
    }
    write(this.#find(".size .aside"), features > 0 ? `${against.join(", ")}.` : NONE);
  }

  #tellCounts(selector, counts, otherwise) {
    const known = Object.entries(counts ?? {}).filter(([, count]) => count > 0);
    const entries = known.length ? known.sort(([, a], [, b]) => b - a) : [[counts ? otherwise : NONE, null]];
    follow(this.#find(selector), entries, newCount, (item, count) => {
      write(item.lastElementChild, count === null ? "" : number(count));
    });
  }

  /** The latest gap, and what this browser missed. */
  #tellLosses(now) {
    const { gap, dropped } = this.#subscription;
    const latest = this.#find(".latest-gap");
    latest.hidden = !gap;
    const local = gap?.reasons?.local ? `, ${number(gap.reasons.local)} of them detected on the camera` : "";
    if (gap) write(latest, `Latest: ${plural(gap.frames, "frame")} from ${number(gap.first)} on, ${duration(now - gap.at)} ago${local}.`);
    const missed = this.#find(".missed");
    missed.hidden = !dropped;
    write(missed, `${plural(dropped, "message")} lost on the way here: this browser was too slow.`);
  }

  #tellCamera(stream, now) {
    const { camera, canvas, frame, waiting } = stream;
    const streams = isStreaming(stream);
    const reconnects = camera?.reconnects ?? {};
    const facts = {
      source: waiting?.source ?? camera?.source ?? NONE,
      state: waiting?.source_state ?? (camera && streams ? [camera.source_state, times(reconnects.source, "reopened")].join("") : NONE),
      link: `${stream.state} since ${instant(stream.state_since, now)}${times(stream.connections - 1, "reconnected")}`,
      ...(stream.model === null ? UNKNOWN : {
        model: `${stream.model}, split at ${stream.split}`,
        codec: codecWords(stream.codec) + (streams ? coarserWords(camera?.rate) : ""),
        canvas: frame ? `${size(canvas)}, from ${size(frame)}` : size(canvas),
      }),
    };
    for (const [fact, text] of Object.entries(facts)) write(this.#find(`[data-fact="${fact}"]`), text);
  }
}

function size([height, width]) {
  return `${width} × ${height}`;
}

/** A codec's parameters so that lines break between them, a hash by its start. */
function codecWords(codec) {
  return codec.replaceAll(",", ", ").replace(/(profile=[0-9a-f]{8})[0-9a-f]{56}/, "$1…");
}

/** What rate control makes of the codec's quality just now; nothing where it leaves it alone. */
function coarserWords(rate) {
  if (!rate?.reason || rate.reason === "quality" || rate.step === null) return "";
  return `; now coarser: step ${number(rate.step)} for the ${rate.reason}`;
}

function newClass(name) {
  return make("li", "", make("i", "swatch"), make("span", "name", name), " ", make("b"));
}

function newSize(key) {
  const item = make("li", "", make("span", "name"), make("b"), make("i", "share"));
  item.dataset.size = key;
  return item;
}

/** A count by "stage/reason" or "reason". */
function newCount(name) {
  return make("li", "", make("span", "name", name.replace("/", ": ").replaceAll("_", " ")), " ", make("b"));
}

/** Kilobytes a frame now, as the rates tell; else since the stream began. */
function recentKilobytes(stream) {
  if (stream.frames_per_second > 0) return stream.kbit_per_second / 8 / stream.frames_per_second;
  return stream.kb_per_frame;
}

function lastKnown(values) {
  return values.findLast(Number.isFinite) ?? null;
}

function times(count, verb) {
  return count > 0 ? `, ${verb} ${count === 1 ? "once" : `${number(count)} times`}` : "";
}

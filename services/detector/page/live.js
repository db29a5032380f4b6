// The page: follows the detector that served it, lists its streams and opens the one that the URL's hash names.

import { ADDRESS, fetchPreview, fetchStream, fetchStreams, IS_LOCAL } from "./detector.js";
import { follow, make, write } from "./dom.js";
import { NONE } from "./format.js";
import { stateOf } from "./stream_state.js";
import { StreamView } from "./stream_view.js";
import { Subscription } from "./subscription.js";

const POLL_MS = 1000;
const ANSWER_MS = 5000; // a detector that is slower counts as away
const LONGEST_WAIT_MS = 10000;
const COPIED_MS = 2000;

const find = (selector) => document.querySelector(selector);
const ASKS_FOR_TOKENS = find(".visitor") !== null; // who sees this page has logged in
const view = new StreamView(find("article.stream"));
let subscription = null;
let opened = null; // name of the open stream
let chosen = null; // name that the page itself put into the hash
let turn = new AbortController(); // aborted to have the next poll now

/** Name in the URL's hash; empty for none. */
function named() {
  const hash = window.location.hash.slice(1);
  try {
    return decodeURIComponent(hash);
  } catch {
    return hash; // not percent-encoded: then it is a name as it stands, and unknown
  }
}

/** Name of the stream to open: the hash's, else the first connected one, which then gets the hash. */
function choose(streams) {
  const name = named();
  // A name that nobody asked for makes way once it is gone, as after a restart of the detector.
  if (name && (name !== chosen || streams.some((stream) => stream.name === name))) return name;
  const first = streams.find((stream) => stream.state === "connected" && !stream.late);
  if (!first) return name || (streams[0]?.name ?? "");
  chosen = first.name;
  window.history.replaceState(null, "", `#${encodeURIComponent(chosen)}`);
  return chosen;
}

// --- what is shown ---

function tellStatus(state, words) {
  find(".status").dataset.state = find(".status .dot").dataset.state = state;
  write(find(".status .words"), words);
}

function listStreams(streams, now) {
  find("nav.streams").hidden = !streams.length;
  follow(
    find("nav.streams ul"),
    streams.map((stream) => [stream.name, stream]),
    (name) => {
      const link = make("a", "", make("i", "dot"), make("span", "name", name), make("span", "words"));
      link.href = `#${encodeURIComponent(name)}`;
      return make("li", "", link);
    },
    (item, stream) => {
      const { state, words } = stateOf(stream, now);
      const [link] = item.children;
      const [dot, , told] = link.children;
      dot.dataset.state = state;
      write(told, words);
      if (stream.name === opened) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    },
  );
}

/** Show the part of the page for a stream, an unknown name, or no stream at all. */
function showPart(part) {
  find("section.empty").hidden = part !== "empty";
  find("section.unknown").hidden = part !== "unknown";
  find("article.stream").hidden = part !== "stream";
}

function open(name) {
  if (name === opened) return;
  opened = name;
  subscription = name === null ? null : new Subscription(name, () => view.redraw());
  view.attach(subscription);
  document.title = name === null ? "Splitcast" : `${name} – Splitcast`;
}

function tell({ model, streams, now, name, stream, picture }) {
  open(stream ? name : null);
  tellStatus("live", "following the detector");
  // The open stream's own answer is the newer one, and the page must not contradict itself.
  listStreams(streams.map((each) => (each.name === stream?.name ? stream : each)), now);
  if (!stream) {
    tellCommands(model);
    write(find("#_unknown"), `No stream named ${name}`);
    showPart(name ? "unknown" : "empty");
    if (!streams.length) find("section.empty").hidden = false; // a name of yesterday must not hide what to do
    return;
  }
  subscription.keep(stream.frames);
  showPart("stream");
  view.showPicture(picture);
  view.update(stream, now);
}

function tellAway() {
  tellStatus("lost", "the detector does not answer, trying again");
  find("article.stream").dataset.state = "lost";
  // What was true of the streams need not be so any more.
  for (const dot of document.querySelectorAll(".layout .dot")) dot.dataset.state = "unknown";
  for (const words of document.querySelectorAll(".layout .words")) write(words, "unknown while the detector is away");
  for (const told of document.querySelectorAll(".tile b, [data-fact=state], [data-fact=link]")) write(told, NONE);
}

// --- following the detector ---

/** All that the page tells once. Rejects where the detector does not answer. */
async function ask(signal) {
  // A deadline each: on a thin link all of it together may take longer.
  const within = () => AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MS)]);
  const { model, streams, now } = await fetchStreams(within());
  const name = choose(streams);
  const listed = streams.some((stream) => stream.name === name);
  const stream = listed ? await fetchStream(name, within()) : null;
  const picture = stream?.preview ? await fetchPreview(name, within()).catch(() => null) : null;
  return { model, streams, now, name, stream, picture };
}

function sleep(ms, signal) {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}

function visible() {
  if (!document.hidden) return undefined;
  return new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
}

async function followDetector() {
  let wait = POLL_MS;
  for (;;) {
    await visible();
    turn = new AbortController();
    const { signal } = turn;
    const answer = await ask(signal).catch(() => null);
    if (signal.aborted) continue;
    if (answer) {
      wait = POLL_MS;
      try {
        tell(answer);
      } catch (error) {
        reportError(error); // what cannot be told of one answer must not end the following
      }
    } else {
      tellAway();
      wait = Math.min(2 * wait, LONGEST_WAIT_MS);
    }
    await sleep(wait, signal);
  }
}

window.addEventListener("hashchange", () => turn.abort());
document.addEventListener("visibilitychange", () => {
  // A page that nobody sees asks for nothing; `followDetector` waits until it is seen again.
  if (document.hidden) subscription?.close();
  turn.abort();
});

// --- how to connect a camera ---

/** The commands that connect a camera with the detector's network; `model` is null where that is a file. */
function tellCommands(model) {
  for (const code of document.querySelectorAll(".command code")) {
    const { source } = code.dataset;
    const words = ["splitcast camera --model", model ?? "WEIGHTS", "--source", source, "--detector", ADDRESS];
    write(code, [...words, ...(ASKS_FOR_TOKENS ? ["--token-file TOKEN"] : [])].join(" "));
  }
  find(".aside.weights").hidden = model !== null;
  find(".aside.token").hidden = !ASKS_FOR_TOKENS;
}

/** Copy an element's text, also on a page without https, where there is no clipboard. */
async function copy(element) {
  try {
    await navigator.clipboard.writeText(element.textContent);
  } catch {
    window.getSelection().selectAllChildren(element);
    document.execCommand("copy");
  }
}

for (const command of document.querySelectorAll(".command")) {
  const [code, button] = command.children;
  button.addEventListener("click", async () => {
    await copy(code);
    write(button, "Copied");
    setTimeout(() => write(button, "Copy"), COPIED_MS);
  });
}
find(".aside.local").hidden = !IS_LOCAL;

followDetector();

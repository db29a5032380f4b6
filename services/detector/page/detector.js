// What the detector that served this page answers. Addresses are relative: a proxy may put a path before them.

const BASE = new URL(".", window.location.href);
const DETECTIONS_PROTOCOL = "splitcast.detections.v1";

function webSocketUrl(path) {
  const url = new URL(path, BASE);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return url.href;
}

const pathOf = (name) => `v1/streams/${encodeURIComponent(name)}`;

async function get(path, signal) {
  const response = await fetch(new URL(path, BASE), { signal, cache: "no-store" });
  if (response.status === 401) logIn();
  return response;
}

/** To the form: the visit is over, as its time is, or its token. The form leads back to the same stream. */
function logIn() {
  window.location.replace(new URL(`login${window.location.hash}`, BASE));
}

/** Address that a camera is given to reach this detector. */
export const ADDRESS = webSocketUrl("").replace(/\/+$/, "");
export const IS_LOCAL = ["localhost", "127.0.0.1", "[::1]"].includes(BASE.hostname);

/** The network's name, all streams, and `now` on the detector's clock in Unix seconds. Rejects where the detector does not answer, as all of these do. */
export async function fetchStreams(signal) {
  const response = await get("v1/streams", signal);
  if (!response.ok) throw new Error(`v1/streams: ${response.status}`);
  const now = Date.parse(response.headers.get("Date") ?? "") || Date.now();
  return { ...(await response.json()), now: now / 1000 };
}

/** One stream with its history; null if it has been forgotten since it was listed. */
export async function fetchStream(name, signal) {
  const response = await get(pathOf(name), signal);
  return response.ok ? response.json() : null;
}

/** The latest preview; null if it is gone, or is no picture. */
export async function fetchPreview(name, signal) {
  const response = await get(`${pathOf(name)}/preview.jpg`, signal);
  if (!response.ok) return null;
  return createImageBitmap(await response.blob()).catch(() => null);
}

/** A socket for the detections and gaps of a stream; its states come with `fetchStreams`. */
export function openDetections(name) {
  return new WebSocket(webSocketUrl(`${pathOf(name)}/detections?types=detections,gap`), DETECTIONS_PROTOCOL);
}

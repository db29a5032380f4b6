"""Where a detector's messages to consumers are."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit

from services.errors import BadAddress
from stream.redact import redact_url

_WHOLE_PATH = re.compile(r"/v1/(streams/[^/]+/)?detections$")


def detections_url(address: str, stream: str | None = None, types: str | None = None) -> str:
    """The WebSocket address of all streams' messages, or of one's, on the detector at `address`.

    `types` lists the types of messages wanted, with commas; None: all.

    What the address asks for after a question mark, as `since=0` of a camera, is asked for too.

    `address` is host:port or an http(s):// or ws(s):// URL, whose path is that of a reverse proxy, to which the
    detector's own is appended, as a camera does; one that ends with a path of the detector's is kept as it is.
    Raises BadAddress.
    """
    schemes = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
    try:
        parts = urlsplit(address if "://" in address else f"ws://{address}")
        good = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of a port that is no number, or a bracket that is not closed
        good = False
    if not good:
        raise BadAddress(f"{redact_url(address)!r} is not an address; write host:port or ws://host:port")
    path = parts.path.rstrip("/")
    if not _WHOLE_PATH.search(path):
        path += f"/v1/streams/{stream}/detections" if stream else "/v1/detections"
    elif stream:
        raise BadAddress("give --stream or a path that names what to watch, not both")
    query = "&".join(part for part in (parts.query, f"types={types}" if types else "") if part)
    return urlunsplit((schemes[parts.scheme], parts.netloc, path, query, ""))

"""Where a camera's session is at a detector, also behind what stands before detectors."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from stream.late_name import camera_name

STREAM_PARAMETER = "stream"
"""The parameter that names a stream: what balances connections over detectors can read it, and no hello."""


def features_url(detector: str, stream: str) -> str:
    """The address of `stream`'s session at `detector`, a ws:// or wss:// URL.

    Its path and query are those of a proxy, and are kept: the detector's own come behind them. A stream's name needs no
    escapes. What comes late goes by its camera's name.
    """
    parts = urlsplit(detector)
    kept = [each for each in parts.query.split("&") if each and each.partition("=")[0] != STREAM_PARAMETER]
    path = f"{parts.path.rstrip('/')}/v1/features"
    query = "&".join([*kept, f"{STREAM_PARAMETER}={camera_name(stream)}"])
    return urlunsplit((parts.scheme, parts.netloc, path, query, ""))

"""Names of streams that come late: what a camera recorded during an outage is sent beside what it sees now."""

from __future__ import annotations

SUFFIX = ".late"
"""Ends the name of a late stream, and of no other."""
MAX_CHARACTERS = 64 - len(SUFFIX)  # of a stream that may have a late one


def late_name(stream: str) -> str:
    """The stream under which late packets of `stream` go."""
    return stream + SUFFIX


def is_late(stream: str) -> bool:
    """Whether a stream of that name comes late."""
    return stream.endswith(SUFFIX)


def camera_name(stream: str) -> str:
    """The stream whose camera made the packets: that of the name itself, where it does not come late."""
    return stream.removesuffix(SUFFIX)

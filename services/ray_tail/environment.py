"""What Ray reads from the environment as it loads, in this process and in all that it starts."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

# Sockets in Ray's folder have paths of some 80 bytes more, of the 107 that the system allows.
MAX_FOLDER = 40
_ALWAYS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # 15 otherwise: replicas would get what everything else leaves
    "RAY_enable_metrics_collection": "0",  # ports that nobody scrapes
}
_OWN = {
    # Ray's name for "a Ray of one machine", which it keeps to on other systems: all but the replicas' port on loopback.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
}


def prepare_ray(*, own: bool) -> None:
    """Set the environment, before Ray is imported. The user's own variables win.

    own: it is a Ray of this process's own. All that it listens on asks for a token then, which is in the environment of
    its processes alone: Ray would write it to the user's home folder otherwise, for everybody to read.
    """
    for name, value in (_ALWAYS | _OWN if own else _ALWAYS).items():
        os.environ.setdefault(name, value)
    if own and "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def make_folder() -> Path:
    """A new folder for Ray's sockets and logs, for this user alone."""
    parent = tempfile.gettempdir()
    if len(parent) > MAX_FOLDER - len("/splitcast-ray-12345678"):
        parent = "/tmp"  # noqa: S108 - a name of its own in it, made safely
    return Path(tempfile.mkdtemp(prefix="splitcast-ray-", dir=parent))

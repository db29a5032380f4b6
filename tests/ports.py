"""Ports of this machine for what must know its port before it binds it."""

from __future__ import annotations

import itertools
import os
import socket

# Below the range from which the system picks ports by itself, so that no other test is given the same one in
# between; each process begins elsewhere, so that tests side by side do not meet.
FIRST, COUNT = 20_000, 12_000
_candidates = itertools.count(os.getpid() * 97)


def free_port() -> int:
    """A port on which nothing listens."""
    while True:
        port = FIRST + next(_candidates) % COUNT
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port

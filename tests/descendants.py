"""The processes that a program has started, whatever has become of their parents since."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MARK = "SPLITCAST_TEST_MARK"


@dataclass(frozen=True)
class Descendants:
    """All that a program has started, by a variable that they inherit."""

    mark: str

    def find(self, words: str = "") -> dict[int, str]:
        """Command lines with these words, by process."""
        found = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with suppress(OSError):
                    if f"{MARK}={self.mark}".encode() in (folder / "environ").read_bytes():
                        line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                        found[int(folder.name)] = line
        return {pid: line for pid, line in found.items() if words in line}

    def replicas(self) -> set[int]:
        """Of Ray Serve."""
        return set(self.find("ray::ServeReplica"))

    def listening(self) -> list[tuple[int, str, int]]:
        """Process, address as the kernel writes it, and port of every socket that takes connections."""
        sockets = {}
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                _, local, _, state, *rest = line.split()
                address, _, port = local.partition(":")
                if state == "0A":
                    sockets[f"socket:[{rest[5]}]"] = address, int(port, 16)
        listening = []
        for pid in self.find():
            with suppress(OSError):
                for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                    with suppress(OSError):
                        if found := sockets.get(str(descriptor.readlink())):
                            listening.append((pid, *found))
        return listening

    def end(self) -> None:
        """Kill all that is left."""
        while pids := self.find():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

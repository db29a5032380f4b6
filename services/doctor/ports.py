"""The port that a service is to listen on: free, or whose it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from services.doctor.finding import Finding, doubtful, fine, wrong
from services.errors import CannotListen
from services.listening import check_address

_LISTENS = "0A"  # of a line of /proc/net/tcp: include/net/tcp_states.h


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that listens on a port."""

    pid: int
    command: tuple[str, ...]  # with its arguments

    def runs(self, service: Literal["camera", "detector"]) -> bool:
        """Whether it is a service of ours of that kind."""
        programs = self.command[:3]  # after a python and its -m there may be a module
        is_ours = any(Path(word).name == "splitcast" or word.endswith(".cli") for word in programs)
        return is_ours and service in self.command

    def __str__(self) -> str:
        return f"{Path(self.command[0]).name if self.command else 'a process'} (pid {self.pid})"


def look_at_port(host: str, port: int, service: Literal["camera", "detector"], flags: str = "--") -> Finding:
    """Whether the service can listen there; `flags` begins the names of its two flags. Touches /proc: for a thread."""
    try:
        check_address(host, port, flags)
    except CannotListen as error:
        holder = find_holder(port) if str(error).startswith(f"{flags}port") else None
        facts = {"host": host, "port": port, "pid": holder.pid if holder else None}
        if holder and holder.runs(service):
            return doubtful(
                f"{host}:{port} is in use by a {service} of Splitcast (pid {holder.pid})",
                f"nothing, if that is the one you mean; a second one needs another {flags}port",
                **facts,
            )
        measured = str(error).partition(": ")[2]
        if str(error).startswith(f"{flags}host"):
            return wrong(measured, f"give {flags}host an address of this machine, or 0.0.0.0", **facts)
        who = f", which {holder} uses" if holder else ""
        return wrong(f"{measured}{who}", f"stop what uses it, or take another {flags}port", **facts)
    return fine(f"{host}:{port} is free" if port else "any free port is taken", host=host, port=port)


def find_holder(port: int, proc: Path = Path("/proc")) -> Holder | None:
    """Who listens on a port, as far as this user may see; None where that is not known."""
    sockets = {f"socket:[{inode}]" for inode in _listening(port, proc)}
    if not sockets:
        return None
    for process in proc.iterdir():
        if not process.name.isdecimal():
            continue
        with suppress(OSError):  # another user's, or over by now
            if any(os.readlink(file) in sockets for file in (process / "fd").iterdir()):  # noqa: PTH115 - socket:[...]
                words = (process / "cmdline").read_bytes().split(b"\0")
                command = tuple(word.decode(errors="replace") for word in words if word)
                return Holder(int(process.name), command)
    return None


def _listening(port: int, proc: Path) -> Iterator[str]:
    """Inodes of the sockets that listen on the port: proc(5), /proc/net/tcp."""
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (proc / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                if (
                    len(fields) > 9
                    and fields[3] == _LISTENS
                    and int(fields[1].rpartition(":")[2], 16) == port
                ):
                    yield fields[9]

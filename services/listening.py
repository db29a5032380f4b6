"""The address that a service listens on: free, said by name where it is not, and with files enough for its peers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

import structlog

from services.errors import CannotListen, SettingsError

try:
    import resource
except ImportError:  # not on Windows, which has no such limit
    resource = None  # type: ignore[assignment]

log = structlog.get_logger(__name__)

OWN_FILES = 16  # that a service opens beside its connections: weights, profiles, resolvers, event loops
LEAST_CONNECTIONS = 4


@contextmanager
def naming_address(host: str, port: int, flags: str = "--") -> Iterator[None]:
    """Says which address cannot be listened on. `flags` begins the names of its two flags, host and port.

    Raises CannotListen in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        wrong_host = isinstance(error, socket.gaierror) or error.strerror == "Cannot assign requested address"
        raise CannotListen(
            f"{flags}{'host' if wrong_host else 'port'}: cannot listen on {host}:{port}: {error.strerror}"
        ) from None


def is_loopback(host: str) -> bool:
    """Whether only this machine can be reached by that address. Of names that is known of localhost alone."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def check_address(host: str, port: int, flags: str = "--") -> None:
    """Raises CannotListen where the address is taken, or none of this machine's. Port 0 is always free."""
    with naming_address(host, port, flags):
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)


def permitted_connections(wanted: int) -> int:
    """How many of `wanted` connections the process may hold open at a time; raises its own limit as far as it may.

    Raises SettingsError where hardly any is left.
    """
    if resource is None:
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    reserved = _open_files() + OWN_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted + reserved:
        raised = wanted + reserved if hard == resource.RLIM_INFINITY else min(wanted + reserved, hard)
        with suppress(ValueError, OSError):  # some systems have a limit of their own beside
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
    if soft == resource.RLIM_INFINITY or soft >= wanted + reserved:
        return wanted
    connections = soft - reserved
    if connections < LEAST_CONNECTIONS:
        raise SettingsError(
            f"this process may open {soft} files, which leaves {max(connections, 0)} for connections: raise the limit "
            "(ulimit -n, LimitNOFILE of systemd)"
        )
    log.warning(
        "fewer connections than --max-streams and --max-subscribers allow: this process may open too few files; "
        "raise the limit (ulimit -n, LimitNOFILE of systemd) or lower these settings",
        connections=connections,
        wanted=wanted,
        files=soft,
    )
    return connections


def _open_files() -> int:
    try:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())
    except OSError:
        return OWN_FILES

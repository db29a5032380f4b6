"""The secret by which a detector knows a camera again, kept over restarts."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

import structlog

from services.regular_file import open_regular

log = structlog.get_logger(__name__)

_SECRET = re.compile(rb"[0-9a-f]{32}\n?")
_LONGEST = 64  # bytes that are read of a file: anything longer is none of ours


def state_folder() -> Path:
    """Where what a program keeps over restarts lies: XDG Base Directory Specification. Raises RuntimeError."""
    given = os.environ.get("XDG_STATE_HOME", "")
    return Path(given) if given.startswith("/") else Path.home() / ".local" / "state"


def kept_secret(stream: str, folder: Path | None = None) -> str | None:
    """What a camera of this stream on this machine keeps, whether it runs or not; None where there is nothing."""
    try:
        with open_regular((folder or state_folder() / "splitcast") / f"{stream}.session") as file:
            kept = file.read(_LONGEST)
    except (OSError, RuntimeError):
        return None
    return kept[:32].decode() if _SECRET.fullmatch(kept) else None


class SessionSecret:
    """32 random hexadecimal digits of one stream on this machine; `text` is never logged or shown.

    The camera that runs holds the file's lock. So a second camera of the same name here cannot have the same secret:
    it would take the stream from the first for ever, and the first from it. It takes a fresh one, as does a camera
    that cannot keep a file, which is told once.
    Touches files: for a worker thread.
    """

    def __init__(self, stream: str, folder: Path | None = None) -> None:
        self.text = secrets.token_hex(16)
        self._file: int | None = None
        try:
            path = (folder or state_folder() / "splitcast") / f"{stream}.session"
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._keep()
        except BlockingIOError:
            log.info("another camera of this stream runs here", stream=stream)
            self.close()
        except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
            log.warning(
                "no session is kept over a restart",
                reason=str(error),
                todo="set XDG_STATE_HOME to a folder that can be written, or a restart may have to wait",
            )
            self.close()

    def close(self) -> None:
        """Let go of the file, for the next camera of this name. May be called again."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                os.close(file)

    def _keep(self) -> None:
        """Take what the file holds, or let it hold this. Raises OSError."""
        assert self._file is not None
        os.fchmod(self._file, 0o600)
        kept = os.pread(self._file, _LONGEST, 0)
        if _SECRET.fullmatch(kept):
            self.text = kept[:32].decode()
            return
        # In place, for the lock is the file's own: what a crash leaves half written is no secret, and replaced.
        os.ftruncate(self._file, 0)
        data = f"{self.text}\n".encode()
        if os.pwrite(self._file, data, 0) != len(data):
            raise OSError("the disk is full")
        os.fsync(self._file)

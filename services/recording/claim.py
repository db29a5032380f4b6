"""One program alone records a stream to a folder: it sends, rotates out and deletes what it finds there."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path

from services.recording.folder import last_number

_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS})  # a file system that has none


class RecordingClaim:
    """The right to a stream's files in a folder, for as long as this program runs. Touches files: for a worker thread.

    It is the lock of a file `.STREAM.lock`, which a program that is killed leaves there, unlocked.
    """

    def __init__(self, folder: Path, stream: str) -> None:
        self.newest = 0  # number of a file that was there when the claim was taken first
        self._folder, self._stream = folder, stream
        self._path = folder / f".{stream}.lock"
        self._file: int | None = None

    def take(self) -> None:
        """Have the right, also where the folder was removed since. Raises OSError: EBUSY where another has it."""
        while not self._is_held():
            self._close()
            self._file = self._open()
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    self._close()
                    raise self._refusal(error) from None
            self.newest = max(self.newest, last_number(self._folder, self._stream))

    def release(self) -> None:
        """Leave the files to the next program. May be called again; raises nothing."""
        if self._is_held():
            with suppress(OSError):
                self._path.unlink()  # while it is locked: whoever opened it meanwhile sees that it is another one
        self._close()

    def _open(self) -> int:
        flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            return os.open(self._path, flags | os.O_RDWR | os.O_CREAT, 0o644)  # it is empty
        except PermissionError as denied:  # another user's program may have been killed
            try:
                return os.open(self._path, flags | os.O_RDONLY)
            except FileNotFoundError:
                raise denied from None

    def _is_held(self) -> bool:
        """Whether the file that is locked is still the one that others would lock."""
        if self._file is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._file), os.lstat(self._path))
        except OSError:
            return False

    def _refusal(self, error: OSError) -> OSError:
        if not isinstance(error, BlockingIOError):
            return error
        words = f"another program records {self._stream} there: give each a --stream or a --record of its own"
        return OSError(errno.EBUSY, words)

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

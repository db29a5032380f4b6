"""Files that are written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path beside `target` to write to, which takes its place at the end; after an exception nothing is left.

    What is there and no file, such as a pipe or /dev/null, is written to itself. An OSError of writing names `target`.
    """
    is_special = target.exists() and not target.is_file()
    whole = target.resolve()  # where a link leads
    partial = target if is_special else whole.with_name(f".{whole.name}.partial")
    try:
        if is_special:
            yield target
            return
        try:
            yield partial
            partial.replace(whole)
        finally:
            with suppress(OSError):  # of a folder that is not there, either
                partial.unlink()
    except OSError as error:
        if error.strerror is None or error.filename not in (None, str(partial)):
            raise  # of something else
        raise OSError(error.errno, f"cannot write {target}: {error.strerror}") from error


def write_whole(target: Path, content: str | bytes) -> None:
    """Let `target` hold `content`, texts as UTF-8. Raises OSError, and leaves what was there."""
    with replacing(target) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)

"""Adds tokens to the file that lists them and removes them, and leaves everything else in it as it is."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from services.access.token_file import TABLE, TokenEntry, parse_tokens, read_token_text
from services.errors import SettingsError
from stream.atomic_file import replacing

_HEADER = re.compile(rf"\s*\[\[\s*{TABLE}\s*\]\]")
_HEAD = """\
# Tokens of a Splitcast detector: `splitcast token create` and `revoke` write here, and people may, too.
# A detector reads this file anew on SIGHUP.
"""


def add_token(file: Path, entry: TokenEntry) -> None:
    """List a token at the end of the file, which is made where there is none, for its owner alone to read.

    Raises SettingsError, OSError.
    """
    with _locked(file):
        text = read_token_text(file) if file.exists() else _HEAD
        entries = parse_tokens(text, str(file))
        if any(entry.name == other.name for other in entries):
            raise SettingsError(
                f"there is a token {entry.name!r} in {file}; choose another name, or revoke that one"
            )
        changed = f"{text.rstrip()}\n\n{_text(entry)}"
        _write(file, changed, [*entries, entry])


def remove_token(file: Path, name: str) -> None:
    """Take the token of that name out of the file. Raises SettingsError, OSError."""
    with _locked(file):
        text = read_token_text(file)
        entries = parse_tokens(text, str(file))
        names = [entry.name for entry in entries]
        if name not in names:
            known = ", ".join(sorted(names)) or "none"
            raise SettingsError(f"there is no token {name!r} in {file}; there are: {known}")
        number = names.index(name)
        _write(file, _without(text, number), entries[:number] + entries[number + 1 :])


def _without(text: str, number: int) -> str:
    """The text without the lines of one entry; comments before the next belong to that."""
    lines = text.splitlines(keepends=True)
    starts = [index for index, line in enumerate(lines) if _HEADER.match(line)]
    start, end = (*starts, len(lines), len(lines))[number : number + 2]
    while end < len(lines) and lines[end - 1].lstrip().startswith("#"):
        end -= 1
    return "".join(lines[:start] + lines[end:])


def _text(entry: TokenEntry) -> str:
    """The entry as TOML: its texts are plain ASCII, which JSON writes alike."""
    values = entry.model_dump(exclude_defaults=True)
    return "".join([f"[[{TABLE}]]\n", *(f"{key} = {json.dumps(value)}\n" for key, value in values.items())])


def _write(file: Path, text: str, entries: list[TokenEntry]) -> None:
    """Replace the file, whose owner and mode stay. Raises SettingsError where it would not list just these."""
    try:
        listed = parse_tokens(text, str(file))
    except SettingsError:
        listed = []
    if listed != entries:
        raise SettingsError(
            f"{file} is written in a form that only you can change: list each token as its own [[{TABLE}]]"
        )
    before = file.stat() if file.exists() else None
    with replacing(file) as partial:
        with suppress(FileNotFoundError):  # of a process that was killed
            partial.unlink()
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w") as opened:  # noqa: PTH123 - a descriptor
            if before:
                with suppress(PermissionError):  # another's, in a folder of ours
                    os.fchown(descriptor, before.st_uid, before.st_gid)
                os.fchmod(descriptor, before.st_mode & 0o7777)
            opened.write(text)
            opened.flush()
            os.fsync(descriptor)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Lets one program at a time change what is in the file's folder. Raises SettingsError."""
    try:
        folder = os.open(file.absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise SettingsError(f"--tokens: there is no folder for {file}: {error.strerror}") from None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)

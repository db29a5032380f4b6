"""The TOML file that lists a detector's tokens: their names, their hashes, and what each grants."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from services.access.tokens import PREFIX, Grant, Quota, Role, Tokens
from services.errors import SettingsError
from services.regular_file import open_regular

MAX_FILE_BYTES = 2**20
MAX_TOKENS = 1024
TABLE = "token"

_TABLES = re.compile(rf"\[\[\s*{TABLE}\s*\]\]|\b{TABLE}\s*=\s*\[")  # of a text on one line
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"


def _no_token(name: str) -> str:
    if PREFIX in name:
        raise ValueError("this may be a token itself: a name is shown in logs")
    return name


TokenName = Annotated[str, StringConstraints(pattern=rf"^{_NAME}$"), AfterValidator(_no_token)]
StreamPattern = Annotated[str, StringConstraints(pattern=rf"^({_NAME}|{_NAME}\*|\*)$", max_length=64)]
_READERS: frozenset[Role] = frozenset({"camera", "consumer", "page"})  # who deals with streams


class TokenEntry(BaseModel):
    """One `[[token]]` of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: TokenName
    hash: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    roles: Annotated[tuple[Role, ...], Field(min_length=1)]
    streams: tuple[StreamPattern, ...] = ()
    frames_per_s: Annotated[float, Field(gt=0, le=1e4)] | None = None
    max_packet_kib: Annotated[int, Field(ge=1, le=2**20)] | None = None
    max_side: Annotated[int, Field(ge=32, le=65535)] | None = None
    preview: bool | None = None
    profiles: bool | None = None

    @model_validator(mode="after")
    def _check_roles(self) -> Self:
        if not self.streams and _READERS & set(self.roles):
            raise ValueError('streams: name those that it grants, as ["door", "yard-*"], or all as ["*"]')
        limits = ("frames_per_s", "max_packet_kib", "max_side", "preview", "profiles")
        given = [name for name in limits if getattr(self, name) is not None]
        if given and "camera" not in self.roles:
            raise ValueError(f"{given[0]}: is for the role camera alone")
        return self

    @property
    def grant(self) -> Grant:
        quota = Quota(
            self.frames_per_s,
            self.max_packet_kib * 1024 if self.max_packet_kib else None,
            self.max_side,
            preview=self.preview is not False,
            profiles=self.profiles is not False,
        )
        return Grant(self.name, frozenset(self.roles), self.streams, quota, self.hash)


class TokenSource:
    """Where a detector's tokens are listed: in a file, or in the text that a variable holds."""

    def __init__(self, setting: str) -> None:
        """`setting` is a path, or the TOML text itself, which no path looks like."""
        is_text = "\n" in setting or _TABLES.search(setting) is not None
        self.file = None if is_text else Path(setting)
        self._text = setting if is_text else ""

    def __str__(self) -> str:
        return str(self.file) if self.file else "the variable SPLITCAST_TOKENS"

    def read(self) -> Tokens:
        """The tokens as they are listed now. Touches files: for a worker thread. Raises SettingsError."""
        text = read_token_text(self.file) if self.file else self._text
        return Tokens(entry.grant for entry in parse_tokens(text, str(self)))


def read_token_text(file: Path) -> str:
    """What the file holds. Raises SettingsError, also where anybody may write to it."""
    try:
        with open_regular(file) as opened:
            mode = os.fstat(opened.fileno()).st_mode
            data = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsError(
            f"--tokens: cannot read {file}: {error.strerror}; make tokens with `splitcast token create`"
        ) from None
    if mode & stat.S_IWOTH:
        raise SettingsError(f"--tokens: anybody may write to {file}, and so let himself in: chmod 600 {file}")
    if len(data) > MAX_FILE_BYTES:
        raise SettingsError(f"--tokens: {file} has more than {MAX_FILE_BYTES // 2**20} MiB")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise SettingsError(f"--tokens: {file} is no text in UTF-8") from None


def parse_tokens(text: str, source: str) -> list[TokenEntry]:
    """The entries of the file's text. Raises SettingsError, which names `source` and shows no hash."""
    try:
        tables: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"--tokens: {source} is not TOML: {error}") from None
    except RecursionError:
        raise SettingsError(f"--tokens: {source} is nested too deeply for a list of tokens") from None
    listed = tables.pop(TABLE, [])
    if tables or not isinstance(listed, list):
        unknown = min(tables, default=TABLE)
        raise SettingsError(f"--tokens: {source}: {unknown}: it may hold tables [[{TABLE}]] alone")
    if len(listed) > MAX_TOKENS:
        raise SettingsError(f"--tokens: {source} has {len(listed)} tokens; at most {MAX_TOKENS} are allowed")
    entries = [
        make_entry(table, f"--tokens: {source}: {_who(table, number)}")
        for number, table in enumerate(listed, 1)
    ]
    for what in ("name", "hash"):
        value, count = (
            Counter(getattr(entry, what) for entry in entries).most_common(1)[0] if entries else ("", 0)
        )
        if count > 1:
            same = [entry.name for entry in entries if getattr(entry, what) == value]
            raise SettingsError(f"--tokens: {source}: {what}: {' and '.join(same)} have the same")
    return entries


def make_entry(table: Any, who: str) -> TokenEntry:
    """The entry that a table says. Raises SettingsError, which names `who` and shows no hash."""
    try:
        return TokenEntry.model_validate(table)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "string_pattern_mismatch":
            star = ", or end with *" if where.startswith("streams") else ""
            message = f"must be 1 to 64 of A-Z a-z 0-9 . _ -, begin with a letter or digit{star}"
        if where == "hash":
            message = (
                "must be the token's SHA-256, 64 hexadecimal digits: `splitcast token create` makes both"
            )
            if PREFIX in str(table.get("hash")):
                message += "; this is a token itself: revoke it, for it was stored"
        raise SettingsError(f"{who}: {where + ': ' if where else ''}{message}") from None


def _who(table: Any, number: int) -> str:
    name = table.get("name") if isinstance(table, dict) else None
    if not isinstance(name, str) or PREFIX in name:
        return f"token {number}"
    return f"token {number} ({name[:64]!r})"

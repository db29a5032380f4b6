"""Makes tokens for a detector, shows what they grant, and revokes them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from services.access.token_editing import add_token, remove_token
from services.access.token_file import TokenEntry, parse_tokens, read_token_text
from services.access.tokens import new_token, token_hash
from services.commands.settings import TokenCreateSettings, TokenListSettings, TokenRevokeSettings
from services.errors import SettingsError

# As a service of systemd it has a copy of the file, made at its start (LoadCredential).
_RELOAD = "a detector that runs hears of it on SIGHUP (kill -HUP), as a service by systemctl restart"


def run_token_create(settings: TokenCreateSettings) -> None:
    """Print a new token, or write it to `--out`: it is shown this once. Raises SettingsError, OSError."""
    token = new_token()
    entry = settings.entry(token_hash(token))
    if settings.out:
        _write_secret(settings.out, token)
    try:
        add_token(settings.tokens, entry)
    except BaseException:
        if settings.out:
            settings.out.unlink()
        raise
    if not settings.out:
        print(token)
    kept = f"written to {settings.out}" if settings.out else "shown this once: keep it in a file of mode 600"
    _tell(f"token {entry.name!r} is listed in {settings.tokens}, and {kept}; {_RELOAD}")


def run_token_list(settings: TokenListSettings) -> None:
    """Print what each token grants, a line each. Raises SettingsError."""
    entries = parse_tokens(read_token_text(settings.tokens), str(settings.tokens))
    rows = [("NAME", "ROLES", "STREAMS", "LIMITS")]
    rows += [
        (entry.name, ",".join(entry.roles), ",".join(entry.streams) or "-", _limits(entry) or "-")
        for entry in entries
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for *columns, limits in rows:
        print("  ".join([*(f"{text:<{width}}" for text, width in zip(columns, widths, strict=True)), limits]))


def run_token_revoke(settings: TokenRevokeSettings) -> None:
    """Take a token out of the file. Raises SettingsError, OSError."""
    remove_token(settings.tokens, settings.name)
    _tell(f"token {settings.name!r} is revoked; {_RELOAD}, and then closes its connections")


def _limits(entry: TokenEntry) -> str:
    """What a camera may cost, as flags of `token create` say it."""
    facts = entry.model_dump(exclude={"name", "hash", "roles", "streams"}, exclude_none=True)
    switches = [f"{'' if value else 'no-'}{name}" for name, value in facts.items() if isinstance(value, bool)]
    numbers = [f"{name}={value:g}" for name, value in facts.items() if not isinstance(value, bool)]
    return ",".join([*numbers, *switches])


def _write_secret(file: Path, token: str) -> None:
    """A new file that its owner alone can read. Raises SettingsError."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise SettingsError(f"--out: cannot write {file}: {error.strerror}") from None
    with open(descriptor, "w") as opened:  # noqa: PTH123 - a descriptor
        opened.write(f"{token}\n")


def _tell(words: str) -> None:
    """Beside what is printed, which may go to a file."""
    print(words, file=sys.stderr)

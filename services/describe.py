"""Says what a calibration profile was made from and what it holds: `splitcast profile show`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from codec.profile import MAX_PROFILE_BYTES, Profile, ProfileError
from codec.shipped import SHIPPED


def print_profile(name: str) -> None:
    """Print a profile as a table: the shipped one with that hash, or the one in a file.

    Raises ProfileError or OSError.
    """
    table = Table(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for row in (SHIPPED.get(name) or read_profile(Path(name))).describe():
        table.add_row(*map(_plain, row))
    Console().print(table)


def read_profile(path: Path) -> Profile:
    """The profile in a file. Raises ProfileError or OSError."""
    with path.open("rb") as file:
        data = file.read(MAX_PROFILE_BYTES + 1)  # one too many is enough for `parse` to refuse
    try:
        return Profile.parse(data)
    except ProfileError as error:
        raise ProfileError(f"{path} is no profile: {error}") from None


def _plain(text: str) -> Text:
    """Text that cannot steer the terminal: a profile's words may come from anywhere."""
    return Text("".join(character if character.isprintable() else "\ufffd" for character in text))

"""Says what a calibration profile was made from and what it holds: `splitcast profile show`."""

from __future__ import annotations

from pathlib import Path

from codec.profile import MAX_PROFILE_BYTES, Profile, ProfileError
from codec.shipped import SHIPPED


def print_profile(name: str) -> None:
    """Print what a profile is, a line for each fact: of the shipped one with that hash, or of the one in a file.

    Raises ProfileError or OSError.
    """
    rows = (SHIPPED.get(name) or read_profile(Path(name))).describe()
    width = max(len(fact) for fact, _ in rows)
    for fact, value in rows:  # no table of rich's: it would fold the hashes, which people copy and search for
        print(f"{fact:<{width}}  {value}")


def read_profile(path: Path) -> Profile:
    """The profile in a file. Raises ProfileError or OSError."""
    with path.open("rb") as file:
        data = file.read(MAX_PROFILE_BYTES + 1)  # one too many is enough for `parse` to refuse
    try:
        return Profile.parse(data)
    except ProfileError as error:
        raise ProfileError(f"{path} is no profile: {error}") from None

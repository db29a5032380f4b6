"""Says what a calibration profile was made from and what it holds: `splitcast profile show`."""

from __future__ import annotations

from pathlib import Path

from codec.feature.bundled import BUNDLED
from services.profiles import read_profile


def print_profile(name: str) -> None:
    """Print what a profile is, a line for each fact: of the shipped one with that hash, or of the one in a file.

    Raises ProfileError or SettingsError.
    """
    rows = (BUNDLED.get(name) or read_profile(Path(name))).describe()
    width = max(len(fact) for fact, _ in rows)
    for fact, value in rows:  # no table of rich's: it would fold the hashes, which people copy and search for
        print(f"{fact:<{width}}  {value}")

"""Says what a calibration profile was made from and what it holds: `splitcast profile show`."""

from __future__ import annotations

from pathlib import Path

from codec.feature.bundled import BUNDLED
from services.commands.settings import ProfileShowSettings
from services.printable import printable
from services.profiles import read_profile


def run_profile_show(settings: ProfileShowSettings) -> None:
    """Print what a profile is, a line for each fact: of the bundled one with that hash, or of a file's.

    Raises ProfileError or SettingsError.
    """
    rows = (BUNDLED.get(settings.profile) or read_profile(Path(settings.profile))).describe()
    width = max(len(fact) for fact, _ in rows)
    for fact, value in rows:  # no table of rich's: it would fold the hashes, which people copy and search for
        print(f"{fact:<{width}}  {printable(value)}")

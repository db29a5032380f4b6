"""The calibration profiles that come with the package, for the networks that most people run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

from codec.feature.profile import Profile

_FOLDER = Path(__file__).parent / "profiles"
SUFFIX = ".profile"


class BundledProfiles(Mapping[str, Profile]):
    """Profiles by hash, read from a folder when the first one is asked for.

    A file is named `WEIGHTS.SPLIT.profile`, WEIGHTS being the hash of the network's weights.
    """

    def __init__(self, folder: Path = _FOLDER) -> None:
        self._folder = folder

    def find(self, weights_hash: str, split: str) -> Profile | None:
        """The profile for a network and a split point, if there is one."""
        return self._by_name.get(f"{weights_hash}.{split}{SUFFIX}")

    def __getitem__(self, profile_hash: str) -> Profile:
        return self._by_hash[profile_hash]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_hash)

    def __len__(self) -> int:
        return len(self._by_hash)

    @cached_property
    def _by_name(self) -> dict[str, Profile]:
        paths = sorted(self._folder.glob(f"*{SUFFIX}"))
        return {path.name: Profile.parse(path.read_bytes()) for path in paths}

    @cached_property
    def _by_hash(self) -> dict[str, Profile]:
        return {profile.hash: profile for profile in self._by_name.values()}


BUNDLED = BundledProfiles()

"""The calibration profiles that a detector has: bundled ones, the operator's, and the last that cameras sent."""

from __future__ import annotations

from collections import ChainMap, OrderedDict
from collections.abc import Iterator, Mapping

from codec.feature.profile import Profile

# A camera's profile fits one network and one split: a few serve all cameras of a detector. One that is forgotten
# is requested again, and a stream keeps the one that it uses.
RECEIVED_KEPT = 8


class ProfileStore(Mapping[str, Profile]):
    """Profiles by SHA-256, bundled ones among them. For one thread at a time: looking one up changes it."""

    def __init__(self, bundled: Mapping[str, Profile]) -> None:
        self._given: dict[str, Profile] = {}
        self._received: OrderedDict[str, Profile] = OrderedDict()  # the one not used for longest first
        self._all = ChainMap(self._received, self._given, bundled)  # type: ignore[arg-type] # only read through

    def keep(self, profile: Profile) -> None:
        """Hold a profile that the operator gave, for ever."""
        self._given[profile.hash] = profile

    def add(self, profile: Profile) -> None:
        """Hold a profile that a camera has sent, and forget the one not used for longest."""
        self._received[profile.hash] = profile
        self._received.move_to_end(profile.hash)
        if len(self._received) > RECEIVED_KEPT:
            self._received.popitem(last=False)

    def __getitem__(self, profile_hash: str) -> Profile:
        if profile_hash in self._received:
            self._received.move_to_end(profile_hash)
        return self._all[profile_hash]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

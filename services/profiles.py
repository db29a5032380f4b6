"""Finds the calibration profile that a codec needs for a network and a split point."""

from __future__ import annotations

from pathlib import Path

import structlog

from codec.errors import ProfileError
from codec.feature.bundled import BUNDLED
from codec.feature.profile import MAX_PROFILE_BYTES, Profile
from codec.spec import Codec
from services.errors import SettingsError

log = structlog.get_logger(__name__)


def resolve(codec: Codec, weights_hash: str, split: str, file: Path | None = None) -> Codec:
    """The codec with the profile in `file`, or the bundled one; without calibration where there is neither.

    Any codec that names its profile, or has none, stays as it is. Raises BadCodecSpec where the codec
    takes none, SettingsError or ProfileError where the file is none.
    """
    if file is not None:
        return codec.with_profile(read_profile(file))
    if not codec.profile_is_open:
        return codec
    profile = BUNDLED.find(weights_hash, split)
    if profile is None:
        log.warning(
            "no calibration profile for these weights: features are coded without statistics, several times larger; "
            "make one with `splitcast calibrate`",
            weights=weights_hash,
            split=split,
        )
    return codec.with_profile(profile)


def without_network(codec: Codec) -> Codec:
    """The codec for tensors of an unknown network: with the profile it names, else without calibration."""
    if not codec.profile_is_open:
        return codec
    log.warning(
        "a file of arrays does not tell its network: features are coded without statistics, several times larger; "
        "name a profile that comes with this software with `--codec feature:profile=HASH`"
    )
    return codec.with_profile(None)


def read_profile(file: Path) -> Profile:
    """The profile in a file. Raises SettingsError where it cannot be read, ProfileError where it is none."""
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_PROFILE_BYTES + 1)  # one too many is enough for `parse` to refuse
    except OSError as error:
        raise SettingsError(f"cannot read the profile {file} ({error.strerror})") from None
    try:
        return Profile.parse(data)
    except ProfileError as error:
        raise ProfileError(f"{file} is no profile: {error}") from None

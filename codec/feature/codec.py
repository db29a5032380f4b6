"""The feature codec: sensitivity-shaped transform coding with closed-loop prediction (docs/bitstream.md).

What it is told, and not how it codes: encoders and decoders are imported when the first is made, and with them kernels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Self

from codec.errors import UnsupportedPacket
from codec.feature.bundled import BUNDLED
from codec.feature.parameters import PARAMETER_BYTES, Parameters
from codec.feature.profile import Profile
from codec.layout import Layout
from codec.spec_text import format_spec

if TYPE_CHECKING:
    from codec.feature.decoder import FeatureDecoder
    from codec.feature.encoder import FeatureEncoder


@dataclass(frozen=True, slots=True)
class Feature(Parameters):
    """The codec, with its parameters chosen. Raises BadCodecSpec if one is out of range."""

    def __str__(self) -> str:
        profile = "auto" if self.profile_is_open else "none" if self.profile is None else self.profile.hash
        return format_spec(
            self.name,
            {
                "quality": self.quality,
                "temporal": self.temporal,
                "effort": self.effort,
                "keyframe_interval": self.keyframe_interval,
                "profile": profile,
            },
        )

    def with_profile(self, profile: Profile | None) -> Self:
        """The same with this calibration profile, or without calibration."""
        return replace(self, profile=profile, profile_is_open=False)

    @classmethod
    def from_parameters(cls, parameters: bytes) -> Self:
        """The codec for packets with these parameter bytes: the first eight of the profile's hash, or zeros."""
        if len(parameters) != PARAMETER_BYTES:
            raise UnsupportedPacket("feature parameters", f"{PARAMETER_BYTES} bytes", repr(parameters.hex()))
        if not any(parameters):
            return cls()
        for profile_hash, profile in BUNDLED.items():
            if profile_hash.startswith(parameters.hex()):
                return cls(profile=profile)
        raise UnsupportedPacket("calibration profile", "one that comes with this software", parameters.hex())

    @classmethod
    def load(cls) -> None:
        """Import encoder and decoder, and with them kernels, which takes seconds: once a process, before the first."""
        for module in ("codec.feature.encoder", "codec.feature.decoder"):
            import_module(module)

    def encoder(self, layout: Layout) -> FeatureEncoder:
        """A new encoder. Raises BadLayout, or ProfileMismatch if the profile is for other tensors."""
        from codec.feature.encoder import FeatureEncoder

        return FeatureEncoder(self, layout)

    def decoder(self, layout: Layout) -> FeatureDecoder:
        """A new decoder. Raises as `encoder` does."""
        from codec.feature.decoder import FeatureDecoder

        return FeatureDecoder(self, layout)

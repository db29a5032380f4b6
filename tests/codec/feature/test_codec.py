"""The feature codec and its calibration profile."""

from __future__ import annotations

import pytest

from codec.errors import (
    ProfileMismatch,
    UnsupportedPacket,
)
from codec.feature.codec import Feature
from codec.layout import TensorSpec
from codec.packet import Stamp
from tests.codec.calibrated import make_codec, make_profile
from tests.codec.feature.streams import ODD, SMALL
from tests.codec.samples import features


def test_a_profile_for_other_tensors_is_a_mismatch():
    codec = make_codec(SMALL)
    for layout in (ODD, (TensorSpec("4.m", (5, 8, 12)),)):
        for end in (codec.encoder, codec.decoder):
            with pytest.raises(ProfileMismatch):
                end(layout)


def test_a_profile_does_for_every_height_and_width():
    codec = make_codec(SMALL)
    for shape in ((4, 1, 1), (4, 5, 30)):
        layout = (TensorSpec("4.m", shape),)
        frame = features(1, layout)
        decoded = codec.decoder(layout).decode(codec.encoder(layout).encode(frame, Stamp(0, 0)).data)
        assert decoded.tensors["4.m"].shape == shape


def test_limits_unknown_profile_of_a_file():
    with pytest.raises(UnsupportedPacket, match="profile"):
        Feature.from_parameters(b"\1" * 8)
    with pytest.raises(UnsupportedPacket, match="parameters"):
        Feature.from_parameters(b"\1" * 7)


def test_profiles_of_one_layout_do_not_read_one_another():
    packet = make_codec(SMALL, 1).encoder(SMALL).encode(features(1, SMALL), Stamp(0, 0)).data
    assert make_profile(SMALL, 1).hash != make_profile(SMALL, 2).hash
    with pytest.raises(UnsupportedPacket):
        make_codec(SMALL, 2).decoder(SMALL).decode(packet)

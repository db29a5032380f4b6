"""The feature codec's parameters and the layouts that it takes."""

from __future__ import annotations

import pytest

from codec.errors import (
    BadCodecSpec,
    BadLayout,
)
from codec.feature.codec import Feature
from codec.feature.parameters import payload_bound
from codec.layout import TensorSpec
from tests.codec.calibrated import make_codec
from tests.codec.feature.streams import SMALL


@pytest.mark.parametrize(
    "wrong", [{"quality": 0}, {"quality": 11}, {"effort": 4}, {"keyframe_interval": 0}, {"effort": -1}]
)
def test_parameters_out_of_range_are_refused(wrong):
    with pytest.raises(BadCodecSpec, match=next(iter(wrong))):
        Feature(**wrong)


@pytest.mark.parametrize(
    ("shape", "match"),
    [
        ((1, 513, 4), "513"),
        ((1, 4, 513), "513"),
        ((4097,), "4097 channels"),
        ((64, 512, 513), "513"),
        ((65, 512, 512), "samples"),
        ((1025, 125, 125), "samples"),
    ],
)
def test_limits_height_width_channels_and_samples(shape, match):
    """Before anything is allocated: the profile does not even fit."""
    layout = (TensorSpec("a", shape),)
    codec = make_codec(SMALL)
    for make in (codec.encoder, codec.decoder, codec.packet_format):
        with pytest.raises(BadLayout, match=match):
            make(layout)


def test_limits_largest_layouts_are_taken():
    codec = make_codec(SMALL)
    for shape in ((64, 512, 512), (2048, 64, 64), (2048,)):
        codec.packet_format((TensorSpec("a", shape),))


def test_channels_of_a_group_are_limited():
    Feature().packet_format((TensorSpec("a", (2048,)), TensorSpec("b", (2048, 4, 4))))
    with pytest.raises(BadLayout, match="2049"):
        Feature().packet_format((TensorSpec("a", (2049,)),))


def test_limits_payload_bound_counts_whole_blocks():
    assert (
        payload_bound((TensorSpec("a", (3, 5, 9)), TensorSpec("b", (2,)))) == 4 * (3 * 8 * 12 + 2 * 16) + 1024
    )

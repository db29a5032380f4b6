"""Frames and packets of the feature codec, and its slow decoder beside it."""

from __future__ import annotations

import numpy as np

from codec.feature.profile import Profile, channels_of, grouped, plane
from codec.layout import TensorSpec
from codec.packet import Stamp
from tests.codec import reference_feature as reference
from tests.codec.calibrated import make_codec

SMALL = (TensorSpec("4.m", (4, 8, 12)),)


ODD = (  # two groups of padded planes, one of them of two tensors, and one without planes
    TensorSpec("4.m", (3, 9, 14)),
    TensorSpec("6", (4, 3, 5)),
    TensorSpec("4.cv2", (2, 9, 14)),
    TensorSpec("9", (5,)),
)


def pair(layout=SMALL, seed=0, **parameters):
    codec = make_codec(layout, seed, **parameters)
    return codec.encoder(layout), codec.decoder(layout)


def encode_all(encoder, frames, first=0):
    return [encoder.encode(frame, Stamp((first + i) % 2**32, i)) for i, frame in enumerate(frames)]


def slow_decoder(codec, layout):
    profile = codec.profile.pack() if isinstance(codec.profile, Profile) else None
    return reference.Decoder(
        profile, [(sum(map(channels_of, specs)), *plane(specs[0])) for specs in grouped(layout)]
    )


def pans(seed, count, layout=SMALL):
    """A picture that moves by a sample a frame, with some noise."""
    rng = np.random.default_rng(seed)
    wide = {
        spec.name: smooth(rng.normal(size=(*spec.shape[:-1], spec.shape[-1] + count)))
        if len(spec.shape) > 2
        else rng.normal(size=spec.shape)
        for spec in layout
    }
    return [
        {
            spec.name: (
                (wide[spec.name][..., i : i + spec.shape[-1]] if len(spec.shape) > 2 else wide[spec.name])
                + rng.normal(0, 0.01, spec.shape)
            ).astype(np.float32)
            for spec in layout
        }
        for i in range(count)
    ]


def smooth(x):
    return (np.roll(x, 1, -1) + np.roll(x, 1, -2) + x) / 1.5


def assert_equals_the_slow_decoder(codec, layout, packets):
    decoder, slow = codec.decoder(layout), slow_decoder(codec, layout)
    for packet in packets:
        decoded = decoder.decode(packet)
        planes = slow.decode(packet)
        for group, expected in zip(decoder.groups, planes, strict=True):
            assert np.array_equal(group.planes, expected)
        restored = {}
        for specs, tensors in zip(grouped(layout), slow.tensors(), strict=True):
            first = 0
            for spec in specs:
                channels = channels_of(spec)
                restored[spec.name] = tensors[first : first + channels].reshape(spec.shape)
                first += channels
        assert list(decoded.tensors) == [spec.name for spec in layout]
        for spec in layout:
            tensor = decoded.tensors[spec.name]
            assert tensor.dtype == np.float32
            assert tensor.shape == spec.shape
            assert np.allclose(tensor, restored[spec.name], rtol=1e-4, atol=1e-4)


def chain(layout=SMALL, seed=0, **parameters):
    """A keyframe, a difference after it, and one with vectors."""
    codec = make_codec(layout, seed, quality=8, **parameters)
    packets = encode_all(codec.encoder(layout), pans(8, 3, layout))
    assert [packet.keyframe for packet in packets] == [True, False, False]
    return codec, [packet.data for packet in packets]


def decoder_at(codec, layout, packets, index):
    decoder = codec.decoder(layout)
    for packet in packets[:index]:
        decoder.decode(packet)
    return decoder

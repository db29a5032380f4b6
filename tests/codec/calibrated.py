"""Calibration profiles for the codec's tests: well formed, and about right for the frames of samples.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from codec.feature.alphabets import SYMBOLS, cumulative_shares
from codec.feature.codec import Feature
from codec.feature.contexts import ALPHABETS, BLOCK_WEIGHTS, COEFFICIENT_WEIGHTS, PROFILED
from codec.feature.profile import GroupProfile, Profile, grouped, plane
from codec.feature.rotation import ROTATION_UNIT, Rotation, rotated_components
from codec.feature.step_network import StepNetwork
from codec.feature.uncalibrated import profile_of
from codec.layout import Layout


def make_profile(layout: Layout, seed: int = 0) -> Profile:
    """A profile for the tensors of a layout; every part of it depends on the seed."""
    rng = np.random.default_rng(seed)
    groups = tuple(
        make_group(sum(spec.size // (h * w) for spec in specs for h, w in [plane(spec)]), rng)
        for specs in grouped(layout)
    )
    return Profile(groups, {"network": "none", "seed": seed})


def make_group(channels: int, rng: np.random.Generator) -> GroupProfile:
    """Channels turned at random, each component less important than the one before."""
    plain = profile_of(np.stack((np.full(channels, -1), np.full(channels, 1))).astype(np.float16))
    turn, _ = np.linalg.qr(rng.normal(size=(channels, channels)))
    units = np.geomspace(4000, 400, channels)
    return replace(
        plain,
        mean=rng.normal(0, 0.2, channels).astype(np.float32),
        forward=(turn * units[:, None]).astype(np.float32),
        inverse=(turn.T / units).astype(np.float32),
        prior=rng.integers(1, 2000, (channels, 16)).astype(np.uint16),
        weights=rng.integers(0, 120, (2, COEFFICIENT_WEIGHTS, 16)).astype(np.uint16),
        block_weights=rng.integers(0, 80, (2, BLOCK_WEIGHTS)).astype(np.uint16),
        probabilities=rng.integers(2000, 30000, PROFILED).astype(np.uint16),
        distributions=cumulative_shares(rng.uniform(0.01, 1, (ALPHABETS, SYMBOLS))),
        step_network=make_network(channels, rng),
        rotation=make_rotation(rotated_components(channels), rng),
    )


def make_rotation(side: int, rng: np.random.Generator) -> Rotation:
    """Some rotation of so many components."""
    turns, _ = np.linalg.qr(rng.normal(size=(16, side, side)))
    return np.round(turns * ROTATION_UNIT).astype(np.int16)


def make_network(channels: int, rng: np.random.Generator) -> StepNetwork:
    """A network whose steps differ from block to block."""
    arrays = {
        name: (rng.normal(size=shape) * 0.5 / max(1, np.prod(shape[1:])) ** 0.5).astype(np.float32)
        for name, shape in StepNetwork.shapes(channels).items()
    }
    return StepNetwork(**arrays | {"mix": arrays["mix"] / np.float32(200)})


def make_codec(layout: Layout, seed: int = 0, **parameters: int) -> Feature:
    """The codec with such a profile."""
    return Feature(profile=make_profile(layout, seed), **parameters)

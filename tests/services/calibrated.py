"""Calibration profiles for the small network of these tests: well formed, and fitted to nothing."""

from __future__ import annotations

import numpy as np

from codec.feature.profile import Profile, grouped, plane
from codec.feature.uncalibrated import profile_of
from codec.layout import Layout


def make_profile(layout: Layout, number: int = 0) -> Profile:
    """A profile for these tensors; another one for another number."""
    channels = [
        sum(spec.size // (height * width) for spec in specs)
        for specs in grouped(layout)
        for height, width in [plane(specs[0])]
    ]
    ranges = [np.stack((np.full(count, -4), np.full(count, 4))).astype(np.float16) for count in channels]
    return Profile(tuple(profile_of(each) for each in ranges), {"model": "random", "number": number})

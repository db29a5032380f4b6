"""How a frequency's coefficients are turned, so that what one component tells of another is not coded twice.

The transform of a profile makes the samples of its components uncorrelated, over all frequencies together. At each by
itself they are not: what is smooth varies in other directions than what has edges. So each place of a block has axes of
its own. They are orthonormal, and an error then weighs on the detections as much as without.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Rotation: TypeAlias = NDArray[np.int16]
"""(16, R, R): for each place in zigzag order, new components (rows) from the first R old ones, in 1/1024."""

ROTATION_UNIT = 2**10
MOST_ROTATED = 32
"""Components that are rotated. With all 64 of YOLOv5n bytes at equal distortion are the same."""


def rotated_components(components: int) -> int:
    """R, of so many components."""
    return min(components, MOST_ROTATED)


def no_rotation(components: int) -> Rotation:
    """The one that leaves all as it is."""
    unit = ROTATION_UNIT * np.eye(rotated_components(components), dtype=np.int16)
    return np.tile(unit, (16, 1, 1))


def principal_axes(covariance: NDArray[np.float64]) -> Rotation:
    """The rotation to uncorrelated components, greatest first, from their covariances (16, R, R)."""
    _, axes = np.linalg.eigh(covariance)
    rows = axes.transpose(0, 2, 1)[:, ::-1]
    # An axis' sign means nothing; fixed, so that equal samples give equal profiles.
    greatest = np.take_along_axis(rows, np.abs(rows).argmax(2)[:, :, None], 2)
    rows = rows * np.where(greatest < 0, -1, 1)
    return np.round(rows * ROTATION_UNIT).astype(np.int16)

"""What a detector tells an encoder of each block's sensitivity, which it can measure where an encoder only foresees it.

A step map steers the encoder's choice of steps, and nothing else: packets tell their steps, whatever chose them. It is
of a frame that was decoded some frames ago, so the encoder moves it along with the picture.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from codec.errors import BadStepMap
from codec.feature.motion import Vectors
from codec.feature.parameters import whole_blocks
from codec.feature.profile import grouped, plane
from codec.layout import FloatArray, Layout

UNIT = 0.5  # natural logarithms of energy: 16 values span a factor of 1800
LEAST, MOST = -8, 7  # units, from the mean of the group's blocks
LEAST_ENERGY = 1e-9  # of a block: keeps its logarithm finite
OLDEST = 16  # frames
SHARE = 0.5  # of the map in what steps follow: a single sample is noisy, and the prediction is of the present frame
BLOCK = 16  # quarters of a sample on a block's side, in which vectors count


def block_energy(inverse: NDArray[np.floating], gradient: FloatArray) -> FloatArray:
    """Fisher energy (down, across) of each block from a random sample (C, h, w) of the detections' gradient.

    `inverse` (C, C) leads from components to tensors; what lies beyond the edge has none.
    """
    _, height, width = gradient.shape
    padded = np.pad(gradient, ((0, 0), (0, -height % 4), (0, -width % 4)))
    with np.errstate(over="ignore", invalid="ignore"):  # what is beyond float32 has no finite energy
        components = inverse.T.astype(np.float32) @ padded.reshape(len(padded), -1)
        energy = np.square(components, dtype=np.float64).sum(0)
    blocks: FloatArray = energy.reshape(padded.shape[1] // 4, 4, -1, 4).sum((1, 3))
    return blocks


def pack_step_map(energies: Sequence[NDArray[np.floating]]) -> bytes:
    """Bytes that tell the energy of every block, group by group, four bits each: its logarithm less the group's mean.

    Raises BadStepMap where an energy is not finite.
    """
    values = []
    for energy in energies:
        if not np.isfinite(energy).all():
            raise BadStepMap("an energy is not finite")
        logarithm = np.log(energy.reshape(-1) + LEAST_ENERGY)
        values.append(np.clip(np.rint((logarithm - logarithm.mean()) / UNIT), LEAST, MOST))
    nibbles = (np.concatenate(values) - LEAST).astype(np.uint8)
    nibbles = np.append(nibbles, np.zeros(len(nibbles) % 2, np.uint8))
    return bytes(nibbles[::2] << 4 | nibbles[1::2])


def step_map_bytes(layout: Layout) -> int:
    """Size of a map of a layout's blocks."""
    sides = (plane(specs[0]) for specs in grouped(layout))
    return _packed_bytes(sum(whole_blocks(height) * whole_blocks(width) // 16 for height, width in sides))


def _packed_bytes(blocks: int) -> int:
    return -(-blocks // 2)


def parse_step_map(data: bytes, blocks: Sequence[int]) -> list[FloatArray]:
    """Log sensitivity (B,) of each group's blocks, of which there are so many. Raises BadStepMap for another size."""
    if len(data) != _packed_bytes(sum(blocks)):
        raise BadStepMap(f"{len(data)} bytes for {sum(blocks)} blocks")
    packed = np.frombuffer(data, np.uint8)
    values = np.stack((packed >> 4, packed & 15), 1).reshape(-1).astype(np.float32)
    ends = np.cumsum(blocks)
    return [
        (values[end - count : end] + LEAST) * np.float32(UNIT)
        for count, end in zip(blocks, ends, strict=True)
    ]


class StepGuide:
    """The newest step map of a group, moved along with the picture from the frame that it is of."""

    def __init__(self, down: int, across: int) -> None:
        self._shape = down, across
        self._map: FloatArray | None = None
        self._vectors: deque[Vectors] = deque(maxlen=OLDEST)  # (B, 2) of each frame, the newest last

    def forget(self) -> None:
        """Another scene begins: nothing before it tells anything of it."""
        self._map = None
        self._vectors.clear()

    def take(self, sensitivity: FloatArray, frames_ago: int) -> None:
        """A map (B,) has come, of so many frames before the last; one from before the scene began is of no use."""
        if frames_ago > len(self._vectors):
            return
        moved = sensitivity.reshape(self._shape)
        for vectors in list(self._vectors)[len(self._vectors) - frames_ago :]:
            moved = _moved(moved, vectors)
        self._map = moved

    def advance(self, vectors: Vectors) -> None:
        """Go on to the next frame, whose blocks come from where these vectors (B, 2) point to."""
        self._vectors.append(vectors.copy())
        if self._map is not None:
            self._map = _moved(self._map, vectors)

    def mix(self, predicted: FloatArray) -> FloatArray:
        """Log sensitivity (down, across) with the map in it, if there is one; the frame's mean is the prediction's."""
        if self._map is None:
            return predicted
        mixed: FloatArray = predicted + SHARE * (
            self._map - self._map.mean() - (predicted - predicted.mean())
        )
        return mixed


def _moved(values: FloatArray, vectors: Vectors) -> FloatArray:
    """Values (down, across) at the places that the vectors (B, 2) of each block point to, between blocks linearly."""
    if not vectors.any():
        return values
    down, across = values.shape
    offset = vectors.reshape(down, across, 2).astype(np.float32) / BLOCK
    y = np.clip(np.arange(down)[:, None] + offset[..., 0], 0, down - 1)
    x = np.clip(np.arange(across) + offset[..., 1], 0, across - 1)
    top, left = y.astype(np.intp), x.astype(np.intp)
    bottom, right = np.minimum(top + 1, down - 1), np.minimum(left + 1, across - 1)
    below, beside = y - top, x - left
    upper = values[top, left] * (1 - beside) + values[top, right] * beside
    lower = values[bottom, left] * (1 - beside) + values[bottom, right] * beside
    moved: FloatArray = (upper * (1 - below) + lower * below).astype(np.float32)
    return moved

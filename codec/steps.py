"""How finely each block has to be quantized: a prediction, by the encoder, of what the detections depend on.

A block's sensitivity is the Fisher information of its samples (codec/calibration.py). Only the back pass through the
network could tell it; its logarithm is predicted from the block itself and from its neighbourhood, linearly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numba
import numpy as np
from numba import float32, void
from numba.types import Array
from numpy.typing import NDArray

from codec.entropy import MAX_CHANGE
from codec.layout import FloatArray

Kernel = TypeVar("Kernel", bound=Callable[..., object])

MEASURES = 3  # of each component in a block: mean, magnitude of the mean, standard deviation
POSITIONS = 4  # of a block: x, y from -1 to 1, and their squares


def _kernel(signature: object, **options: bool) -> Callable[[Kernel], Kernel]:
    compiler: Callable[[Kernel], Kernel] = numba.njit(signature, nogil=True, cache=True, **options)
    return compiler


_PLANES = Array(float32, 3, "C", readonly=True)
_MATRIX = Array(float32, 2, "C")


@_kernel(void(_PLANES, Array(float32, 1, "C", readonly=True), Array(float32, 3, "C")), fastmath=True)
def measure(planes: FloatArray, offset: FloatArray, measures: FloatArray) -> None:
    """Fill measures (K, 3, B) of each block of planes (K, H, W), less their offset (K,)."""
    components, height, width = planes.shape
    across = width // 4
    sums = np.empty(width, np.float32)
    squares = np.empty(width, np.float32)
    for k in range(components):
        for y in range(height // 4):
            for x in range(width):
                a = planes[k, 4 * y, x] - offset[k]
                b = planes[k, 4 * y + 1, x] - offset[k]
                c = planes[k, 4 * y + 2, x] - offset[k]
                d = planes[k, 4 * y + 3, x] - offset[k]
                sums[x] = a + b + c + d
                squares[x] = a * a + b * b + c * c + d * d
            for x in range(across):
                mean = (sums[4 * x] + sums[4 * x + 1] + sums[4 * x + 2] + sums[4 * x + 3]) / np.float32(16)
                square = squares[4 * x] + squares[4 * x + 1] + squares[4 * x + 2] + squares[4 * x + 3]
                variance = max(square / np.float32(16) - mean * mean, np.float32(0))
                b = y * across + x
                measures[k, 0, b] = mean
                measures[k, 1, b] = abs(mean)
                measures[k, 2, b] = np.sqrt(variance)


def block_features(planes: FloatArray, offset: FloatArray) -> FloatArray:
    """What a block's sensitivity is predicted from, (B, 6 K + 4): its measures, those around it, its place."""
    components, height, width = planes.shape
    down, across = height // 4, width // 4
    measures = np.empty((components, MEASURES, down * across), np.float32)
    measure(np.ascontiguousarray(planes), offset, measures)
    own = measures.reshape(-1, down, across)
    around = np.stack([_mean_around(plane) for plane in own])
    features = np.concatenate((own, around, _positions(down, across))).reshape(-1, down * across)
    return np.ascontiguousarray(features.T)


class StepPredictor:
    """Each block's change of step, (B,) int8 in quarters of an octave; negative is finer."""

    def __init__(self, weights: FloatArray, offset: FloatArray, down: int, across: int) -> None:
        components = len(offset)
        own, around, place = np.split(weights[:-1], [MEASURES * components, 2 * MEASURES * components])
        self._weights = np.stack((own, around))
        self._place = np.tensordot(place, _positions(down, across), 1) + weights[-1]
        self._offset = offset
        self._measures = np.empty((components, MEASURES, down * across), np.float32)

    def changes(self, planes: FloatArray, beta: float) -> NDArray[np.int8]:
        """For planes (K, H, W) before their offset is taken away. beta: 0 for equal steps, 1 as predicted."""
        measure(planes, self._offset, self._measures)
        own, around = self._weights @ self._measures.reshape(self._weights.shape[1], -1)
        sensitivity = (
            own.reshape(self._place.shape) + _mean_around(around.reshape(self._place.shape)) + self._place
        )
        # Steps as the inverse square root of the sensitivity: every block then costs the detections as much.
        changes = np.round(sensitivity * (-beta / 2 * 4 / np.log(2)))
        bounded: NDArray[np.int8] = np.clip(changes, -MAX_CHANGE, MAX_CHANGE).astype(np.int8)
        return bounded.reshape(-1)


def _mean_around(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean over each block and its eight neighbours; the edge continues outside."""
    padded = np.pad(plane, 1, mode="edge")
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return np.asarray((rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9, np.float32)


def _positions(down: int, across: int) -> NDArray[np.float32]:
    y, x = np.meshgrid(np.linspace(-1, 1, down), np.linspace(-1, 1, across), indexing="ij")
    return np.stack((x, y, x * x, y * y)).astype(np.float32)

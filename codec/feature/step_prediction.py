"""How finely each block has to be quantized: a prediction, by the encoder, of what the detections depend on.

A block's sensitivity is the Fisher information of its samples (codec/feature/calibration.py). Only the back pass
through the network could tell it; a small convolutional network predicts its logarithm from the block and what is
around it.
"""

from __future__ import annotations

import numpy as np
from numba import float32, void
from numba.types import Array
from numpy.typing import NDArray

from codec.feature.contexts import MAX_CHANGE
from codec.feature.step_network import MEASURES, MIXED, StepNetwork
from codec.jit import kernel
from codec.layout import FloatArray


@kernel(
    void(
        Array(float32, 3, "C", readonly=True),
        Array(float32, 1, "C", readonly=True),
        Array(float32, 3, "C"),
        Array(float32, 2, "C"),
    ),
    fastmath=True,
)
def measure(planes: FloatArray, offset: FloatArray, measures: FloatArray, lines: FloatArray) -> None:
    """Fill measures (K, 3, B) of each block of planes (K, H, W) less their offset (K,); `lines` (2, W) are for work."""
    components, height, width = planes.shape
    across = width // 4
    sums, squares = lines[0], lines[1]
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
                block = y * across + x
                measures[k, 0, block] = mean
                measures[k, 1, block] = abs(mean)
                measures[k, 2, block] = np.sqrt(variance)


@kernel(void(Array(float32, 3, "C", readonly=True), Array(float32, 3, "C")))
def gather_neighbors(planes: FloatArray, neighbors: FloatArray) -> None:
    """Fill neighbors (K, 9, B) with planes (K, down, across) at each block and the eight around it, row by row.

    Blocks at the edge stand for those outside.
    """
    components, down, across = planes.shape
    for k in range(components):
        for y in range(down):
            first = y * across
            for i in range(3):
                line = planes[k, min(max(y + i - 1, 0), down - 1)]
                left, here, right = neighbors[k, 3 * i], neighbors[k, 3 * i + 1], neighbors[k, 3 * i + 2]
                for x in range(across):
                    here[first + x] = line[x]
                for x in range(1, across):
                    left[first + x] = line[x - 1]
                    right[first + x - 1] = line[x]
                left[first] = line[0]
                right[first + across - 1] = line[across - 1]


class StepPredictor:
    """Each block's change of step, for planes of one size."""

    def __init__(self, network: StepNetwork, offset: FloatArray, down: int, across: int) -> None:
        self._network, self._offset = network, offset
        self._measures = np.empty((len(offset), MEASURES, down * across), np.float32)
        self._by_place = self._measures.reshape(-1, down, across)
        self._lines, self._workspace = np.empty((2, 4 * across), np.float32), workspace_for(down, across)

    def changes(self, planes: FloatArray, step_shaping: float) -> NDArray[np.int8]:
        """(B,) in quarters of an octave, negative is finer; for planes (K, H, W) that still have their offset.

        step_shaping: 0 for equal steps, 1 as predicted.
        """
        measure(planes, self._offset, self._measures, self._lines)
        with np.errstate(over="ignore", invalid="ignore"):  # finite frames may overflow: any step then serves
            sensitivity = predict_sensitivity(self._network, self._by_place, self._workspace).reshape(-1)
            # Steps as the inverse square root of the sensitivity: every block then costs the detections as much.
            changes = np.round(np.nan_to_num(sensitivity) * (-step_shaping / 2 * 4 / np.log(2)))
            np.clip(changes, -MAX_CHANGE, MAX_CHANGE, out=changes)
        return np.asarray(changes, np.int8)


def predict_sensitivity(network: StepNetwork, measures: FloatArray, workspace: FloatArray) -> FloatArray:
    """Log sensitivity (down, across) from measures (3 K, down, across), in `workspace_for` these blocks."""
    _, *shape = measures.shape
    mixed = network.mix @ measures.reshape(len(measures), -1)
    mixed += network.mix_bias[:, None]
    of_block, wide = mixed[MIXED].reshape(shape), mixed[MIXED + 1 :].reshape(1, *shape)
    planes = np.maximum(mixed[:MIXED], 0, out=mixed[:MIXED]).reshape(MIXED, *shape)
    planes = _convolved(planes, network.first, network.first_bias, workspace)
    planes = _convolved(planes, network.second, network.second_bias, workspace)
    predicted: FloatArray = np.tensordot(network.output, planes, 1) + of_block
    gather_neighbors(wide, workspace[:1])
    predicted += workspace[0].mean(0).reshape(shape)
    return predicted


def workspace_for(down: int, across: int) -> FloatArray:
    """What the network works in: its planes' values at each block and the eight around it."""
    return np.empty((MIXED, 9, down * across), np.float32)


def _convolved(
    planes: FloatArray, filters: FloatArray, bias: FloatArray, workspace: FloatArray
) -> FloatArray:
    """Planes (K, down, across) through 3x3 filters (N, K, 3, 3) and rectifiers."""
    _, *shape = planes.shape
    neighbors = workspace[: len(planes)]
    gather_neighbors(planes, neighbors)
    sums: FloatArray = filters.reshape(len(filters), -1) @ neighbors.reshape(filters[0].size, -1)
    sums += bias[:, None]
    return np.maximum(sums, 0, out=sums).reshape(-1, *shape)

"""How finely each block has to be quantized: a prediction, by the encoder, of what the detections depend on.

A block's sensitivity is the Fisher information of its samples (codec/feature/calibration.py). Only the back pass
through the network could tell it; a small convolutional network predicts its logarithm from the block and what is
around it.
"""

# ruff: noqa: PLR0917 - a kernel's buffers are its caller's

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import float32, float64, int8, void
from numba.types import Array
from numba.types import NamedTuple as NamedTupleType
from numpy.typing import NDArray

from codec.feature.contexts import MAX_CHANGE
from codec.feature.step_map import StepGuide
from codec.feature.step_network import HIDDEN, MEASURES, MIXED, StepNetwork
from codec.jit import inlined, kernel
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


@inlined
def _continue_edges(planes: FloatArray) -> None:
    """Fill the margin of planes (K, down + 2, across + 2) with what is next to it."""
    components, down, across = planes.shape
    for k in range(components):
        for y in range(1, down - 1):
            planes[k, y, 0] = planes[k, y, 1]
            planes[k, y, across - 1] = planes[k, y, across - 2]
        for x in range(across):
            planes[k, 0, x] = planes[k, 1, x]
            planes[k, down - 1, x] = planes[k, down - 2, x]


@inlined
def _convolve(
    planes: FloatArray, filters: FloatArray, bias: FloatArray, sums: FloatArray, convolved: FloatArray
) -> None:
    """Planes with a margin through 3x3 filters (N, K, 3, 3) and rectifiers, to N planes with a margin.

    sums (N, down (across + 2) - 2): for work. As if a plane were one line: the margin's sums are left out in the end.
    """
    span, width = sums.shape[1], planes.shape[2]
    for n in range(sums.shape[0]):
        for i in range(span):
            sums[n, i] = bias[n]
    for k in range(planes.shape[0]):
        above = planes[k].reshape(-1)
        here, below = above[width:], above[2 * width :]
        for n in range(sums.shape[0]):
            line, w = sums[n], filters[n, k]
            for i in range(span):
                line[i] += (
                    w[0, 0] * above[i] + w[0, 1] * above[i + 1] + w[0, 2] * above[i + 2]
                    + w[1, 0] * here[i] + w[1, 1] * here[i + 1] + w[1, 2] * here[i + 2]
                    + w[2, 0] * below[i] + w[2, 1] * below[i + 1] + w[2, 2] * below[i + 2]
                )  # fmt: skip
    for n in range(sums.shape[0]):
        for y in range(planes.shape[1] - 2):
            line, target = sums[n, y * width : (y + 1) * width - 2], convolved[n, y + 1, 1:]
            for x in range(line.size):
                target[x] = max(line[x], np.float32(0))
    _continue_edges(convolved)


class Workspace(NamedTuple):
    """What the network works in: planes of blocks with a margin of one block, and their sums."""

    mixed: FloatArray  # (32, down + 2, across + 2)
    wide: FloatArray  # (1, down + 2, across + 2)
    first: FloatArray  # (16, down + 2, across + 2)
    second: FloatArray  # (16, down + 2, across + 2)
    sums: FloatArray  # (16, down (across + 2) - 2)


def workspace_for(down: int, across: int) -> Workspace:
    """What the network works in for so many blocks."""
    padded = down + 2, across + 2
    return Workspace(
        mixed=np.empty((MIXED, *padded), np.float32),
        wide=np.empty((1, *padded), np.float32),
        first=np.empty((HIDDEN, *padded), np.float32),
        second=np.empty((HIDDEN, *padded), np.float32),
        sums=np.empty((HIDDEN, down * (across + 2) - 2), np.float32),
    )


_PLANES, _ROW = Array(float32, 3, "C"), Array(float32, 1, "C", readonly=True)
_FILTERS = Array(float32, 4, "C", readonly=True)
_WORKSPACE = NamedTupleType((*[_PLANES] * 4, Array(float32, 2, "C")), Workspace)


@kernel(
    void(
        Array(float32, 3, "C"), _ROW, _FILTERS, _ROW, _FILTERS, _ROW, _ROW, Array(float32, 2, "C"), _WORKSPACE
    ),
    fastmath=True,
)
def _predict(
    mixtures: FloatArray,
    mix_bias: FloatArray,
    first: FloatArray,
    first_bias: FloatArray,
    second: FloatArray,
    second_bias: FloatArray,
    output: FloatArray,
    predicted: FloatArray,
    workspace: Workspace,
) -> None:
    """Set predicted (down, across) from mixtures (34, down, across), without their bias."""
    down, across = predicted.shape
    mixed, wide = workspace.mixed, workspace.wide
    for n in range(mixed.shape[0]):
        for y in range(down):
            for x in range(across):
                mixed[n, y + 1, x + 1] = max(mixtures[n, y, x] + mix_bias[n], np.float32(0))
    of_block, of_wide = mixed.shape[0], mixed.shape[0] + 1
    for y in range(down):
        for x in range(across):
            wide[0, y + 1, x + 1] = mixtures[of_wide, y, x] + mix_bias[of_wide]
    _continue_edges(mixed)
    _continue_edges(wide)
    _convolve(mixed, first, first_bias, workspace.sums, workspace.first)
    _convolve(workspace.first, second, second_bias, workspace.sums, workspace.second)
    for y in range(down):
        for x in range(across):
            around = np.float32(0)
            for i in range(3):
                around += wide[0, y + i, x] + wide[0, y + i, x + 1] + wide[0, y + i, x + 2]
            predicted[y, x] = mixtures[of_block, y, x] + mix_bias[of_block] + around / np.float32(9)
    for n in range(output.size):
        for y in range(down):
            for x in range(across):
                predicted[y, x] += output[n] * workspace.second[n, y + 1, x + 1]


@kernel(void(Array(float32, 2, "C", readonly=True), float64, Array(int8, 1, "C")))
def _change_steps(sensitivity: FloatArray, factor: float, changes: NDArray[np.int8]) -> None:
    """Set changes (B,) to the sensitivity (down, across) times a factor, rounded and bounded; 0 where it is NaN."""
    across = sensitivity.shape[1]
    for b in range(changes.size):
        change = np.rint(np.float64(sensitivity[b // across, b % across]) * factor)
        bounded = min(max(change, np.float64(-MAX_CHANGE)), np.float64(MAX_CHANGE))
        changes[b] = np.int8(0) if np.isnan(change) else np.int8(bounded)


class StepPredictor:
    """Each block's change of step, for planes of one size."""

    def __init__(self, network: StepNetwork, offset: FloatArray, down: int, across: int) -> None:
        self._network, self._offset = network, offset
        self._measures = np.empty((len(offset), MEASURES, down * across), np.float32)
        self._by_place = self._measures.reshape(-1, down, across)
        self._lines, self._workspace = np.empty((2, 4 * across), np.float32), workspace_for(down, across)

    def changes(
        self, planes: FloatArray, step_shaping: float, guide: StepGuide | None = None
    ) -> NDArray[np.int8]:
        """(B,) in quarters of an octave, negative is finer; for planes (K, H, W) that still have their offset.

        step_shaping: 0 for equal steps, 1 as predicted. guide: what a detector says of it, if it does.
        """
        measure(planes, self._offset, self._measures, self._lines)
        with np.errstate(over="ignore", invalid="ignore"):  # finite frames may overflow: any step then serves
            sensitivity = predict_sensitivity(self._network, self._by_place, self._workspace)
            if guide:
                sensitivity = guide.mix(sensitivity)
        changes = np.empty(sensitivity.size, np.int8)
        # Steps as the inverse square root of the sensitivity: every block then costs the detections as much.
        _change_steps(sensitivity, -step_shaping / 2 * 4 / math.log(2), changes)
        return changes


def predict_sensitivity(network: StepNetwork, measures: FloatArray, workspace: Workspace) -> FloatArray:
    """Log sensitivity (down, across) from measures (3 K, down, across), in `workspace_for` these blocks."""
    _, *shape = measures.shape
    mixtures = network.mix @ measures.reshape(len(measures), -1)
    predicted: FloatArray = np.empty(shape, np.float32)
    _predict(
        mixtures.reshape(-1, *shape), network.mix_bias, network.first, network.first_bias, network.second,
        network.second_bias, network.output, predicted, workspace,
    )  # fmt: skip
    return predicted

"""The 4x4 block DCT of the feature codec, its rotation, its quantizer, and their exact inverse (docs/bitstream.md).

The forward transform is the encoder's own affair and computes in float32. The inverse is integer arithmetic:
both ends hold the same reference frame, bit for bit, for ever.
"""

# ruff: noqa: PLR0912, PLR0917 - a kernel's buffers are its caller's, and a call costs more than a line

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numba import boolean, float32, int8, int16, int32, int64, void
from numba.types import Array
from numpy.typing import NDArray

from codec.feature.rotation import MOST_ROTATED, ROTATION_UNIT, Rotation
from codec.jit import Ints, inlined, kernel
from codec.layout import FloatArray

Levels: TypeAlias = NDArray[np.int16]
Lasts: TypeAlias = NDArray[np.int8]

# 1/2, and sqrt(1/2) cos(pi/8), sqrt(1/2) sin(pi/8): the orthonormal DCT's factors, and in 1/1024 for the inverse.
_HALF, _FAR, _NEAR = np.float32(0.5), np.float32(0.6532814824381883), np.float32(0.27059805007309849)
_HALF_1024, _FAR_1024, _NEAR_1024 = np.int32(512), np.int32(669), np.int32(277)
_BASIS_1024 = np.array(  # a line of samples each
    [
        [_HALF_1024, _FAR_1024, _HALF_1024, _NEAR_1024],
        [_HALF_1024, _NEAR_1024, -_HALF_1024, -_FAR_1024],
        [_HALF_1024, -_NEAR_1024, -_HALF_1024, _FAR_1024],
        [_HALF_1024, -_FAR_1024, _HALF_1024, -_NEAR_1024],
    ]
)
_LIMIT = np.int32(2**17)  # magnitude of a coefficient of samples of 16 bits

# Place in zigzag order of each (vertical, horizontal) frequency.
_PLACE = np.array([0, 1, 5, 6, 2, 4, 7, 12, 3, 8, 11, 13, 9, 10, 14, 15], np.int64)

FINEST, COARSEST = 32, 240  # of a block's step
STEPS: NDArray[np.int32] = np.round(2.0 ** (np.arange(COARSEST + 1) / 16)).astype(np.int32)
"""Width of step s in units of the transformed samples: 2**(s/16), rounded."""

LAMBDA = 0.02
"""What a bit is worth, in squared steps: larger values save bits by losing weak objects."""


def block_steps(frame_step: int, changes: NDArray[np.int8]) -> NDArray[np.int32]:
    """Each block's step from the frame's and the block's change, in quarters of an octave."""
    steps: NDArray[np.int32] = frame_step + 4 * changes.astype(np.int32)
    return np.clip(steps, FINEST, COARSEST)


@kernel(void(int64, Array(int8, 1, "C", readonly=True), Array(int32, 1, "C"), Array(int32, 1, "C")))
def set_steps(frame_step: int, changes: NDArray[np.int8], steps: Ints, deltas: Ints) -> None:
    """Set `block_steps` and the width of each, all (B,)."""
    for b in range(steps.size):
        own = min(max(frame_step + 4 * int(changes[b]), FINEST), COARSEST)
        steps[b] = own
        deltas[b] = STEPS[own]


def rounding(
    prior: NDArray[np.uint16] | NDArray[np.int32], frame_step: int, weight: float = LAMBDA
) -> FloatArray:
    """What is added to each coefficient's magnitude in steps, (K, 16), before its fraction is cut off.

    Rounds down where a level that is rarely more than zero costs more bits than the error is worth.
    """
    bits = -np.log2(np.clip(prior / STEPS[frame_step], 1e-3, 0.5))
    added: FloatArray = np.clip(0.5 - weight * bits / 2, 0.3, 0.5).astype(np.float32)
    return added


@kernel(
    void(
        Array(float32, 3, "C", readonly=True),
        Array(int16, 3, "C", readonly=True),
        Array(float32, 1, "C", readonly=True),
        Array(float32, 2, "C"),
        Array(float32, 3, "C"),
    ),
    fastmath=True,
)
def _spectrum(
    samples: FloatArray,
    prediction: NDArray[np.int16],
    offset: FloatArray,
    rows: FloatArray,
    coefficients: FloatArray,
) -> None:
    """Coefficients (16, K, B) of the difference between samples (K, H, W), less `offset` (K,), and prediction.

    `coefficients` may have room for more components, which stay as they are.
    """
    components, height, width = samples.shape
    blocks = (height // 4) * (width // 4)
    for k in range(components):
        bias = offset[k]
        for y in range(height // 4):
            at = y * width
            for x in range(width):
                a = samples[k, 4 * y, x] - bias - prediction[k, 4 * y, x]
                b = samples[k, 4 * y + 1, x] - bias - prediction[k, 4 * y + 1, x]
                c = samples[k, 4 * y + 2, x] - bias - prediction[k, 4 * y + 2, x]
                d = samples[k, 4 * y + 3, x] - bias - prediction[k, 4 * y + 3, x]
                rows[0, at + x] = _HALF * (a + b + c + d)
                rows[1, at + x] = _FAR * (a - d) + _NEAR * (b - c)
                rows[2, at + x] = _HALF * (a - b - c + d)
                rows[3, at + x] = _NEAR * (a - d) - _FAR * (b - c)
        for v in range(4):
            first, second = coefficients[_PLACE[4 * v], k], coefficients[_PLACE[4 * v + 1], k]
            third, fourth = coefficients[_PLACE[4 * v + 2], k], coefficients[_PLACE[4 * v + 3], k]
            for i in range(blocks):
                a = rows[v, 4 * i]
                b = rows[v, 4 * i + 1]
                c = rows[v, 4 * i + 2]
                d = rows[v, 4 * i + 3]
                first[i] = _HALF * (a + b + c + d)
                second[i] = _FAR * (a - d) + _NEAR * (b - c)
                third[i] = _HALF * (a - b - c + d)
                fourth[i] = _NEAR * (a - d) - _FAR * (b - c)


@kernel(
    void(
        Array(float32, 3, "C", readonly=True),
        Array(float32, 3, "C", readonly=True),
        Array(float32, 1, "C", readonly=True),
        Array(float32, 2, "C"),
        Array(float32, 1, "C", readonly=True),
        Array(int16, 3, "C"),
        Array(int8, 2, "C"),
    ),
    fastmath=True,
)
def _quantize(
    coefficients: FloatArray,
    rotated: FloatArray,
    inverse_deltas: FloatArray,
    rounding: FloatArray,
    held_back: FloatArray,
    levels: Levels,
    lasts: Lasts,
) -> None:
    """Levels (K, 16, B) of coefficients (16, K or more, B), of which the first were rotated to (16, R, B).

    `ForwardTransform.quantize` tells of the rest.
    """
    components, _, blocks = levels.shape
    first = rotated.shape[1]
    for k in range(components):
        for i in range(blocks):
            lasts[k, i] = -1
        for f in range(16):
            add = rounding[k, f]
            place = np.int8(f)
            line = rotated[f, k] if k < first else coefficients[f, k]
            for i in range(blocks):
                z = line[i] * inverse_deltas[i]
                magnitude = np.int32(min(abs(z) + add - held_back[i], np.float32(32767)))
                levels[k, f, i] = np.int16(-magnitude if z < 0 else magnitude)
                lasts[k, i] = place if magnitude != 0 else lasts[k, i]


class ForwardTransform:
    """From samples of a frame to levels, for planes of one size."""

    def __init__(self, rotation: Rotation, components: int, height: int, width: int) -> None:
        blocks = (height // 4) * (width // 4)
        # So many components at once as are rotated: what they are transformed to stays in a processor's cache.
        self._coefficients = np.empty((16, min(components, MOST_ROTATED), blocks), np.float32)
        self._rotated = np.empty((16, rotation.shape[1], blocks), np.float32)
        self._rows = np.empty((4, 4 * blocks), np.float32)
        self.use(rotation)

    def use(self, rotation: Rotation) -> None:
        """Rotate from now on by this, which is as large as before."""
        # What undoes the rounded rotation exactly, and not its transpose, which nearly does.
        self._rotation = np.linalg.inv(rotation.transpose(0, 2, 1) / ROTATION_UNIT).astype(np.float32)

    def quantize(
        self,
        samples: FloatArray,
        prediction: NDArray[np.int16],
        offset: FloatArray,
        deltas: Ints,
        rounding: FloatArray,
        held_back: FloatArray,
        levels: Levels,
        lasts: Lasts,
    ) -> None:
        """Set levels (K, 16, B) and lasts (K, B) to those of the difference between samples (K, H, W) and prediction.

        A sample is `samples` less `offset` (K,). deltas (B,): width of each block's step. rounding (K, 16): what is
        added to a magnitude, in steps, before its fraction is cut off. held_back (B,), 0 to .3: what is taken off it in
        each block.
        """
        inverse_deltas = (1 / deltas).astype(np.float32)
        for first in range(0, len(samples), MOST_ROTATED):
            own = slice(first, first + MOST_ROTATED)
            _spectrum(samples[own], prediction[own], offset[own], self._rows, self._coefficients)
            rotated = self._rotated if first == 0 else self._rotated[:, :0]
            if rotated.size:
                np.matmul(self._rotation, self._coefficients[:, : rotated.shape[1]], out=rotated)
            _quantize(
                self._coefficients, rotated, inverse_deltas, rounding[own], held_back,
                levels[own], lasts[own],
            )  # fmt: skip


@kernel(
    int32(Array(int16, 3, "C", readonly=True), Array(int8, 2, "C", readonly=True), Array(float32, 3, "C"))
)
def gather_rotated(levels: Levels, lasts: Lasts, gathered: FloatArray) -> np.int32:
    """Fill (16, R, B) with the levels of the components that are rotated; returns the greatest magnitude."""
    _, components, blocks = gathered.shape
    greatest = np.int32(0)
    for k in range(components):
        empty = True
        for i in range(blocks):
            if lasts[k, i] >= 0:
                empty = False
                break
        for f in range(16):
            line = gathered[f, k]
            if empty:  # whose levels may be anything
                line[:] = np.float32(0)
                continue
            for i in range(blocks):
                level = np.int32(levels[k, f, i])
                greatest = max(greatest, np.int32(abs(level)))
                line[i] = np.float32(level)
    return greatest


@inlined
def _rounded(a: np.int32, b: np.int32) -> np.int32:
    return np.int32(np.int32(np.int32(a + b) + np.int32(512)) >> np.int32(10))


@inlined
def _inverse_row(
    a: np.int32, b: np.int32, c: np.int32, d: np.int32
) -> tuple[np.int32, np.int32, np.int32, np.int32]:
    """Four samples of four coefficients."""
    even, odd = np.int32(_HALF_1024 * np.int32(a + c)), np.int32(_HALF_1024 * np.int32(a - c))
    far = np.int32(np.int32(_FAR_1024 * b) + np.int32(_NEAR_1024 * d))
    near = np.int32(np.int32(_NEAR_1024 * b) - np.int32(_FAR_1024 * d))
    return _rounded(even, far), _rounded(odd, near), _rounded(odd, -near), _rounded(even, -far)


@inlined
def _saturated(sample: np.int16, difference: np.int32) -> np.int16:
    total = np.int32(np.int32(sample) + difference)
    return np.int16(min(max(total, np.int32(-32768)), np.int32(32767)))


@kernel(
    void(
        Array(int16, 3, "C", readonly=True),
        Array(int8, 2, "C", readonly=True),
        Array(int32, 1, "C", readonly=True),
        Array(int32, 3, "C", readonly=True),
        boolean,
        Array(int16, 3, "C"),
        Array(int32, 2, "C"),
        Array(int32, 2, "C"),
        Array(int32, 1, "C"),
    )
)
def add_inverse(
    levels: Levels,
    lasts: Lasts,
    deltas: Ints,
    turned: Ints,
    exact: bool,
    samples: NDArray[np.int16],
    rows: Ints,
    coefficients: Ints,
    limits: Ints,
) -> None:
    """Add the difference that levels (K, 16, B) stand for to samples (K, H, W), saturating.

    `turned` (16, R, B) is what the rotation makes of the first components' levels, in 1/1024: if that is exact in
    binary32, the bits of it. `rows` (4, 4 B), `coefficients` (16, B) and `limits` (B,) are for work.
    """
    components, height, width = samples.shape
    blocks = (height // 4) * (width // 4)
    rotated = turned.shape[1]
    some_rotated = False
    for k in range(rotated):
        for i in range(blocks):
            some_rotated |= lasts[k, i] >= 0
    for i in range(blocks):
        # Within it a product with the step has 32 bits; beyond it is beyond the limit of a coefficient.
        limits[i] = np.int32(np.int32(_LIMIT * np.int32(1024)) // deltas[i]) + np.int32(1)
    for k in range(components):
        if k < rotated:
            if not some_rotated:
                continue
            for f in range(16):
                own, line = coefficients[f], turned[f, k]
                if exact:
                    for i in range(blocks):
                        own[i] = np.int32(np.int32(line[i]).view(np.float32))
                else:
                    for i in range(blocks):
                        own[i] = line[i]
                for i in range(blocks):
                    value = min(max(own[i], np.int32(-limits[i])), limits[i])
                    value = np.int32(np.int32(np.int32(value * deltas[i]) + np.int32(512)) >> np.int32(10))
                    own[i] = min(max(value, np.int32(-_LIMIT)), _LIMIT)
        else:
            empty = True
            for i in range(blocks):
                if lasts[k, i] >= 0:
                    empty = False
                    break
            if empty:
                continue
            for f in range(16):
                for i in range(blocks):
                    # In 32 bits throughout, here and below, so that vector instructions can do it.
                    coefficient = np.int32(np.int32(levels[k, f, i]) * deltas[i])
                    coefficients[f, i] = min(max(coefficient, -_LIMIT), _LIMIT)
        for v in range(4):
            for i in range(blocks):
                rows[v, 4 * i], rows[v, 4 * i + 1], rows[v, 4 * i + 2], rows[v, 4 * i + 3] = _inverse_row(
                    coefficients[_PLACE[4 * v], i],
                    coefficients[_PLACE[4 * v + 1], i],
                    coefficients[_PLACE[4 * v + 2], i],
                    coefficients[_PLACE[4 * v + 3], i],
                )
        # One line after the other: with four at once the compiler no longer sees that they are different memory.
        for y in range(height):
            at = y // 4 * width
            line = samples[k, y]
            first, second = rows[0, at : at + width], rows[1, at : at + width]
            third, fourth = rows[2, at : at + width], rows[3, at : at + width]
            a, b, c, d = _BASIS_1024[y & 3]
            for x in range(line.size):
                total = np.int32(np.int32(a * first[x]) + np.int32(b * second[x]))
                total = np.int32(total + np.int32(np.int32(c * third[x]) + np.int32(d * fourth[x])))
                line[x] = _saturated(line[x], np.int32(np.int32(total + np.int32(512)) >> np.int32(10)))


EXACT_LEVEL = 2**11 - 1
"""Magnitudes up to this, times a rotation, add up to less than 2**24: exact in binary32, in whatever order."""


class InverseTransform:
    """From levels back to samples, for planes of one size: exact."""

    def __init__(self, rotation: Rotation, height: int, width: int) -> None:
        blocks = (height // 4) * (width // 4)
        self._back = np.ascontiguousarray(rotation.transpose(0, 2, 1), np.float32)
        self._gathered = np.empty((16, rotation.shape[1], blocks), np.float32)
        self._product = np.empty_like(self._gathered)
        self._turned = self._product.view(np.int32)
        self._rows = np.empty((4, 4 * blocks), np.int32)
        self._coefficients = np.empty((16, blocks), np.int32)
        self._limits = np.empty(blocks, np.int32)

    def add(self, levels: Levels, lasts: Lasts, deltas: Ints, samples: NDArray[np.int16]) -> None:
        """Add the difference that levels (K, 16, B) stand for to samples (K, H, W), saturating.

        lasts (K, B): -1 throughout a component without levels, whose `levels` are not looked at. deltas (B,): width
        of each block's step.
        """
        greatest = gather_rotated(levels, lasts, self._gathered)
        exact = bool(greatest <= EXACT_LEVEL)
        if not exact:
            self._turned[:] = self._back.astype(np.float64) @ self._gathered.astype(np.float64)
        elif greatest:
            np.matmul(self._back, self._gathered, out=self._product)
        add_inverse(
            levels, lasts, deltas, self._turned, exact, samples, self._rows, self._coefficients, self._limits
        )


def forward_reference(planes: FloatArray) -> FloatArray:
    """Coefficients (K, 16, B) of planes (K, H, W), in numpy: for statistics, where speed is no matter."""
    basis = np.array(
        [
            [_HALF] * 4,
            [_FAR, _NEAR, -_NEAR, -_FAR],
            [_HALF, -_HALF, -_HALF, _HALF],
            [_NEAR, -_FAR, _FAR, -_NEAR],
        ]
    )
    components, height, width = planes.shape
    blocks = planes.reshape(components, height // 4, 4, width // 4, 4)
    spectrum = np.einsum("vi,kyixj,uj->kvuyx", basis, blocks, basis, optimize=True)
    spectrum = spectrum.reshape(components, 16, -1)
    coefficients: FloatArray = np.empty_like(spectrum)
    coefficients[:, _PLACE] = spectrum
    return coefficients


def rotated_spectrum(rotation: Rotation, planes: FloatArray, offset: FloatArray) -> FloatArray:
    """Coefficients (K, 16, B) of planes (K, H, W) less their offset (K,), the first rotated: in numpy too."""
    coefficients = forward_reference(planes - offset[:, None, None])
    rotated = coefficients[: rotation.shape[1]]
    rotated[:] = np.einsum("fkj,jfb->kfb", rotation / ROTATION_UNIT, rotated)
    return coefficients

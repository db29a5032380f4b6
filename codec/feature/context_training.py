"""What the contexts of the feature codec learn from a calibration's pictures: their weights, and where they start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from codec.feature import transform
from codec.feature.alphabets import SYMBOLS, cumulative_shares
from codec.feature.contexts import (
    ALPHABETS,
    BLOCK,
    BLOCK_WEIGHTS,
    CLASSES,
    COEFFICIENT_WEIGHTS,
    END,
    FIRST,
    LAST,
    OTHER,
    PLANE,
    PREVIOUS_BLOCK,
    PREVIOUS_LEVEL,
    PROFILED,
    SIGN,
    ZIGZAG,
    default_distributions,
)
from codec.feature.expectation import SHOWN_WEIGHT, UNSEEN
from codec.feature.profile import MAX_WEIGHT, GroupProfile
from codec.feature.step_prediction import StepPredictor
from codec.layout import FloatArray

TRAINING_STEPS = (140, 156, 172)  # what the contexts are trained for: the middle of the range of qualities
TRAINING_STEP_SHAPING = 1.25

Array64: TypeAlias = NDArray[np.float64]
Planes = TypeVar("Planes", NDArray[np.float64], NDArray[np.int64])  # of blocks: the last two axes

_BANDS = [min(u + v, 6) for u, v in ZIGZAG]  # frequencies with weights in common


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedPicture:
    """The levels of one picture at one step, K components of B blocks, `across` a row."""

    levels: NDArray[np.int16]  # (K, 16, B)
    lasts: NDArray[np.int8]  # (K, B): place of the last level that is not zero, -1 if there is none
    steps: NDArray[np.int32]  # (B,)
    deltas: NDArray[np.int32]  # (B,): widths of the steps
    across: int
    frame_step: int


def train_contexts(group: GroupProfile, pictures: list[FloatArray], offset: FloatArray) -> GroupProfile:
    """The group with the weights of its contexts fitted to pictures, and their bits and symbols counted.

    A picture is (K, H, W), samples of the transform that still have their offset (K,).
    """
    quantized = [
        _quantize(group, planes, offset, step + int(group.step_offset[0]))
        for planes, step in product(pictures, TRAINING_STEPS)
    ]
    weights, block_weights = _fit(group, quantized)
    temporal, temporal_blocks = weights.copy(), block_weights.copy()
    temporal[4] = PREVIOUS_LEVEL
    temporal_blocks[5] = PREVIOUS_BLOCK
    group = replace(
        group, weights=np.stack((weights, temporal)), block_weights=np.stack((block_weights, temporal_blocks))
    )
    probabilities, distributions = _starts(group, quantized)
    return replace(group, probabilities=probabilities, distributions=distributions)


def _quantize(
    group: GroupProfile, planes: FloatArray, offset: FloatArray, frame_step: int
) -> QuantizedPicture:
    components, height, width = planes.shape
    down, across = height // 4, width // 4
    changes = StepPredictor(group.step_network, offset, down, across).changes(planes, TRAINING_STEP_SHAPING)
    steps = transform.block_steps(frame_step, changes)
    deltas = transform.STEPS[steps]
    levels = np.zeros((components, 16, down * across), np.int16)
    lasts = np.zeros((components, down * across), np.int8)
    transform.ForwardTransform(group.rotation, components, height, width).quantize(
        planes, np.zeros(planes.shape, np.int16), offset, deltas,
        transform.rounding(group.prior, frame_step), np.zeros(down * across, np.float32), levels, lasts,
    )  # fmt: skip
    return QuantizedPicture(levels, lasts, steps, deltas, across, frame_step)


def count_contexts(
    group: GroupProfile, picture: QuantizedPicture
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How often each bit (PROFILED, 2) and each symbol (ALPHABETS, 16) is met in the levels of a picture's keyframe.

    That is what `encode_levels` of all blocks would code, with weights of keyframes.
    """
    bits = np.zeros((PROFILED, 2), np.int64)
    symbols = np.zeros((ALPHABETS, SYMBOLS), np.int64)
    priors = group.prior.astype(np.int64)
    magnitudes = _magnitudes(picture).astype(np.int64)
    components, _, *plane = magnitudes.shape
    steps = picture.steps.reshape(plane)
    lasts = picture.lasts.reshape(components, *plane).astype(np.int64)
    levels = picture.levels.reshape(magnitudes.shape).astype(np.int64)

    has_levels = lasts >= 0
    is_empty = np.logical_not(has_levels.any((1, 2)))
    _add(bits, PLANE + _classes(priors.sum(1) << 4, picture.frame_step), is_empty)

    class_steps = _shown_steps(group, magnitudes, steps, is_empty)
    contexts = _block_contexts(group, magnitudes, class_steps)
    _add(bits, BLOCK + contexts[~is_empty], has_levels[~is_empty])
    _add(symbols, LAST + contexts[has_levels], lasts[has_levels])

    places = np.arange(16)[:, None, None]
    is_last, is_coded = lasts[:, None] == places, lasts[:, None] >= places
    alphabets = np.where(is_last, END, np.where(places == 0, FIRST, OTHER))
    alphabets += _level_contexts(group, magnitudes, class_steps[:, None])
    sizes = np.minimum(np.abs(levels) - is_last, SYMBOLS - 1)
    _add(symbols, alphabets[is_coded], sizes[is_coded])

    signs: NDArray[np.int64] = np.sign(levels[:, 0])
    contexts = SIGN + 2 + _neighbors(signs)[0]
    _add(bits, contexts[signs != 0], signs[signs != 0] < 0)
    return bits, symbols


def _add(
    counts: NDArray[np.int64], contexts: NDArray[np.int64], values: NDArray[np.int64] | NDArray[np.bool_]
) -> None:
    np.add.at(counts, (contexts, values.astype(np.int64)), 1)


def _shown_steps(
    group: GroupProfile, magnitudes: NDArray[np.int64], steps: NDArray[np.int32], is_empty: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Steps that the classes of each block are taken by (K, down, across), by `shown_step`."""
    class_steps = np.empty((len(magnitudes), *steps.shape), np.int64)
    sums = np.minimum(magnitudes.sum(1), 65535)
    logs = np.where(sums > 0, _logs(sums), steps - UNSEEN)
    prior_logs = _logs(group.prior.sum(1, dtype=np.int64))
    shown = np.zeros(steps.shape, np.int64)
    for k in range(len(magnitudes)):
        class_steps[k] = steps - (SHOWN_WEIGHT * shown >> 8)
        if not is_empty[k]:
            shown += (16 * (logs[k] - prior_logs[k]) - shown) >> 3
    return class_steps


def _block_contexts(
    group: GroupProfile, magnitudes: NDArray[np.int64], steps: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Class of each block's magnitudes (K, down, across), by `expected_block`."""
    block_sums = np.minimum(magnitudes.sum(1), 65535)
    left, corner = _neighbors(block_sums)
    around = _shifted(_right_and_below(block_sums))
    prior = np.broadcast_to(group.prior.sum(1, dtype=np.int64)[:, None, None], block_sums.shape)
    neighbors = np.stack((prior, left, corner, _shifted(block_sums), around))
    weights = group.block_weights[0, : len(neighbors)].astype(np.int64)
    return _classes(np.tensordot(weights, neighbors, 1) >> 4, steps)


def _level_contexts(
    group: GroupProfile, magnitudes: NDArray[np.int64], steps: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Class of each level (K, 16, down, across), as by `classify_levels`."""
    left, corner = _neighbors(magnitudes)
    weights = group.weights[0].astype(np.int64)[:, :, None, None]
    prior = group.prior.astype(np.int64)[:, :, None, None]
    expected = (
        weights[0] * prior + weights[1] * left + weights[2] * corner + weights[3] * _shifted(magnitudes)
    )
    return _classes(expected, steps)


def _classes(expected: NDArray[np.int64], steps: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """As `magnitude_class`, of arrays."""
    classes: NDArray[np.int64] = np.clip((_logs(expected) - 16 - steps) >> 2, 0, CLASSES - 1)
    return classes


def _logs(magnitudes: NDArray[np.int64]) -> NDArray[np.int64]:
    """As `magnitude_log`, of arrays."""
    bounded = np.clip(magnitudes, 1, (1 << 24) - 1).astype(np.float32)
    return (bounded.view(np.int32).astype(np.int64) >> 19) - 2032


def _starts(
    group: GroupProfile, quantized: list[QuantizedPicture]
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Where each binary context and each alphabet should start."""
    counts = [count_contexts(group, picture) for picture in quantized]
    bits = np.sum([of_picture for of_picture, _ in counts], 0)
    symbols = np.sum([of_picture for _, of_picture in counts], 0)
    shares = (bits[:, 0] + 0.4) / (bits.sum(1) + 0.8)
    probabilities = np.clip(np.round(shares * 32768), 32, 32736).astype(np.uint16)
    # A class hardly met borrows from those beside it.
    by_class = symbols.reshape(-1, CLASSES, SYMBOLS).astype(np.float64)
    padded = np.pad(by_class, ((0, 0), (1, 1), (0, 0)), mode="edge")
    smooth = by_class + 0.02 * (padded[:, :-2] + padded[:, 2:])
    usual = np.diff(default_distributions().astype(np.float64), axis=1, append=32768) / 32768
    return probabilities, cumulative_shares(smooth.reshape(-1, SYMBOLS) + 4 * usual)


def _fit(
    group: GroupProfile, quantized: list[QuantizedPicture]
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Weights of a level's and of a block's neighbors that tell its magnitude best."""
    by_band: dict[int, list[tuple[Array64, Array64]]] = {band: [] for band in set(_BANDS)}
    of_blocks: list[tuple[Array64, Array64]] = []
    for frame in quantized[:: max(1, len(quantized) // 24)]:
        magnitudes = _magnitudes(frame)
        deltas = frame.deltas.reshape(magnitudes.shape[2:])
        block_sums = magnitudes.sum(1)
        left, corner = _neighbors(block_sums)
        before = _shifted(block_sums)
        around = _shifted(_right_and_below(block_sums))
        prior = np.broadcast_to(group.prior.sum(1, dtype=np.float64)[:, None, None], block_sums.shape)
        of_blocks.append(
            _rows((prior, left, corner, before, around), block_sums, deltas, block_sums >= 0, 16)
        )
        lasts = frame.lasts.reshape(block_sums.shape)
        left, corner = _neighbors(magnitudes)
        before = _shifted(magnitudes)
        for f in range(16):
            prior = np.broadcast_to(group.prior[:, f, None, None].astype(np.float64), block_sums.shape)
            rows = (prior, left[:, f], corner[:, f], before[:, f])
            by_band[_BANDS[f]].append(_rows(rows, magnitudes[:, f], deltas, lasts >= f, 1))
    block_weights = np.zeros(BLOCK_WEIGHTS, np.uint16)
    block_weights[:5] = _regress(of_blocks)
    weights = np.zeros((COEFFICIENT_WEIGHTS, 16), np.uint16)
    fitted = {band: _regress(rows) for band, rows in by_band.items()}
    for f, band in enumerate(_BANDS):
        weights[:4, f] = fitted[band]
    return weights, block_weights


def _magnitudes(picture: QuantizedPicture) -> Array64:
    """(K, 16, down, across)."""
    magnitudes = np.abs(picture.levels.astype(np.float64)) * picture.deltas
    components, _, blocks = picture.levels.shape
    return np.minimum(magnitudes, 65535).reshape(components, 16, blocks // picture.across, picture.across)


def _neighbors(planes: Planes) -> tuple[Planes, Planes]:
    """Sum of left and upper neighbors, and of the two upper corners; 0 outside."""
    padded = np.pad(planes, [(0, 0)] * (planes.ndim - 2) + [(1, 0), (1, 1)])
    return padded[..., 1:, :-2] + padded[..., :-1, 1:-1], padded[..., :-1, :-2] + padded[..., :-1, 2:]


def _right_and_below(planes: Planes) -> Planes:
    padded = np.pad(planes, [(0, 0), (0, 1), (0, 1)])
    return np.asarray(padded[:, :-1, 1:] + padded[:, 1:, :-1])


def _shifted(planes: Planes) -> Planes:
    """The component before."""
    return np.concatenate((np.zeros_like(planes[:1]), planes[:-1]))


def _rows(
    read: Sequence[Array64], target: Array64, deltas: NDArray[np.int32], chosen: NDArray[np.bool_], unit: int
) -> tuple[Array64, Array64]:
    """Chosen places as columns of what is read, and their targets, both in steps; at most some thousands."""
    places = np.flatnonzero(chosen)
    places = places[:: max(1, len(places) // 4000)]
    scale = np.broadcast_to(deltas * unit, target.shape).reshape(-1)[places]
    return (
        np.stack([np.broadcast_to(values, target.shape).reshape(-1)[places] / scale for values in read]),
        target.reshape(-1)[places] / scale,
    )


def _regress(rows: Sequence[tuple[Array64, Array64]], rounds: int = 200) -> NDArray[np.uint16]:
    """Weights, in 1/256 and not negative, that make a geometric distribution's mean likeliest.

    Multiplicative updates: each weight is scaled by the ratio of the two parts of the likelihood's slope.
    """
    read = np.concatenate([columns for columns, _ in rows], 1) + 1e-6
    target = np.concatenate([targets for _, targets in rows])
    weights = np.full(len(read), 0.1)
    for _ in range(rounds):
        mean = weights @ read + 1e-3
        up, down = read @ (target / (mean * (1 + mean))), read @ (1 / (1 + mean))
        weights *= up / np.maximum(down, 1e-12)
    return np.clip(np.round(weights * 256), 0, MAX_WEIGHT).astype(np.uint16)

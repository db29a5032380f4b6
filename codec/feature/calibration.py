"""Statistics of the tensors that cross a split, gathered into the profile that both ends of the feature codec share.

The transform is a Karhunen-Loeve transform in the metric of the Fisher information of the detections: a component's
unit is a change that the detections notice as much as that of any other, so one step serves all components.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from codec.errors import CalibrationError
from codec.feature import entropy, transform
from codec.feature.entropy import (
    ALPHABETS,
    BLOCK_WEIGHTS,
    CLASSES,
    COEFFICIENT_WEIGHTS,
    CONTEXTS,
    SYMBOLS,
    ZIGZAG,
)
from codec.feature.profile import (
    MAX_MAGNITUDE,
    MAX_WEIGHT,
    GroupProfile,
    Metadata,
    Profile,
    check_size,
    grouped,
    stack,
)
from codec.feature.step_prediction import MEASURES, StepNetwork, StepPredictor, measure
from codec.layout import FloatArray, Layout, TensorSpec

MIN_SAMPLES = 16
UNIT = 2.0**-15
"""Change of the detections, in standard deviations of their logits, that a step of one unit stands for."""

LARGEST = 28_000.0  # of the transformed samples of all pictures; 32767 saturates
LEAST_SENSITIVITY = 1e-9  # of a block: keeps its logarithm finite
FLOOR = 1e-3  # least eigenvalue of the Fisher information, as a share of the greatest
TRAINING_PICTURES = 32
TRAINING_STEPS = (140, 156, 172)  # what the contexts are trained for: the middle of the range of qualities

Array64: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One picture: what crosses the split, and random samples of how much the detections change with it."""

    tensors: Mapping[str, FloatArray]  # by name: float32 (C, h, w)
    gradients: Sequence[Mapping[str, FloatArray]]  # one per draw: names and shapes of the tensors


@dataclass(frozen=True, slots=True, eq=False)
class SensitivityExample:
    """How sensitive the detections are to each block of one picture, and what an encoder sees of it."""

    measures: FloatArray  # (3 K, down, across), of the components: codec/feature/step_prediction.py
    log_sensitivity: FloatArray  # (down, across)


Trainer: TypeAlias = Callable[[Sequence[SensitivityExample], int], StepNetwork]
"""Fits the network that foresees sensitivities, from examples and a seed."""


def calibrate(
    samples: Callable[[], Iterable[Sample]],
    train: Trainer,
    metadata: Metadata,
    seed: int = 0,
    variants: Iterable[Sample] = (),
) -> Profile:
    """The profile for tensors like those of the samples, each call of which has to yield the same ones again.

    They are gone through twice. `variants`, scaled or mirrored pictures, only teach `train` what is sensitive.
    Raises CalibrationError: fewer than 16 samples, samples without gradients, of
    different tensors, not finite, or larger than a profile's numbers; ProfileError, at the first sample, where the
    tensors have more channels than a profile holds.
    """
    first = _gather(samples())
    groups = [_Transformed(moments, seed) for moments in first]
    channels = [moments.channels for moments in first]
    for stacked in _checked(samples(), channels):
        for group, (tensors, gradients) in zip(groups, stacked, strict=True):
            group.add(tensors, gradients)
    for stacked in _checked(variants, channels):
        for group, (tensors, gradients) in zip(groups, stacked, strict=True):
            group.learn_sensitivity(tensors, gradients)
    # One scale for all groups: a frame's step then weighs as much in each.
    shrunk = max(group.shrunk for group in groups)
    return Profile(tuple(group.profile(train, shrunk) for group in groups), metadata)


def _layout(sample: Sample) -> Layout:
    return tuple(TensorSpec(name, tensor.shape) for name, tensor in sample.tensors.items())


_Stacked: TypeAlias = list[tuple[FloatArray, list[FloatArray]]]


def _checked(samples: Iterable[Sample], channels: list[int]) -> Iterator[_Stacked]:
    for sample in samples:
        if not sample.gradients:
            raise CalibrationError("a sample has no gradients")
        stacked = []
        for specs in grouped(_layout(sample)):
            tensors = stack(sample.tensors, specs)
            gradients = [stack(gradient, specs) for gradient in sample.gradients]
            # False for NaN too
            if not all(np.abs(array).max() <= MAX_MAGNITUDE for array in (tensors, *gradients)):
                raise CalibrationError(f"a sample holds NaN, or a value beyond {MAX_MAGNITUDE:.0e}")
            stacked.append((tensors, gradients))
        if channels and [len(tensors) for tensors, _ in stacked] != channels:
            raise CalibrationError(
                f"samples have groups of {channels} and of {[len(tensors) for tensors, _ in stacked]} channels"
            )
        yield stacked


class _Moments:
    """First and second moments of a group's tensors, and the Fisher information."""

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self._sum = np.zeros(channels)
        self._squares = np.zeros((channels, channels))
        self._fisher = np.zeros((channels, channels))
        self._count = self._draws = 0

    def add(self, tensors: FloatArray, gradients: list[FloatArray]) -> None:
        values = tensors.reshape(self.channels, -1).astype(np.float64)
        self._sum += values.sum(1)
        self._squares += values @ values.T
        self._count += values.shape[1]
        for gradient in gradients:
            slopes = gradient.reshape(self.channels, -1).astype(np.float64)
            self._fisher += slopes @ slopes.T
            self._draws += slopes.shape[1]

    @property
    def mean(self) -> Array64:
        return self._sum / self._count

    def transform(self) -> tuple[Array64, Array64]:
        """The generalised Karhunen-Loeve transform and its inverse, most important component first."""
        covariance = self._squares / self._count - np.outer(self.mean, self.mean)
        information, axes = np.linalg.eigh(self._fisher / self._draws)
        if information[-1] <= 0:
            raise CalibrationError("the detections do not depend on the tensors at all")
        information = np.maximum(information, FLOOR * information[-1])
        root = (axes * np.sqrt(information)) @ axes.T
        inverse_root = (axes / np.sqrt(information)) @ axes.T
        variance, components = np.linalg.eigh(root @ covariance @ root)
        components = components[:, np.argsort(-variance, kind="stable")]
        # A component's sign means nothing; fixed, so that equal samples give equal profiles.
        components *= np.where(components[np.abs(components).argmax(0), range(self.channels)] < 0, -1, 1)
        return components.T @ root / UNIT, inverse_root @ components * UNIT


def _gather(samples: Iterable[Sample]) -> list[_Moments]:
    moments: list[_Moments] = []
    count = 0
    for stacked in _checked(samples, []):
        if not moments:
            check_size([len(tensors) for tensors, _ in stacked])
            moments = [_Moments(len(tensors)) for tensors, _ in stacked]
        if [len(tensors) for tensors, _ in stacked] != [group.channels for group in moments]:
            raise CalibrationError("the samples differ in their numbers of channels")
        for group, (tensors, gradients) in zip(moments, stacked, strict=True):
            group.add(tensors, gradients)
        count += 1
    if count < MIN_SAMPLES:
        raise CalibrationError(f"{count} samples; calibration needs {MIN_SAMPLES} or more")
    return moments


class _Transformed:
    """What is learned of a group once its transform is known."""

    def __init__(self, moments: _Moments, seed: int) -> None:
        self._forward, self._inverse = moments.transform()
        self._mean = moments.mean
        self._offset = (self._forward @ self._mean).astype(np.float32)
        self._random = np.random.default_rng(seed)
        self._magnitudes = np.zeros((moments.channels, 16))
        self._blocks = 0
        self._largest = 0.0
        self._seed = seed
        self._examples: list[SensitivityExample] = []
        self._planes: list[FloatArray] = []  # a few pictures, to train the contexts on
        self._seen = 0

    def add(self, tensors: FloatArray, gradients: list[FloatArray]) -> None:
        planes = self.learn_sensitivity(tensors, gradients)
        centred = planes - self._offset[:, None, None]
        coefficients = transform.forward_reference(centred)
        self._magnitudes += np.abs(coefficients).sum(2)
        self._blocks += coefficients.shape[2]
        self._largest = max(self._largest, float(np.abs(centred).max()))
        self._keep(planes)

    def learn_sensitivity(self, tensors: FloatArray, gradients: list[FloatArray]) -> FloatArray:
        """Remember how sensitive each block is; returns the transformed samples."""
        planes = _transformed(self._forward, tensors)
        information = sum(
            (_transformed(self._inverse.T, _pad_zeros(gradient)).astype(np.float64) ** 2).sum(0)
            for gradient in gradients
        )
        down, across = planes.shape[1] // 4, planes.shape[2] // 4
        by_block = np.asarray(information).reshape(down, 4, across, 4).sum((1, 3)) / len(gradients)
        measures = np.empty((len(planes), MEASURES, down * across), np.float32)
        measure(planes, self._offset, measures, np.empty((2, planes.shape[2]), np.float32))
        log_sensitivity = np.log(by_block + LEAST_SENSITIVITY).astype(np.float32)
        self._examples.append(SensitivityExample(measures.reshape(-1, down, across), log_sensitivity))
        return planes

    def _keep(self, planes: FloatArray) -> None:
        """Keep a random choice of the pictures, whatever their number will be."""
        self._seen += 1
        if len(self._planes) < TRAINING_PICTURES:
            self._planes.append(planes)
        elif (place := int(self._random.integers(self._seen))) < TRAINING_PICTURES:
            self._planes[place] = planes

    @property
    def shrunk(self) -> int:
        """By how many sixteenths of an octave the samples have to be smaller to fit 16 bits."""
        return round(16 * float(np.log2(max(self._largest / LARGEST, 1))))

    def profile(self, train: Trainer, shrunk: int) -> GroupProfile:
        """The group's part of the profile, its samples smaller by `shrunk` sixteenths of an octave."""
        scale = 2 ** (-shrunk / 16)
        forward = (self._forward * scale).astype(np.float32)
        group = GroupProfile(
            mean=self._mean.astype(np.float32),
            forward=forward,
            inverse=(self._inverse / scale).astype(np.float32),
            prior=np.clip(np.round(self._magnitudes / self._blocks * scale), 1, 65535).astype(np.uint16),
            weights=np.zeros((2, COEFFICIENT_WEIGHTS, 16), np.uint16),
            block_weights=np.zeros((2, BLOCK_WEIGHTS), np.uint16),
            probabilities=entropy.default_probabilities(),
            distributions=entropy.default_distributions(),
            step_network=train(self._examples, self._seed).scaled(scale),
            step_offset=np.array([-shrunk], np.int16),
        )
        return _train(
            group, [planes * np.float32(scale) for planes in self._planes], self._offset * np.float32(scale)
        )


def _transformed(matrix: Array64, tensors: FloatArray) -> FloatArray:
    padded = _pad_edge(tensors)
    planes = matrix.astype(np.float32) @ padded.reshape(len(padded), -1)
    return planes.reshape(padded.shape)


def _pad_edge(tensors: FloatArray) -> FloatArray:
    _, height, width = tensors.shape
    return np.pad(tensors, ((0, 0), (0, -height % 4), (0, -width % 4)), mode="edge")


def _pad_zeros(tensors: FloatArray) -> FloatArray:
    _, height, width = tensors.shape
    return np.pad(tensors, ((0, 0), (0, -height % 4), (0, -width % 4)))


# --- contexts ---

_BANDS = [min(u + v, 6) for u, v in ZIGZAG]  # frequencies with weights in common


@dataclass(frozen=True, slots=True, eq=False)
class _Quantized:
    """One picture at one step."""

    levels: NDArray[np.int16]
    lasts: NDArray[np.int8]
    steps: NDArray[np.int32]
    deltas: NDArray[np.int32]
    across: int
    frame_step: int


def _train(group: GroupProfile, pictures: list[FloatArray], offset: FloatArray) -> GroupProfile:
    """Fit the weights of the contexts, and count their bits."""
    quantized = [
        _quantize(group, planes, offset, step + int(group.step_offset[0]))
        for planes, step in product(pictures, TRAINING_STEPS)
    ]
    weights, block_weights = _fit(group, quantized)
    temporal, temporal_blocks = weights.copy(), block_weights.copy()
    temporal[4] = entropy.PREVIOUS_LEVEL
    temporal_blocks[5] = entropy.PREVIOUS_BLOCK
    group = replace(
        group, weights=np.stack((weights, temporal)), block_weights=np.stack((block_weights, temporal_blocks))
    )
    probabilities, distributions = _count(group, quantized)
    return replace(group, probabilities=probabilities, distributions=distributions)


def _quantize(group: GroupProfile, planes: FloatArray, offset: FloatArray, frame_step: int) -> _Quantized:
    components, height, width = planes.shape
    down, across = height // 4, width // 4
    changes = StepPredictor(group.step_network, offset, down, across).changes(planes, 1.25)
    steps = transform.block_steps(frame_step, changes)
    deltas = transform.STEPS[steps]
    levels = np.zeros((components, 16, down * across), np.int16)
    lasts = np.zeros((components, down * across), np.int8)
    transform.forward(
        planes, np.zeros(planes.shape, np.int16), offset, (1 / deltas).astype(np.float32),
        transform.rounding(group.prior, frame_step), levels, lasts,
        np.empty((4, 4 * down * across), np.float32), np.empty((16, down * across), np.float32),
    )  # fmt: skip
    return _Quantized(levels, lasts, steps, deltas, across, frame_step)


def _count(group: GroupProfile, quantized: list[_Quantized]) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Where each binary context and each alphabet should start."""
    bits = np.zeros((CONTEXTS, 2), np.int64)
    symbols = np.zeros((ALPHABETS, SYMBOLS), np.int64)
    for frame in quantized:
        components, _, blocks = frame.levels.shape
        entropy.put_levels(
            frame.levels, frame.lasts, frame.steps, frame.deltas, np.ones(blocks, np.uint8), frame.across,
            frame.frame_step, group.prior.astype(np.int32), group.weights[0].astype(np.int32),
            group.block_weights[0].astype(np.int32), np.zeros((components, blocks), np.int32),
            np.full((CONTEXTS, 2), 16384, np.uint16), entropy.default_distributions().astype(np.int16),
            np.empty(0, np.uint8), entropy.new_writer(), np.zeros((components, 16), np.int32),
            entropy.room_for(blocks, frame.across), bits, symbols, True,
        )  # fmt: skip
    shares = (bits[:, 0] + 0.4) / (bits.sum(1) + 0.8)
    probabilities = np.clip(np.round(shares * 32768), 32, 32736).astype(np.uint16)
    # A class hardly met borrows from those beside it.
    by_class = symbols.reshape(-1, CLASSES, SYMBOLS).astype(np.float64)
    padded = np.pad(by_class, ((0, 0), (1, 1), (0, 0)), mode="edge")
    smooth = by_class + 0.02 * (padded[:, :-2] + padded[:, 2:])
    usual = np.diff(entropy.default_distributions().astype(np.float64), axis=1, append=32768) / 32768
    return probabilities, entropy.cumulative_shares(smooth.reshape(-1, SYMBOLS) + 4 * usual)


def _fit(group: GroupProfile, quantized: list[_Quantized]) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Weights of a level's and of a block's neighbours that tell its magnitude best."""
    by_band: dict[int, list[tuple[Array64, Array64]]] = {band: [] for band in set(_BANDS)}
    of_blocks: list[tuple[Array64, Array64]] = []
    for frame in quantized[:: max(1, len(quantized) // 24)]:
        magnitudes = _magnitudes(frame)
        deltas = frame.deltas.reshape(magnitudes.shape[2:])
        block_sums = magnitudes.sum(1)
        left, corner = _neighbours(block_sums)
        before = _shifted(block_sums)
        around = _shifted(_right_and_below(block_sums))
        prior = np.broadcast_to(group.prior.sum(1, dtype=np.float64)[:, None, None], block_sums.shape)
        of_blocks.append(
            _rows((prior, left, corner, before, around), block_sums, deltas, block_sums >= 0, 16)
        )
        lasts = frame.lasts.reshape(block_sums.shape)
        left, corner = _neighbours(magnitudes)
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


def _magnitudes(frame: _Quantized) -> Array64:
    """(K, 16, down, across)."""
    magnitudes = np.abs(frame.levels.astype(np.float64)) * frame.deltas
    components, _, blocks = frame.levels.shape
    return np.minimum(magnitudes, 65535).reshape(components, 16, blocks // frame.across, frame.across)


def _neighbours(planes: Array64) -> tuple[Array64, Array64]:
    """Sum of left and upper neighbours, and of the two upper corners; 0 outside."""
    padded = np.pad(planes, [(0, 0)] * (planes.ndim - 2) + [(1, 0), (1, 1)])
    return padded[..., 1:, :-2] + padded[..., :-1, 1:-1], padded[..., :-1, :-2] + padded[..., :-1, 2:]


def _right_and_below(planes: Array64) -> Array64:
    padded = np.pad(planes, [(0, 0), (0, 1), (0, 1)])
    return np.asarray(padded[:, :-1, 1:] + padded[:, 1:, :-1])


def _shifted(planes: Array64) -> Array64:
    """The component before."""
    return np.concatenate((np.zeros_like(planes[:1]), planes[:-1]))


def _rows(
    read: Sequence[Array64], wanted: Array64, deltas: NDArray[np.int32], chosen: NDArray[np.bool_], unit: int
) -> tuple[Array64, Array64]:
    """Chosen places as columns of what is read, and what is wanted, both in steps; at most some thousands."""
    places = np.flatnonzero(chosen)
    places = places[:: max(1, len(places) // 4000)]
    scale = np.broadcast_to(deltas * unit, wanted.shape).reshape(-1)[places]
    return (
        np.stack([np.broadcast_to(values, wanted.shape).reshape(-1)[places] / scale for values in read]),
        wanted.reshape(-1)[places] / scale,
    )


def _regress(rows: Sequence[tuple[Array64, Array64]], rounds: int = 200) -> NDArray[np.uint16]:
    """Weights, in 1/256 and not negative, that make a geometric distribution's mean likeliest.

    Multiplicative updates: each weight is scaled by the ratio of the two parts of the likelihood's slope.
    """
    read = np.concatenate([columns for columns, _ in rows], 1) + 1e-6
    wanted = np.concatenate([targets for _, targets in rows])
    weights = np.full(len(read), 0.1)
    for _ in range(rounds):
        mean = weights @ read + 1e-3
        up, down = read @ (wanted / (mean * (1 + mean))), read @ (1 / (1 + mean))
        weights *= up / np.maximum(down, 1e-12)
    return np.clip(np.round(weights * 256), 0, MAX_WEIGHT).astype(np.uint16)

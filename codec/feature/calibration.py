"""Statistics of the tensors that cross a split, gathered into the profile that both ends of the feature codec share.

The transform is a Karhunen-Loeve transform in the metric of the Fisher information of the detections: a component's
unit is a change that the detections notice as much as that of any other, so one step serves all components.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from codec.errors import CalibrationError
from codec.feature.context_training import train_contexts
from codec.feature.contexts import (
    BLOCK_WEIGHTS,
    COEFFICIENT_WEIGHTS,
    default_distributions,
    default_probabilities,
)
from codec.feature.profile import (
    MAX_MAGNITUDE,
    GroupProfile,
    Metadata,
    Profile,
    check_size,
    grouped,
    stack,
)
from codec.feature.rotation import principal_axes, rotated_components
from codec.feature.step_map import LEAST_ENERGY, block_energy
from codec.feature.step_network import MEASURES, StepNetwork
from codec.feature.step_prediction import measure
from codec.feature.transform import forward_reference, rotated_spectrum
from codec.layout import FloatArray, Layout, TensorSpec

MIN_SAMPLES = 16
UNIT = 2.0**-15
"""Change of the detections, in standard deviations of their logits, that a step of one unit stands for."""

LARGEST = 28_000.0  # of the transformed samples of all pictures; 32767 saturates
FLOOR = 1e-3  # least eigenvalue of the Fisher information, as a share of the greatest
TRAINING_PICTURES = 32

Array64: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationSample:
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
    samples: Callable[[], Iterable[CalibrationSample]],
    train: Trainer,
    metadata: Metadata,
    seed: int = 0,
    variants: Iterable[CalibrationSample] = (),
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


def _layout(sample: CalibrationSample) -> Layout:
    return tuple(TensorSpec(name, tensor.shape) for name, tensor in sample.tensors.items())


_Stacked: TypeAlias = list[tuple[FloatArray, list[FloatArray]]]


def _checked(samples: Iterable[CalibrationSample], channels: list[int]) -> Iterator[_Stacked]:
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
        """The generalized Karhunen-Loeve transform and its inverse, most important component first."""
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


def _gather(samples: Iterable[CalibrationSample]) -> list[_Moments]:
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
        self._covariance = np.zeros((16, *2 * (rotated_components(moments.channels),)))
        self._largest = 0.0
        self._seed = seed
        self._examples: list[SensitivityExample] = []
        self._planes: list[
            FloatArray
        ] = []  # a few pictures, to count magnitudes and to train the contexts on
        self._seen = 0

    def add(self, tensors: FloatArray, gradients: list[FloatArray]) -> None:
        planes = self.learn_sensitivity(tensors, gradients)
        centered = planes - self._offset[:, None, None]
        rotated = self._covariance.shape[1]
        coefficients = forward_reference(centered[:rotated]).transpose(1, 0, 2).astype(np.float64)
        self._covariance += coefficients @ coefficients.transpose(0, 2, 1)
        self._largest = max(self._largest, float(np.abs(centered).max()))
        self._keep(planes)

    def learn_sensitivity(self, tensors: FloatArray, gradients: list[FloatArray]) -> FloatArray:
        """Remember how sensitive each block is; returns the transformed samples."""
        planes = _transformed(self._forward, tensors)
        down, across = planes.shape[1] // 4, planes.shape[2] // 4
        by_block = np.mean([block_energy(self._inverse, gradient) for gradient in gradients], 0)
        measures = np.empty((len(planes), MEASURES, down * across), np.float32)
        measure(planes, self._offset, measures, np.empty((2, planes.shape[2]), np.float32))
        log_sensitivity = np.log(by_block + LEAST_ENERGY).astype(np.float32)
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
        pictures, offset = (
            [planes * np.float32(scale) for planes in self._planes],
            self._offset * np.float32(scale),
        )
        rotation = principal_axes(self._covariance)
        magnitudes = [np.abs(rotated_spectrum(rotation, planes, offset)) for planes in pictures]
        group = GroupProfile(
            mean=self._mean.astype(np.float32),
            forward=forward,
            inverse=(self._inverse / scale).astype(np.float32),
            rotation=rotation,
            prior=np.clip(np.round(np.concatenate(magnitudes, 2).mean(2)), 1, 65535).astype(np.uint16),
            weights=np.zeros((2, COEFFICIENT_WEIGHTS, 16), np.uint16),
            block_weights=np.zeros((2, BLOCK_WEIGHTS), np.uint16),
            probabilities=default_probabilities(),
            distributions=default_distributions(),
            step_network=train(self._examples, self._seed).scaled(scale),
            step_offset=np.array([-shrunk], np.int16),
        )
        return train_contexts(group, pictures, offset)


def _transformed(matrix: Array64, tensors: FloatArray) -> FloatArray:
    padded = _pad_edge(tensors)
    planes = matrix.astype(np.float32) @ padded.reshape(len(padded), -1)
    return planes.reshape(padded.shape)


def _pad_edge(tensors: FloatArray) -> FloatArray:
    _, height, width = tensors.shape
    return np.pad(tensors, ((0, 0), (0, -height % 4), (0, -width % 4)), mode="edge")

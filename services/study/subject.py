"""A network that is studied at one split point: what experiments ask of detectors and classifiers alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch

from codec.layout import FloatArray, Layout
from services.study.dataset import PictureSet
from stream.torch_network.graph import ModuleGraph

Tensors: TypeAlias = Mapping[str, FloatArray]  # that cross the split, (C, h, w) each


@dataclass(frozen=True, slots=True, eq=False)
class SplitSample:
    """One picture and what crosses the split for it."""

    picture: torch.Tensor  # the network's input, float32 (1, 3, H, W)
    tensors: Tensors
    layout: Layout
    shown: tuple[slice, slice]  # rows and columns of the picture that are no padding
    truth: Callable[[], Any]  # what the subject's scorer compares with, computed once it is asked for


class Scorer(Protocol):
    """Gathers predictions picture by picture."""

    def add(self, sample: SplitSample, prediction: torch.Tensor) -> None: ...

    def values(self) -> dict[str, float]:
        """Scores by name, those of `Subject.scores` that the pictures' labels allow."""


class Subject(Protocol):
    """A network and a split point."""

    name: str  # "yolov5n"
    weights: str  # hash, or record.RANDOM
    split: str
    scores: tuple[str, ...]  # names of what its scorer gives; the first that is there is what counts
    graph: ModuleGraph
    device: torch.device

    def samples(self, pictures: PictureSet, most: int | None = None) -> Iterator[SplitSample]:
        """A sample of each picture, at most so many. Raises SourceError."""

    def finish(self, tensors: Tensors) -> torch.Tensor:
        """The network's prediction for one picture, from the tensors that crossed."""

    def scorer(self) -> Scorer: ...

    def certainty(self, prediction: torch.Tensor) -> torch.Tensor:
        """What Grad-CAM takes the gradient of, a scalar: how sure the network is of what it finds."""

"""Detectors under study: YOLOv5 at a split point, judged by average precision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice

import torch

from services.evaluation.agreement import CONFIDENT, confident
from services.evaluation.dataset import LetterboxedPicture, letterboxed
from services.evaluation.labels import ClassMap, Objects
from services.evaluation.runs import SCORABLE
from services.evaluation.scores import Scores
from services.study.dataset import PictureSet
from services.study.subject import SplitSample, Tensors
from stream.canvas import check_size
from stream.detections import Detections
from stream.errors import SourceError
from stream.letterbox import Letterbox
from stream.torch_network.model import Model
from stream.torch_network.nms import detect
from stream.torch_network.split import TorchHead, TorchTail, picture_tensor


@dataclass(frozen=True, slots=True, eq=False)
class _DetectionTruth:
    letterbox: Letterbox
    detected: Detections  # by the unsplit network, above CONFIDENT
    labels: Objects | None


class Detection:
    """A detector, as `Subject` describes it."""

    scores: tuple[str, ...] = ("map", "map50", "agreement", "agreement50")

    def __init__(
        self, name: str, model: Model, weights: str, split: str, size: int | tuple[int, int]
    ) -> None:
        """Raises UnknownSplitPoint, or InvalidSize for an input that the network cannot have."""
        check_size(size, model.stride)
        self.name, self.weights, self.split, self.size = name, weights, split, size
        self.model, self.graph, self.device = model, model.graph, model.device
        self._tail = TorchTail(model, split)
        self._heads: dict[tuple[int, int], TorchHead] = {}  # by canvas: images differ in shape

    def samples(self, pictures: PictureSet, most: int | None = None) -> Iterator[SplitSample]:
        if pictures.dataset is None:
            raise SourceError(
                f"{pictures.name} holds classes of whole pictures; detectors need a folder of images"
            )
        classes = ClassMap(pictures.dataset.classes, self.model.names)
        for view in islice(letterboxed(pictures.dataset, classes, self.size, self.model.stride), most):
            canvas = view.letterbox.canvas
            if canvas not in self._heads:
                self._heads[canvas] = TorchHead(self.model, self.split, canvas)
            head = self._heads[canvas]
            tensors = head(view.canvas)
            picture = picture_tensor(view.canvas, self.model.device)
            truth = cache(partial(self._truth, view, tensors))
            yield SplitSample(picture, tensors, head.layout, _shown(view.letterbox), truth)

    def _truth(self, view: LetterboxedPicture, tensors: Tensors) -> _DetectionTruth:
        return _DetectionTruth(
            view.letterbox, confident(_scorable(self.finish(tensors), view.letterbox)), view.labels
        )

    def finish(self, tensors: Tensors) -> torch.Tensor:
        return self._tail(tensors)

    def scorer(self) -> _Precision:
        return _Precision()

    def certainty(self, prediction: torch.Tensor) -> torch.Tensor:
        """Sum of the scores above CONFIDENT in predictions (1, 4 + classes, N), before any is suppressed."""
        scores = prediction[:, 4:]
        return scores[scores > CONFIDENT].sum()


class _Precision:
    """Average precision against the labels, and against what the unsplit network is sure of."""

    def __init__(self) -> None:
        self._scores = Scores()

    def add(self, sample: SplitSample, prediction: torch.Tensor) -> None:
        truth = sample.truth()
        self._scores.add_frame(_scorable(prediction, truth.letterbox), truth.detected, truth.labels)

    def values(self) -> dict[str, float]:
        scores: dict[str, float] = {}
        if accuracy := self._scores.accuracy.over_classes():
            scores |= {"map": accuracy.ap, "map50": accuracy.ap50}
        if agreement := self._scores.agreement.over_objects():
            scores |= {"agreement": agreement.ap, "agreement50": agreement.ap50}
        return scores


def _shown(letterbox: Letterbox) -> tuple[slice, slice]:
    (top, left), (height, width) = letterbox.offset, letterbox.scaled
    return slice(top, top + height), slice(left, left + width)


def _scorable(prediction: torch.Tensor, letterbox: Letterbox) -> Detections:
    return detect(prediction, letterbox, **SCORABLE)

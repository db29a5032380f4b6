"""Classifiers under study: VGG16 and ResNets at one of the paper's layers, judged by their first answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice

import torch

from services.study.dataset import PictureSet
from services.study.subject import SplitSample, Tensors
from stream.torch_network.classifier import SIZE, Classifier
from stream.torch_network.split import TorchHead, TorchTail


@dataclass(frozen=True, slots=True)
class _ClassTruth:
    answer: int  # of the unsplit network
    label: int | None


class Classification:
    """A classifier, as `Subject` describes it."""

    scores: tuple[str, ...] = ("top1", "agreement")

    def __init__(self, name: str, model: Classifier, weights: str, split: str) -> None:
        """Raises UnknownSplitPoint."""
        self.name, self.weights, self.split = name, weights, split
        self.model, self.graph, self.device = model, model.graph, model.device
        self._head, self._tail = TorchHead(model, split, SIZE), TorchTail(model, split)

    def samples(self, pictures: PictureSet, most: int | None = None) -> Iterator[SplitSample]:
        for image, label in islice(pictures.images(), most):
            picture = self.model.preprocess(image)
            crossing = self._head.run(picture)
            tensors = {name: tensor[0].cpu().contiguous().numpy() for name, tensor in crossing.items()}
            whole = slice(picture.shape[2]), slice(picture.shape[3])
            yield SplitSample(
                picture, tensors, self._head.layout, whole, cache(partial(self._truth, tensors, label))
            )

    def _truth(self, tensors: Tensors, label: int | None) -> _ClassTruth:
        return _ClassTruth(int(self.finish(tensors).argmax()), label)

    def finish(self, tensors: Tensors) -> torch.Tensor:
        return self._tail(tensors)

    def scorer(self) -> _TopOne:
        return _TopOne()

    def certainty(self, prediction: torch.Tensor) -> torch.Tensor:
        """The greatest of the logits (1, classes): Grad-CAM takes the score before the softmax."""
        return prediction.amax()


class _TopOne:
    """Share of pictures whose most likely class is the label, and is the unsplit network's."""

    def __init__(self) -> None:
        self._pictures = self._labeled = self._right = self._same = 0

    def add(self, sample: SplitSample, prediction: torch.Tensor) -> None:
        truth, answer = sample.truth(), int(prediction.argmax())
        self._pictures += 1
        self._same += answer == truth.answer
        if truth.label is not None:
            self._labeled += 1
            self._right += answer == truth.label

    def values(self) -> dict[str, float]:
        scores = {"top1": self._right / self._labeled} if self._labeled else {}
        return {**scores, "agreement": self._same / self._pictures} if self._pictures else scores

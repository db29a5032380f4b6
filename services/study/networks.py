"""Which networks a study is of: detectors and classifiers, by name, by file, or with random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from services.errors import SettingsError
from services.study.classification import Classification
from services.study.detection import Detection
from services.study.record import RANDOM
from services.study.subject import Subject
from services.torch_loading import find_model
from stream.errors import DownloadFailed
from stream.network.names import DEFAULT_SPLIT, DEMO, MODELS, is_path
from stream.torch_network.classifier import (
    CLASSIFIERS,
    find_classifier_weights,
    load_classifier,
    random_classifier,
)
from stream.torch_network.model import random_model

DEFAULT = ("yolov5n", "vgg16", "resnet50", "resnet152")

# The layers that the paper's figures are of, counted from 1.
_LAYERS = {"vgg16": "17", "resnet50": "4", "resnet152": "16"}


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A network as it is written: `yolov5n`, `resnet50@8`, `vgg16=weights.pth`, `resnet152=random`, `my.pt`."""

    name: str
    split: str
    weights: str | None  # a file, RANDOM, or None for the official ones

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises SettingsError."""
        official = (*MODELS, *CLASSIFIERS, DEMO)
        head, _, weights = text.partition("=")
        if not weights and head.partition("@")[0] not in official and is_path(head):
            return cls(Path(head).stem, DEFAULT_SPLIT, head)
        name, _, split = head.partition("@")
        if name not in official and weights in ("", RANDOM):
            raise SettingsError(
                f"--model: {text[:80]!r} is no network; write NAME, NAME@LAYER, NAME=FILE, NAME=random or a .pt file, "
                f"with a name of {', '.join(official)}"
            )
        return cls(name, split or _LAYERS.get(name, DEFAULT_SPLIT), weights or None)

    def load(self, size: int | tuple[int, int], device: str, notice: Callable[[str], None]) -> Subject:
        """The network, with random weights if its own cannot be fetched, which `notice` is told.

        Raises WeightsError for a file that is missing, CheckpointError or UnknownSplitPoint.
        """
        if self.weights != RANDOM:
            try:
                return self._trained(size, device)
            except DownloadFailed as error:
                notice(f"{self.name} goes on with random weights, for what does not depend on them: {error}")
        if self.name in CLASSIFIERS:
            return Classification(self.name, random_classifier(self.name, device=device), RANDOM, self.split)
        return Detection(self.name, random_model(self.name, device=device), RANDOM, self.split, size)

    def _trained(self, size: int | tuple[int, int], device: str) -> Subject:
        if self.name in CLASSIFIERS:
            file = Path(self.weights).expanduser() if self.weights else find_classifier_weights(self.name)
            classifier = load_classifier(self.name, file, device)
            return Classification(self.name, classifier, classifier.weights_hash, self.split)
        model = find_model(self.weights or self.name, device)
        return Detection(self.name, model, model.weights_hash, self.split, size)

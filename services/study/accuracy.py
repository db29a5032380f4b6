"""What a network still finds once the tensors that cross the split were changed."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from codec.layout import Layout
from codec.packet import Stamp
from codec.spec import Codec
from services.errors import NotMeasurable
from services.study.subject import Scorer, SplitSample, Subject, Tensors

SCORES = {
    "top1": "top-1 accuracy",
    "map50": "mAP50",
    "map": "mAP50-95",
    "agreement": "agreement with the unsplit network",
}
"""What a figure calls the scores that it shows."""

Change: TypeAlias = Callable[[Tensors, Layout], tuple[Tensors, int]]
"""Tensors as they arrive, and the bytes that were sent for them (0 where that does not matter)."""

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one change did to the scores over all pictures."""

    scores: Mapping[str, float]
    bytes: float  # mean a picture


def main_score(scores: Iterable[str]) -> str | None:
    """The one of a network's scores to judge it by: the strictest one that there are labels for."""
    return next((name for name in ("top1", "map", "agreement") if name in scores), None)


def rounded_scores(scorer: Scorer) -> dict[str, float]:
    """The scores so far, to six places."""
    return {name: round(value, 6) for name, value in scorer.values().items()}


def accuracies(
    subject: Subject, samples: Iterable[SplitSample], changes: Mapping[Key, Change]
) -> dict[Key, Outcome]:
    """The scores of a network under each change, all on the same pictures, which are gone through once.

    Raises NotMeasurable where there is nothing to judge by.
    """
    scorers = {key: subject.scorer() for key in changes}
    sizes: dict[Key, list[int]] = {key: [] for key in changes}
    for sample in samples:
        for key, change in changes.items():
            tensors, size = change(sample.tensors, sample.layout)
            sizes[key].append(size)
            scorers[key].add(sample, subject.finish(tensors))
    if any(sizes.values()) and not all(scorer.values() for scorer in scorers.values()):
        raise NotMeasurable(
            f"{subject.name} is certain of nothing in these pictures, and there are no labels to judge by"
        )
    return {
        key: Outcome(
            rounded_scores(scorers[key]), round(statistics.fmean(sizes[key]), 1) if sizes[key] else 0.0
        )
        for key in changes
    }


def unchanged(tensors: Tensors, layout: Layout) -> tuple[Tensors, int]:
    """The tensors as they are, sent as float32 without a header."""
    return tensors, sum(tensor.nbytes for tensor in tensors.values())


def through(codec: Codec) -> Change:
    """Each picture's tensors through a new encoder and decoder, as one real packet."""

    def change(tensors: Tensors, layout: Layout) -> tuple[Tensors, int]:
        packet = codec.encoder(layout).encode(tensors, Stamp(0, 0, 1, 1))
        return codec.decoder(layout).decode(packet.data).tensors, len(packet.data)

    return change

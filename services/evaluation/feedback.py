"""A detector's step maps as an encoder would get them: of every n-th frame, and some frames late."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

from codec.errors import BadStepMap
from codec.feature.profile import Profile
from codec.interface import Encoder, Guided
from codec.layout import FloatArray, Layout

MeasureMap: TypeAlias = Callable[[Mapping[str, FloatArray]], bytes]
"""The step map of a frame's tensors, as they were decoded. Raises BadStepMap."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a detector with `--feedback` does."""

    every: int  # frames from one that is measured to the next
    lag: int  # frames until its map reaches the encoder, 1 or more
    mapper: Callable[[Layout, Profile], MeasureMap]

    def run(self, encoder: Encoder, layout: Layout, profile: Profile | None) -> FeedbackRun | None:
        """The maps of one encoder; None where it can use none."""
        if not profile or not isinstance(encoder, Guided) or not encoder.step_map_bytes:
            return None
        return FeedbackRun(encoder, self.mapper(layout, profile), self.every, self.lag)


class FeedbackRun:
    """The step maps of one encoder."""

    def __init__(self, encoder: Guided, measure: MeasureMap, every: int, lag: int) -> None:
        self._encoder, self._measure, self._every, self._lag = encoder, measure, every, lag
        self._on_their_way: deque[tuple[int, bytes]] = deque()
        self._frames = 0

    def deliver(self, sequence: int) -> None:
        """Give the encoder what has come before the frame with this number, which is its next."""
        while self._on_their_way and self._on_their_way[0][0] + self._lag <= sequence:
            self._encoder.guide(*self._on_their_way.popleft())

    def detect(self, sequence: int, tensors: Mapping[str, FloatArray]) -> None:
        """The frame with this number was decoded."""
        if self._frames % self._every == 0:
            with suppress(BadStepMap):  # a detector goes on without, too
                self._on_their_way.append((sequence, self._measure(tensors)))
        self._frames += 1

"""How many bytes a frame takes at a quantizer step, learned from the frames before it."""

from __future__ import annotations

import math

from stream.rate.kalman import LinearModel

OCTAVES_PER_STEP = (
    1 / 24
)  # of a frame's bytes, until learned: 16 steps double the step, and bytes fall by less
SLOPES = 1 / 40, 1 / 12
SMALLEST_KB = 1e-3


class FrameBytes:
    """log2 of a frame's kB as a falling line over the step."""

    def __init__(self, reference_step: int) -> None:
        self._reference_step = reference_step
        self._line: LinearModel | None = None

    @property
    def known(self) -> bool:
        """Whether there was a frame to learn from."""
        return self._line is not None

    def learn(self, kilobytes: float, step: int) -> None:
        """A frame took so much at this step."""
        octaves = math.log2(max(kilobytes, SMALLEST_KB))
        offset = self._reference_step - step
        if self._line is None:
            self._line = LinearModel(
                a=octaves - OCTAVES_PER_STEP * offset,
                b=OCTAVES_PER_STEP,
                var_a=0.5**2,
                var_b=0.005**2,
                noise=0.17**2,  # an eighth of the bytes
                noise_range=(0.045**2, 0.32**2),
            )
            return
        self._line.drift(0.015**2, 0.0002**2)
        self._line.learn(1.0, offset, octaves)
        self._line.b = min(SLOPES[1], max(SLOPES[0], self._line.b))

    def step_for(self, kilobytes: float) -> float:
        """The step at which a frame takes so much."""
        assert self._line is not None
        octaves = math.log2(max(kilobytes, SMALLEST_KB))
        return self._reference_step - (octaves - self._line.a) / self._line.b

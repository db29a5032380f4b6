"""The weights of the small network by which an encoder foresees which blocks the detections depend on."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from codec.layout import FloatArray

MEASURES = 3  # of each component in a block: mean, magnitude of the mean, standard deviation
MIXED = 32  # planes that the measures are mixed to
HIDDEN = 16  # planes of each convolution


@dataclass(frozen=True, slots=True, eq=False)
class StepNetwork:
    """Weights of the network that predicts each block's log sensitivity, less its mean.

    Measures are mixed to planes, rectified, convolved twice with 3x3 filters and rectifiers, and summed; two more
    mixtures are added as they are, one of the block itself and one of the mean of the block and its neighbors. Edges
    are continued outside.
    """

    mix: FloatArray  # (34, 3 K)
    mix_bias: FloatArray  # (34,)
    first: FloatArray  # (16, 32, 3, 3)
    first_bias: FloatArray  # (16,)
    second: FloatArray  # (16, 16, 3, 3)
    second_bias: FloatArray  # (16,)
    output: FloatArray  # (16,)

    @staticmethod
    def shapes(components: int) -> dict[str, tuple[int, ...]]:
        """Shape of each array, by name."""
        return {
            "mix": (MIXED + 2, MEASURES * components),
            "mix_bias": (MIXED + 2,),
            "first": (HIDDEN, MIXED, 3, 3),
            "first_bias": (HIDDEN,),
            "second": (HIDDEN, HIDDEN, 3, 3),
            "second_bias": (HIDDEN,),
            "output": (HIDDEN,),
        }

    @classmethod
    def flat(cls, components: int) -> StepNetwork:
        """The network for which all blocks are the same."""
        return cls(**{name: np.zeros(shape, np.float32) for name, shape in cls.shapes(components).items()})

    def scaled(self, scale: float) -> StepNetwork:
        """The same predictions from measures `scale` times as large."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        return StepNetwork(**arrays | {"mix": (self.mix / scale).astype(np.float32)})

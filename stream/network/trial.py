"""A pass of a network over a small picture, so that what it cannot compute is found when it is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from codec.layout import FloatArray
from stream.errors import BrokenNetwork
from stream.network.graph import INPUT, Graph
from stream.network.onnx_graph import onnx_model
from stream.network.onnx_session import OnnxSession

_CELLS = (1, 3)  # (rows, columns) of the coarsest layer: few, and odd, as most canvases have them


def check_runs(graph: Graph, weights: Mapping[str, tuple[FloatArray, FloatArray]], stride: int) -> None:
    """Run a network once and look at what each node puts out.

    `stride` is the network's, see `Network.stride`. Raises BrokenNetwork, which names the layer.
    """
    picture = np.random.default_rng(0).random((1, 3, *(cells * stride for cells in _CELLS)), np.float32)
    names = [node.name for node in graph.nodes]
    model = onnx_model(graph.nodes, weights, {INPUT: 3}, names[:-1])
    with np.errstate(all="ignore"):
        try:
            outputs = OnnxSession(model, optimized=False)({INPUT: picture})
        except (RuntimeError, MemoryError) as error:
            raise BrokenNetwork(f"the network cannot be run ({_reason(error)})") from error
    made = [*names[:-1], *[names[-1]] * len(graph.nodes[-1].inputs)]
    for name, values in zip(made, outputs, strict=True):
        if not np.isfinite(values).all():
            raise BrokenNetwork(
                f"layer {name} puts out numbers that are not finite; train again, or use another checkpoint"
            )


@contextmanager
def warming_up(what: str) -> Iterator[None]:
    """Where a part of a network is run for the first time: a failure is BrokenNetwork, which says of what.

    What was tried at load can still be too large for the memory at hand.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        raise BrokenNetwork(
            f"{what} cannot be run ({_reason(error)}); take a smaller picture or network"
        ) from error


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__

"""A pass of a network on a small picture, so that what it cannot compute is found when it is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from stream.errors import BrokenNetwork
from stream.network.anchor_free_head import AnchorFreeDetect
from stream.network.anchor_head import AnchorDetect
from stream.network.graph import INPUT, Graph, Node

_CELLS = (1, 3)  # (rows, columns) of the coarsest layer: few, and odd, as most canvases have them


def check_detects(graph: Graph, stride: int, classes: int, device: torch.device) -> None:
    """Run a detector once, on the device that will run it, and look at what it puts out.

    `stride` is the network's, see `Model.stride`. Raises BrokenNetwork, which names the layer.
    """
    height, width = (cells * stride for cells in _CELLS)
    output = check_runs(graph, (height, width), device)
    if output.ndim != 3 or output.shape[:2] != (1, 4 + classes):
        raise BrokenNetwork(
            f"the network predicts a tensor of shape {tuple(output.shape)}, not boxes of {classes} classes"
        )


@torch.inference_mode()
def check_runs(graph: Graph, size: tuple[int, int], device: torch.device) -> torch.Tensor:
    """What a network puts out for a picture of `size` (H, W), once every node was run on `device`.

    Raises BrokenNetwork, which names the layer that cannot be run or puts out what is not finite.
    """
    generator = torch.Generator().manual_seed(0)
    tensors = {INPUT: torch.rand(1, 3, *size, generator=generator).to(device)}
    for node in graph.nodes:
        tensors[node.name] = output = _output(node, tensors)
        if not all(values.isfinite().all() for values in (output, *_logits(node, tensors))):
            raise BrokenNetwork(
                f"layer {node.name} puts out numbers that are not finite; train again, or use another checkpoint"
            )
    return tensors[graph.output]


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


def _logits(node: Node, tensors: Mapping[str, torch.Tensor]) -> Sequence[torch.Tensor]:
    """What a detection head takes the sigmoid of, which makes a number between 0 and 1 of infinity, too."""
    features = [tensors[name] for name in node.inputs]
    match node.module:
        case AnchorDetect() as head:
            return head.logits(features)
        case AnchorFreeDetect() as head:
            return head.raw(features)
    return ()


def _output(node: Node, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    try:
        return node(tensors)
    except (RuntimeError, TypeError, ValueError) as error:  # as torch says what a layer or a device cannot do
        raise BrokenNetwork(f"layer {node.name} cannot be run ({_reason(error)})") from error

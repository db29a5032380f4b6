"""A pass of a classifier on a picture, so that what it cannot compute is found when it is loaded."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from stream.errors import BrokenNetwork
from stream.network.graph import INPUT
from stream.torch_network.graph import ModuleGraph, ModuleNode


@torch.inference_mode()
def check_runs(graph: ModuleGraph, size: tuple[int, int], device: torch.device) -> torch.Tensor:
    """What a network puts out for a picture of `size` (H, W), once every node was run on `device`.

    Raises BrokenNetwork, which names the layer that cannot be run or puts out what is not finite.
    """
    generator = torch.Generator().manual_seed(0)
    tensors = {INPUT: torch.rand(1, 3, *size, generator=generator).to(device)}
    for node in graph.nodes:
        tensors[node.name] = output = _output(node, tensors)
        if not output.isfinite().all():
            raise BrokenNetwork(
                f"layer {node.name} puts out numbers that are not finite; train again, or use another checkpoint"
            )
    return tensors[graph.output]


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__


def _output(node: ModuleNode, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    try:
        return node(tensors)
    except (RuntimeError, TypeError, ValueError) as error:  # as torch says what a layer or a device cannot do
        raise BrokenNetwork(f"layer {node.name} cannot be run ({_reason(error)})") from error

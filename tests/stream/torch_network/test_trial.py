"""What a classifier cannot compute is found when it is loaded, by the layer's name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stream.errors import BrokenNetwork
from stream.network.graph import INPUT
from stream.torch_network.graph import ModuleGraph, ModuleNode
from stream.torch_network.trial import check_runs

CPU = torch.device("cpu")


def graph_of(*modules: nn.Module) -> ModuleGraph:
    names = [INPUT, *map(str, range(len(modules)))]
    return ModuleGraph(
        tuple(
            ModuleNode(name, module, (before,), takes_list=False)
            for before, name, module in zip(names, names[1:], modules, strict=False)
        )
    )


def test_a_layer_that_cannot_be_run():
    with pytest.raises(BrokenNetwork, match=r"layer 1 cannot be run \(.*channels"):
        check_runs(graph_of(nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)), (32, 32), CPU)


def test_a_sound_network_passes():
    assert check_runs(graph_of(nn.Conv2d(3, 6, 1), nn.Flatten(2)), (32, 32), CPU).shape == (1, 6, 1024)

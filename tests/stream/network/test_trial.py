"""What a network cannot compute is found when it is loaded, by the layer's name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stream.errors import BrokenNetwork
from stream.network.graph import INPUT, Graph, Node
from stream.network.model import load_model
from stream.network.trial import check_detects, warming_up
from tests.stream.network import legacy
from tests.stream.network.checkpoints import small_description

CPU = torch.device("cpu")


def graph_of(*modules: nn.Module) -> Graph:
    names = [INPUT, *map(str, range(len(modules)))]
    return Graph(
        tuple(
            Node(name, module, (before,), takes_list=False)
            for before, name, module in zip(names, names[1:], modules, strict=False)
        )
    )


def broken(tmp_path, change) -> str:
    model = legacy.Model(small_description())
    with torch.no_grad():
        change(model.model)
    with pytest.raises(BrokenNetwork) as caught:
        load_model(legacy.save(model, tmp_path / "model.pt"))
    return str(caught.value)


def test_a_variance_below_zero(tmp_path):
    message = broken(tmp_path, lambda layers: layers[3].bn.running_var.fill_(-1))
    assert "model.pt: layer 3 puts out numbers that are not finite" in message


def test_a_layer_in_the_middle_that_overflows(tmp_path):
    def overflow(layers):
        layers[13].cv1.conv.weight.fill_(1e30)
        layers[13].cv1.bn.weight.fill_(1e30)

    assert "layer 13.cv1 " in broken(tmp_path, overflow)


def test_a_sigmoid_does_not_hide_it(tmp_path):
    def double(layers):
        layers[24].m[1].weight.fill_(3e38)
        layers[24].m[1].bias.fill_(3e38)

    assert "model.pt: layer 24 puts out" in broken(tmp_path, double)


def test_a_layer_that_cannot_be_run():
    with pytest.raises(BrokenNetwork, match=r"layer 1 cannot be run \(.*channels"):
        check_detects(graph_of(nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)), 32, 1, CPU)


@pytest.mark.parametrize("classes", [1, 3])
def test_predictions_of_another_shape(classes):
    with pytest.raises(BrokenNetwork, match=f"not boxes of {classes} classes"):
        check_detects(graph_of(nn.Conv2d(3, 6, 1), nn.Flatten(2)), 32, classes, CPU)


@pytest.mark.parametrize("error", [RuntimeError("not enough memory:\n you tried"), MemoryError()])
def test_a_first_run_that_fails_is_told(error):
    with (
        pytest.raises(
            BrokenNetwork, match=r"the head at 9x9 cannot be run \((not enough memory:|MemoryError)\)"
        ),
        warming_up("the head at 9x9"),
    ):
        raise error


def test_a_sound_network_passes():
    check_detects(graph_of(nn.Conv2d(3, 6, 1), nn.Flatten(2)), 32, 2, CPU)

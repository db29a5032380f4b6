"""What a network cannot compute is found when it is loaded, by the layer's name."""

from __future__ import annotations

import pytest
import torch

from stream.errors import BrokenNetwork
from stream.network import trial
from stream.network.network import load_network, random_network
from stream.network.trial import check_runs, warming_up
from tests.stream.network import legacy
from tests.stream.network.checkpoints import small_description


def broken(tmp_path, change) -> str:
    model = legacy.Model(small_description())
    with torch.no_grad():
        change(model.model)
    with pytest.raises(BrokenNetwork) as caught:
        load_network(legacy.save(model, tmp_path / "model.pt"))
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
    network = random_network("yolov5n")
    weight, bias = network.weights["model.1"]
    with pytest.raises(BrokenNetwork, match="the network cannot be run"):
        check_runs(network.graph, {**network.weights, "model.1": (weight[:, 1:], bias)}, network.stride)


def test_a_network_without_enough_memory(monkeypatch):
    def fail(*arguments, **keywords):
        raise MemoryError

    monkeypatch.setattr(trial, "OnnxSession", fail)
    network = random_network("yolov5n")
    with pytest.raises(BrokenNetwork, match=r"cannot be run \(MemoryError\)"):
        check_runs(network.graph, network.weights, network.stride)


@pytest.mark.parametrize("error", [RuntimeError("not enough memory:\n you tried"), MemoryError()])
def test_a_first_run_that_fails_is_told(error):
    with (
        pytest.raises(
            BrokenNetwork, match=r"the head at 9x9 cannot be run \((not enough memory:|MemoryError)\)"
        ),
        warming_up("the head at 9x9"),
    ):
        raise error

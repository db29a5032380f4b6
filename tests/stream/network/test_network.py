"""A network as data: what it holds of a checkpoint, and what no engine could compute."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stream.errors import BrokenNetwork, UnknownModel, UnreadableCheckpoint, UnsupportedLayer
from stream.network.levels import Levels
from stream.network.names import MODELS
from stream.network.network import (
    ANCHORS,
    load_network,
    network_of,
    official_structure,
    random_network,
)
from stream.torch_network.model import _modules, torch_model
from tests.stream.network import legacy
from tests.stream.network.checkpoints import small_description


def test_the_levels_are_the_checkpoints_own(tmp_path):
    oracle = legacy.Model(small_description())
    oracle.model[-1].anchors *= 2
    levels = load_network(legacy.save(oracle, tmp_path / "model.pt")).levels
    doubled = tuple(tuple((2 * w, 2 * h) for w, h in level) for level in ANCHORS)
    assert levels == Levels("yolov5", 2, (8, 16, 32), doubled)
    assert random_network("yolov5nu").levels == Levels("yolov5u", 80, (8, 16, 32))


def test_folding_is_exact_to_the_last_bits(tmp_path):
    oracle = legacy.Model(small_description())
    network = load_network(legacy.save(oracle, tmp_path / "model.pt"))
    weight, bias = network.weights["model.3"]
    conv, norm = oracle.model[3].conv.double(), oracle.model[3].bn.double()
    scale = norm.weight / torch.sqrt(norm.running_var + 1e-3)
    np.testing.assert_allclose(weight, (conv.weight * scale[:, None, None, None]).detach(), rtol=1e-6)
    np.testing.assert_allclose(bias, (norm.bias - norm.running_mean * scale).detach(), rtol=1e-5, atol=1e-7)


def test_weights_are_single_precision_whatever_the_file_has(tmp_path):
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        model = legacy.Model(small_description()).to(dtype)
        network = load_network(legacy.save(model, tmp_path / "model.pt"))
        assert {array.dtype for pair in network.weights.values() for array in pair} == {np.dtype(np.float32)}


@pytest.mark.parametrize("name", MODELS)
def test_official_networks_hold_what_torch_has(name):
    structure = official_structure(name)
    expected = {name: tuple(value.shape) for name, value in _modules(structure).state_dict().items()}
    assert structure.parameters == expected
    assert (structure.strides, structure.stride) == ((8, 16, 32), 32)


def test_refuses_anchors_larger_than_any_number(tmp_path):
    model = legacy.Model(small_description())
    model.model[-1].anchors[:] = 3e38
    with pytest.raises(BrokenNetwork, match=r"model\.pt: its anchors are larger"):
        load_network(legacy.save(model, tmp_path / "model.pt"))


def test_refuses_distances_in_other_bins():
    structure = official_structure("yolov5nu")
    state = {name: np.ones(shape, np.float32) for name, shape in structure.parameters.items()}
    with pytest.raises(UnsupportedLayer, match="bins 0 to 15"):
        network_of(structure, state, ("a",) * 80)


def test_random_weights_follow_the_seed_and_are_the_references():
    first, again, other = (random_network("yolov5n", seed) for seed in (3, 3, 4))
    assert first.weights_hash == again.weights_hash != other.weights_hash
    assert torch_model(first).weights_hash == first.weights_hash


def test_an_exported_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(UnreadableCheckpoint, match="the file that it was made from"):
        load_network(tmp_path)


def test_an_unknown_name_is_refused():
    for make in (official_structure, random_network):
        with pytest.raises(UnknownModel, match="yolov8n"):
            make("yolov8n")

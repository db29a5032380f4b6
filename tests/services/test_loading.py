from __future__ import annotations

import numpy as np
import pytest
import torch

from services.detector.settings import DetectorSettings
from services.loading import choose_device, load_network
from stream.errors import MissingWeights


def test_loads_what_is_configured_and_leaves_arithmetic_alone(weights):
    """Bitstreams are defined in IEEE arithmetic, which torch could switch to flushing small numbers to zero."""
    network = load_network(DetectorSettings.load({"model": str(weights), "threads": 1, "device": "cpu"}))
    assert network.name == "random"
    assert network.model.device.type == "cpu"
    assert torch.get_num_threads() == 1
    assert np.float32(1e-40) * np.float32(0.5) > 0
    assert (torch.tensor([1e-40]) * 0.5).item() > 0


def test_says_where_weights_may_come_from(tmp_path):
    with pytest.raises(MissingWeights, match=r"none\.pt"):
        load_network(DetectorSettings.load({"model": str(tmp_path / "none.pt")}))


def test_device():
    assert choose_device("cpu") == "cpu"
    assert choose_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")

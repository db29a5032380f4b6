"""The reference network that step maps are measured with."""

from __future__ import annotations

import pytest
import torch

from services.errors import SettingsError
from services.torch_loading import step_mappers
from stream.network.names import EXPORT_DESCRIPTION


@pytest.fixture
def threads():
    """Torch's number of threads, which is the process's."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_step_maps_take_as_many_threads_as_a_network_and_not_all_cores(weights, threads):
    step_mappers(str(weights), "cpu", 1)
    assert torch.get_num_threads() == 1


def test_an_exported_network_cannot_be_differentiated(tmp_path):
    (tmp_path / EXPORT_DESCRIPTION).touch()
    with pytest.raises(SettingsError, match=r"--feedback: .* give --model the file that it was made from"):
        step_mappers(str(tmp_path), "cpu", 1)

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stream.network import legacy
from tests.stream.network.checkpoints import small_description


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "small.pt"
    return legacy.save(legacy.Model(small_description()), path)

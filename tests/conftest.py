"""Fixtures shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.paths import SHARED


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real weights, images and clips; the test is skipped where it is absent."""
    data = SHARED / "data"
    if not data.is_dir():
        pytest.skip(f"no real data at {data} (set SPLITCAST_SHARED)")
    return data


@pytest.fixture(scope="session")
def yolov5n_weights(shared_data: Path) -> Path:
    """The official COCO-pretrained YOLOv5n, release v6.0."""
    return shared_data / "weights" / "yolov5n.pt"

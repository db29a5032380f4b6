"""The services of tests/services, and the engine that runs their images."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.deploy import engine as engines
from tests.deploy.engine import Engine
from tests.services.conftest import make_camera, start_detector, video, weights

__all__ = ["make_camera", "start_detector", "video", "weights"]


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """An engine that has both images."""
    if reason := engines.why_not():
        pytest.skip(reason)
    try:
        with engines.running_engine() as running:
            running.make_base()
            for target in ("detector", "camera"):
                running.build(target)
            yield running
    except engines.NoEngine as error:
        pytest.skip(str(error))

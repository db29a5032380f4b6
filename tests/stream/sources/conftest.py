from __future__ import annotations

import pytest

from tests.stream.sources.cameras import HttpCamera
from tests.stream.sources.watching import (
    assert_nothing_left,
)


@pytest.fixture
async def camera():
    camera = HttpCamera()
    await camera.start()
    yield camera
    await camera.stop()
    assert_nothing_left()

"""What all tests of cameras have around them."""

from __future__ import annotations

import pytest

from services.recording import recorder
from tests.services.waiting import LIVENESS_S


@pytest.fixture(autouse=True)
def patient_with_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine's disk may take longer for the end of a recording than a camera waits that stops."""
    monkeypatch.setattr(recorder, "LAST_WRITES_S", LIVENESS_S)

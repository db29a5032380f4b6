from __future__ import annotations

import pytest

from stream.sources.base import CaptureOptions


@pytest.mark.parametrize(
    "setting",
    [
        {"open_timeout_s": 0},
        {"read_timeout_s": float("inf")},
        {"rtsp_transport": "carrier pigeon"},
    ],
)
def test_refuses_senseless_options(setting):
    with pytest.raises(ValueError):  # noqa: PT011 (each has its own words)
        CaptureOptions(**setting)

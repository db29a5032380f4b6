"""The address of a camera's session keeps what a proxy before the detector needs."""

from __future__ import annotations

import pytest

from stream.addresses import features_url


@pytest.mark.parametrize(
    ("detector", "url"),
    [
        ("ws://host:8765", "ws://host:8765/v1/features?stream=door"),
        ("wss://host/", "wss://host/v1/features?stream=door"),
        ("wss://proxy/cams/", "wss://proxy/cams/v1/features?stream=door"),
        ("wss://proxy/cams?site=a%20b&k", "wss://proxy/cams/v1/features?site=a%20b&k&stream=door"),
        ("wss://proxy/?stream=yard&site=1&", "wss://proxy/v1/features?site=1&stream=door"),
        ("ws://[::1]:8765#top", "ws://[::1]:8765/v1/features?stream=door"),
        ("ws://user:p%40ss@host", "ws://user:p%40ss@host/v1/features?stream=door"),
    ],
)
def test_path_and_query_are_kept_and_the_stream_joins(detector, url):
    assert features_url(detector, "door") == url
    assert features_url(detector, "door.late") == url

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from stream.errors import SourceError
from stream.sources.opening import open_source
from tests.stream.sources.watching import (
    numbered,
    numbers,
)


@pytest.mark.parametrize("uri", ["rtsp:/admin:hunter2@cam/x", "rtsp:admin:hunter2@cam/x", "a:hunter2@b" * 99])
def test_refuses_a_url_with_too_few_slashes_without_showing_the_password(uri):
    with pytest.raises(SourceError, match=r"\*\*\*@") as refused:
        open_source(uri)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("content", [None, "folder", b"not a video"])
def test_what_cannot_be_opened_is_named_without_a_password(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    path = Path("rtsp:/admin:hunter2@cam")
    if content is not None:
        (path if content == "folder" else path.parent).mkdir(parents=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(SourceError) as refused:
        open_source(str(path))
    assert "rtsp:/***@cam" in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_refuses_an_empty_uri():
    with pytest.raises(SourceError, match="empty"):
        open_source("")


def test_refuses_unknown_schemes_without_showing_the_password():
    with pytest.raises(SourceError, match="unknown scheme 'ftp'") as refused:
        open_source("ftp://user:secret@host/clip.mp4")
    assert "secret" not in str(refused.value)


def test_refuses_white_space_in_a_url_without_showing_the_password():
    with pytest.raises(SourceError, match="%20") as refused:
        open_source("rtsp://user:my secret@host/stream")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("0", "webcam 0"),
        ("/dev/video1", "/dev/video1"),
        ("rtsp://user:p%40ss@host/stream", "rtsp://***@host/stream"),
        ("HTTPS://host/?password=secret", "HTTPS://host/?password=***"),
    ],
)
async def test_live_sources_bear_a_name_without_credentials(uri, name):
    async with open_source(uri) as source:
        assert (source.live, source.name) == (True, name)


async def test_a_file_named_demo_is_opened_by_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    cv2.imwrite(str(tmp_path / "demo" / "0.png"), numbered(5))
    async with open_source("./demo") as source:
        assert await numbers(source) == [5]

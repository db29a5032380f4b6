from __future__ import annotations

import os
from pathlib import Path

import cv2
import pytest

from stream.errors import SourceError
from stream.sources.base import SourceLost
from stream.sources.opening import open_source
from tests.stream.sources.watching import (
    Events,
    drained,
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
        ("/dev/v4l/by-id/usb-cam-video-index0", "/dev/v4l/by-id/usb-cam-video-index0"),
        ("/dev/../dev/anything", "/dev/../dev/anything"),
        ("/dev/null", "/dev/null"),
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


async def test_any_character_device_is_a_camera(tmp_path, monkeypatch):
    (tmp_path / "webcam").symlink_to("/dev/null")
    monkeypatch.chdir(tmp_path)
    async with open_source("webcam") as source:
        assert source.live


async def test_a_camera_that_is_not_there_is_awaited():
    events = Events()
    async with open_source("/dev/v4l/by-id/none", on_event=events) as source, drained(source):
        lost = await events.until(SourceLost)
    assert lost.reason == "there is no /dev/v4l/by-id/none"


async def test_a_device_that_is_no_camera_is_told():
    events = Events()
    async with open_source("/dev/null", on_event=events) as source, drained(source):
        lost = await events.until(SourceLost)
    assert lost.reason == "/dev/null is no camera, or busy"


@pytest.mark.parametrize(
    "uri",
    [
        "/dev/shm/none.mp4",  # noqa: S108 (nothing is made there)
        "/dev/../nowhere/none.mp4",
        "/development/none.mp4",
    ],
)
def test_a_file_that_is_not_there_is_no_camera(uri):
    with pytest.raises(SourceError, match="there is no file or folder"):
        open_source(uri)


def test_refuses_a_device_whose_name_is_not_utf8():
    """OpenCV would end the process."""
    with pytest.raises(SourceError, match=r"/dev/cam\\udcff is not UTF-8"):
        open_source(os.fsdecode(b"/dev/cam\xff"))

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from stream.errors import SourceError, UnreadableImage
from stream.sources.files import image_paths, open_video, read_image, read_video, shown
from tests.stream.sources.watching import number_of, numbered, write_video

# To FFmpeg these are protocols, or patterns of many files; the last one would need a host.
PROTOCOLS = ["concat:clip.avi", "file:clip.avi", "subfile,,start,0,end,9,,:clip.avi", "http:clip.avi"]
NOT_UTF8 = os.fsdecode(b"clip\xff.avi")


@pytest.mark.parametrize("name", ["clip.avi", *PROTOCOLS, "%d.avi", "clip|other.avi", "é\n.avi"])
def test_reads_a_video_of_any_name(tmp_path, monkeypatch, name):
    write_video(tmp_path / "clip.avi", 4).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert [number_of(image) for image in read_video(Path(name))] == [0, 1, 2, 3]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_name_never_leads_to_another_file(tmp_path, monkeypatch, name):
    write_video(tmp_path / "clip.avi", 4)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match="there is no file"):
        open_video(Path(name))


def test_refuses_a_video_whose_name_is_not_utf8(tmp_path):
    """OpenCV would end the process."""
    path = write_video(tmp_path / "clip.avi", 1).rename(tmp_path / NOT_UTF8)
    with pytest.raises(SourceError, match=r"clip\\udcff\.avi is not UTF-8; rename"):
        open_video(path)


def test_takes_every_nth_frame_from_the_first(tmp_path):
    path = write_video(tmp_path / "clip.avi", 8)
    assert [number_of(image) for image in read_video(path, every=3)] == [0, 3, 6]


def test_a_file_that_is_no_video_is_refused_before_the_first_frame(tmp_path):
    (tmp_path / "clip.avi").write_bytes(b"not a video")
    with pytest.raises(SourceError, match="not a video"):
        next(read_video(tmp_path / "clip.avi"))


@pytest.mark.parametrize("name", ["image.png", "http:image.png", "%d.png", os.fsdecode(b"\xff.png")])
def test_reads_an_image_of_any_name(tmp_path, monkeypatch, name):
    cv2.imwrite(str(tmp_path / "image.png"), numbered(7))
    (tmp_path / "image.png").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert image_paths(Path()) == [Path(name)]
    assert np.array_equal(read_image(Path(name)), numbered(7))


def test_an_image_is_turned_upright(tmp_path):
    picture = np.zeros((16, 32, 3), np.uint8)
    picture[:, :16] = 255
    jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
    orientation = b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x03\x00\x00"  # upside down
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + orientation + bytes(4)
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    (tmp_path / "a.jpg").write_bytes(jpeg[:2] + segment + jpeg[2:])
    upright = read_image(tmp_path / "a.jpg")
    assert upright[:, 20:].min() > 128 > upright[:, :12].max()


@pytest.mark.parametrize("content", [None, b"", b"text"])
def test_refuses_what_is_no_image(tmp_path, content):
    path = tmp_path / "rtsp:admin:hunter2@cam.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnreadableImage, match="is no image that can be read") as refused:
        read_image(path)
    assert "hunter2" not in str(refused.value)
    assert refused.value.reason == (
        "OpenCV cannot decode it" if content is not None else "No such file or directory"
    )


def test_images_of_a_folder_come_in_the_order_of_their_names(tmp_path):
    for name in ("b.JPG", "a.png", "c.webp", "notes.txt", "a"):
        (tmp_path / name).touch()
    assert [path.name for path in image_paths(tmp_path)] == ["a.png", "b.JPG", "c.webp"]
    (tmp_path / "empty").mkdir()
    assert image_paths(tmp_path / "empty") == []


@pytest.mark.parametrize("name", ["absent", "file"])
def test_refuses_a_folder_that_is_none(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(SourceError, match="check the path and its permissions"):
        image_paths(tmp_path / name)


def test_what_is_shown_can_be_written_anywhere():
    assert shown(Path(NOT_UTF8)).encode() == b"clip\\udcff.avi"


def test_a_missing_video_is_not_announced_twice(tmp_path, capfd):
    with pytest.raises(SourceError, match="there is no file"):
        open_video(tmp_path / "none.avi")
    assert capfd.readouterr().err == ""

from __future__ import annotations

import os
import re
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from stream.errors import SourceError, UnreadableImage
from stream.sources.files import (
    LeftOut,
    image_paths,
    list_images,
    open_video,
    read_image,
    read_video,
    shown,
)
from tests.stream.sources.watching import (
    CLIPS,
    number_of,
    numbered,
    open_descriptors,
    write_resized_video,
    write_video,
)

# To FFmpeg these are protocols, or patterns of many files; the last one would need a host.
PROTOCOLS = ["concat:clip.avi", "file:clip.avi", "subfile,,start,0,end,9,,:clip.avi", "http:clip.avi"]
NOT_UTF8 = os.fsdecode(b"clip\xff.avi")


@pytest.mark.parametrize("name", ["clip.avi", *PROTOCOLS, "%d.avi", "clip|other.avi", "é\n.avi", NOT_UTF8])
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


@pytest.mark.parametrize(
    "content",
    [
        "ffconcat version 1.0\nfile {}\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{}\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    ],
)
def test_what_lies_in_a_file_never_leads_to_another(tmp_path, content):
    write_video(tmp_path / "clip.avi", 4)
    for name in ("clip.avi", f"file:{tmp_path / 'clip.avi'}", f"file://{tmp_path / 'clip.avi'}"):
        (tmp_path / "list.m3u8").write_text(content.format(name))
        with pytest.raises(SourceError, match="not a video that can be read"):
            open_video(tmp_path / "list.m3u8")


@pytest.mark.parametrize(("name", "frames"), [("vfr.mkv", 66), ("trim.mp4", 35), ("av1.mkv", 20)])
def test_reads_every_frame_and_finds_a_whole_file_whole(name, frames):
    with open_video(CLIPS / name) as reader:
        assert sum(1 for _ in iter(reader.read, None)) == frames
        assert (reader.damaged, reader.broken_off) == (0, None)


def test_a_reader_that_is_closed_reads_nothing(tmp_path):
    reader = open_video(write_video(tmp_path / "clip.avi", 4))
    before = open_descriptors()
    reader.close()
    reader.close()
    assert reader.read() is None
    assert open_descriptors() == before - 1


def test_pictures_are_those_that_opencv_reads(tmp_path):
    path = write_video(tmp_path / "clip.mp4", 8)
    capture = cv2.VideoCapture(str(path))
    for image in read_video(path):
        assert np.array_equal(image, capture.read()[1])


def test_damage_is_told_of_what_was_read(tmp_path, caplog):
    path = write_video(tmp_path / "clip.avi", 8)
    data = bytearray(path.read_bytes())
    assert len(list(read_video(path))) == 8
    assert not caplog.records
    data[len(data) // 2 : len(data) // 2 + 2000] = bytes(2000)
    path.write_bytes(data)
    pictures = read_video(path)
    next(pictures)
    pictures.close()
    assert not caplog.records  # of what lies behind
    list(read_video(path))
    (record,) = caplog.records
    assert re.search(r"clip\.avi is damaged in \d+ places", record.getMessage())


@pytest.mark.shared
def test_pictures_of_real_clips_are_those_that_opencv_reads(shared_data):
    for path in sorted((shared_data / "clips").glob("*.mp4")):
        capture = cv2.VideoCapture(str(path))
        for image, _ in zip(read_video(path), range(20), strict=False):
            assert np.array_equal(image, capture.read()[1]), path


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_a_video_is_turned_upright(tmp_path, degrees):
    picture = numbered(7)
    with av.open(str(tmp_path / "clip.mp4"), "w") as clip:
        stream = clip.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.set_display_rotation(degrees)
        clip.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        clip.mux(stream.encode())
    (image,) = read_video(tmp_path / "clip.mp4")
    assert number_of(np.rot90(image, -degrees // 90)) == 7
    assert np.array_equal(image, cv2.VideoCapture(str(tmp_path / "clip.mp4")).read()[1])


def test_pictures_of_another_size_come_as_they_are(tmp_path):
    path = write_resized_video(tmp_path / "clip.ts", [(240, 320, 5), (640, 480, 5)])
    images = list(read_video(path))
    assert [image.shape for image in images] == [(320, 240, 3)] * 5 + [(480, 640, 3)] * 5
    assert [number_of(image) for image in images] == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]


def test_a_file_without_video_says_so(tmp_path):
    with av.open(str(tmp_path / "clip.wav"), "w") as clip:
        stream = clip.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        clip.mux(stream.encode(sound))
    with pytest.raises(SourceError, match="it has no video"):
        open_video(tmp_path / "clip.wav")


def test_a_codec_that_cannot_be_decoded_is_named(tmp_path):
    data = write_video(tmp_path / "clip.mp4", 4).read_bytes()
    (tmp_path / "clip.mp4").write_bytes(data.replace(b"mp4v", b"evc1").replace(b"esds", b"free"))
    with pytest.raises(SourceError, match="its codec EVC cannot be decoded here; convert"):
        open_video(tmp_path / "clip.mp4")


def test_a_video_of_which_nothing_can_be_decoded_is_refused(tmp_path, capfd):
    path = write_video(tmp_path / "clip.avi", 4)
    data = path.read_bytes()
    start, end = data.index(b"movi") + 4, data.index(b"idx1")
    path.write_bytes(data[:start] + data[start:end].replace(b"\xff", b"\x00") + data[end:])
    with pytest.raises(SourceError, match=r"no picture of .* can be decoded"):
        open_video(path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["clip.mp4", "image.png"])
def test_a_pipe_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(SourceError, match="it is no file"):
        read_image(tmp_path / name)
    with pytest.raises(SourceError, match="it is no file"):
        open_video(tmp_path / name)


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


def test_what_seems_to_belong_among_images_and_is_not_read_is_told(tmp_path):
    for name in ("a.png", "._a.png", "c.tif", "d.GIF", "e.mp4", "labels.txt", "._labels.txt", ".DS_Store"):
        (tmp_path / name).touch()
    (tmp_path / "b.png").mkdir()
    (tmp_path / "g.png").symlink_to("gone")
    os.mkfifo(tmp_path / "f.png")
    assert image_paths(tmp_path) == [tmp_path / "a.png"]
    left_out = [found for found in list_images(tmp_path) if isinstance(found, LeftOut)]
    reasons = {found.path.name: found.reason for found in left_out}
    assert list(reasons) == ["._a.png", "b.png", "c.tif", "d.GIF", "e.mp4", "f.png", "g.png"]
    assert "macOS" in reasons["._a.png"]
    assert "convert" in reasons["c.tif"]
    assert "by itself" in reasons["e.mp4"]
    assert reasons["b.png"] == reasons["f.png"] == "it is no file"


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

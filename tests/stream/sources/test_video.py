from __future__ import annotations

import os

import av
import pytest

from stream.sources.files import open_video
from stream.sources.video import VideoReader
from tests.stream.sources.watching import write_resized_video, write_video


def read_all(path) -> VideoReader:
    """A reader at its end."""
    with open_video(path) as reader:
        while reader.read() is not None:
            pass
        return reader


class Complaining:
    """A container of whose every piece FFmpeg complains, though nothing is wrong with it."""

    def __init__(self, container, library: str, message: str) -> None:
        self._container, self._complaint = container, (av.logging.ERROR, library, message)

    def __getattr__(self, name: str):
        return getattr(self._container, name)

    def demux(self, stream):
        for packet in self._container.demux(stream):
            if packet.size:
                av.logging.log(*self._complaint)
            yield packet


def read_with_complaints(path, library: str, message: str) -> VideoReader:
    """A reader at its end."""
    with VideoReader(Complaining(av.open(str(path)), library, message)) as reader:
        while reader.read() is not None:
            pass
        return reader


@pytest.mark.parametrize(
    "message",
    [
        "unable to decode APP fields: Invalid data found when processing input",
        "overread 8",
        "SEI type 5 size 2208 truncated at 2184",
        "Overread SEI by 8 bits",
    ],
)
def test_what_cameras_do_all_the_time_is_no_damage(tmp_path, message):
    reader = read_with_complaints(write_video(tmp_path / "clip.avi", 4), "mjpeg", message)
    assert (reader.damaged, reader.broken_off) == (0, None)


def test_what_ffmpeg_conceals_is_counted(tmp_path):
    message = "error while decoding MB 3 7, bytestream -5"
    assert read_with_complaints(write_video(tmp_path / "clip.avi", 4), "h264", message).damaged == 4


def test_a_transport_stream_may_end_anywhere(tmp_path):
    path = write_resized_video(tmp_path / "clip.ts", [(320, 240, 20)])
    whole = path.stat().st_size
    os.truncate(path, (whole - 5 * 188) // 188 * 188)
    assert read_all(path).broken_off is None


def test_a_rate_is_an_average_and_the_number_of_frames_a_guess(tmp_path):
    with open_video(write_video(tmp_path / "clip.avi", 40, fps=12.5)) as reader:
        assert (reader.fps, reader.expected_frames) == (12.5, 40)

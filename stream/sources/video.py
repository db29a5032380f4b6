"""Video as FFmpeg decodes it, through PyAV: of a file and of a network camera alike.

Not OpenCV, whose reader scales a stream that changes its size to the first one, knows no AV1, tells an error from the
end by a guessed number of frames, and writes FFmpeg's complaints, with passwords, to standard error.
"""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

# Errors are how FFmpeg tells of damage that it conceals. What nobody here catches goes nowhere.
av.logging.set_level(av.logging.ERROR)
av.logging.set_skip_repeated(False)
logging.getLogger("libav").addHandler(logging.NullHandler())

# FFmpeg calls errors too what many cameras do all the time without harm: a maker's own fields in a JPEG, one without
# its last padding, remarks beside an H.264 picture that are cut short.
_HARMLESS = re.compile(r"APP fields|^overread \d|SEI type|Overread SEI")


class NoVideo(Exception):
    """There is nothing that could be decoded; the message says why, and names neither file nor host."""


class VideoReader:
    """Pictures of one video, decoded in order, by one thread. Use it on one thread at a time.

    Raises NoVideo where there is no video stream, or no decoder for it.
    """

    def __init__(self, container: InputContainer) -> None:
        self._container = container
        stream = container.streams.best("video")
        if stream is None or stream.disposition & Disposition.attached_pic:
            raise NoVideo("it has no video")
        assert isinstance(stream, VideoStream)
        if stream.codec_context is None:
            raise NoVideo(f"its codec {_codec_name(container)} cannot be decoded here")
        stream.codec_context.thread_type = (
            "NONE"  # the cores belong to the model, and more threads hold pictures back
        )
        stream.codec_context.thread_count = 1
        self.fps = float(stream.average_rate or stream.guessed_rate or 0)
        """Frames a second on average; 0 where it has no rate."""
        self.expected_frames = stream.frames or round(self.fps * (container.duration or 0) / av.time_base)
        """A guess at the number of frames, of the container's header; 0 where nothing is known."""
        self.damaged = 0
        """Pieces of coded data so far that were damaged: pictures of them are missing or wrong."""
        self.broken_off: str | None = None
        """At the end: why it may not be the true one; None where all is well."""
        self.received_ns = 0
        """When the data was read that completed the newest picture (time.monotonic_ns)."""
        self._packets = container.demux(stream)
        self._decoded: deque[VideoFrame] = deque()
        self._ended = False
        self._is_cut = False  # the newest packet, a false alarm in transport streams, which may end anywhere
        self._converter = VideoReformatter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self) -> VideoFrame | None:
        """The next picture, or None at the end. Pieces from which nothing comes are counted as damaged."""
        while not self._decoded and not self._ended:
            self._read_packet()
        return self._decoded.popleft() if self._decoded else None

    def peek(self) -> VideoFrame | None:
        """The picture that `read` returns next."""
        frame = self.read()
        if frame is not None:
            self._decoded.appendleft(frame)
        return frame

    def image(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """The picture upright, (H, W, 3) BGR; may be a view that is not contiguous."""
        picture = self._converter.reformat(frame, format="bgr24", threads=1)
        plane = picture.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(picture.height, plane.line_size)
        image = rows[:, : 3 * picture.width].reshape(picture.height, picture.width, 3)
        return np.rot90(image, frame.rotation // 90)

    def close(self) -> None:
        """Let go of the file or camera. May be called again."""
        self._ended = True
        self._decoded.clear()
        self._packets = iter(())
        self._container.close()

    def _read_packet(self) -> None:
        with av.logging.Capture() as complaints:
            failure, is_last = "", False
            try:
                packet = next(self._packets)
                self.received_ns = time.monotonic_ns()
                is_last = packet.size == 0  # which only brings out what the decoder has kept back
                self._is_cut = packet.is_corrupt or (is_last and self._is_cut)
                failure = self._decode(packet)
            except StopIteration:
                self._ended = True
                if self._is_cut and self._container.format.name != "mpegts":
                    failure = "the last piece is cut short"
            except av.error.FFmpegError as error:
                self._ended, failure = True, error.strerror or str(error)
        harm = (text.strip() for _, _, text in complaints if not _HARMLESS.search(text))
        damage = failure or next(harm, "")
        if damage:
            self.damaged += 1
        if damage or not (self._ended or is_last):
            self.broken_off = damage or None

    def _decode(self, packet: Packet[VideoStream]) -> str:
        """Take the pictures out of a packet; returns what is wrong with it."""
        try:
            frames = packet.decode()
        except av.error.FFmpegError as error:  # the next packet may be better
            return error.strerror or str(error)
        self._decoded.extend(frames)
        return "a picture is damaged" if any(frame.is_corrupt for frame in frames) else ""


def complaint(lines: list[tuple[int, str, str]]) -> str:
    """What FFmpeg said last, of what `av.logging.Capture` caught."""
    return next((text.strip() for _, _, text in reversed(lines) if text.strip()), "")


def _codec_name(container: InputContainer) -> str:
    # PyAV names the codec of a stream only by its decoder. FFmpeg's own description comes as a log of that level.
    av.logging.set_level(av.logging.INFO)
    description = container.dumps_format()  # type: ignore[attr-defined]
    av.logging.set_level(av.logging.ERROR)
    found = re.search(r"Video: (\w+)", description)
    return found[1].upper() if found else "unknown"

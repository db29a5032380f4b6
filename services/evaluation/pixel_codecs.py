"""Image and video codecs to compare with, on the very pixels that the network sees."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, Self, TypeAlias

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.codec.codec import UnknownCodecError
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray
from PIL import Image, features

from codec.errors import BadCodecSpec
from codec.spec_text import format_spec, parse_spec
from services.errors import MissingCodec, PixelCodecError

Canvas: TypeAlias = NDArray[np.uint8]  # (H, W, 3), BGR

# SVT-AV1 writes a page to stderr for every encoder, unless its own variable says that only errors matter.
os.environ.setdefault("SVT_LOG", "1")

# swscale's default takes chroma from rough sums, and the same quality then costs up to 6 % more bytes. The way back is
# its default, as every player's: bicubic chroma is closer to the original in PSNR, and no better for the network.
_TO_CHROMA = Interpolation.AREA | Interpolation.ACCURATE_RND

_ENDLESS = 2**20  # frames from one intra frame to the next: longer than any clip
_RATE = 25  # frames per second that encoders are told; at constant quality it changes next to nothing


@dataclass(frozen=True, slots=True)
class Packed:
    """What a coder made of one canvas."""

    data: bytes
    number: int  # of the canvas, from 0 in the order they were given
    keyframe: bool


class Coder(Protocol):
    """Encoder and decoder of canvases of one size, in the order of a clip; they may keep some back for a while."""

    def encode(self, canvas: Canvas | None) -> list[Packed]:
        """What is ready to be sent; None says that there are no more canvases. Raises PixelCodecError."""

    def decode(self, packed: Packed | None) -> list[Canvas]:
        """Canvases in their order, as many as are ready; None says that no more is sent. Raises PixelCodecError."""


@dataclass(frozen=True, slots=True)
class ImageFormat:
    """A format of Pillow, 4:2:0: every canvas is a picture by itself."""

    pillow: str
    feature: str  # the name under which Pillow says whether it has it
    standard: Sequence[
        int
    ]  # what its name alone stands for: from worse than anyone wants to next to lossless
    note: str  # how it is driven, for people
    options: Mapping[str, int | str]
    parameter: str = "quality"
    values: range = range(1, 101)
    delayed: bool = False

    def missing(self) -> str | None:
        """What the installed build lacks for it, if anything."""
        return None if features.check(self.feature) else f"the installed Pillow has no {self.pillow}"

    def coder(self, value: int, size: tuple[int, int]) -> Coder:
        """A new coder of canvases of any size."""
        return _ImageCoder(self, value)


class _ImageCoder:
    def __init__(self, form: ImageFormat, quality: int) -> None:
        self._form, self._quality = form, quality
        self._number = 0

    def encode(self, canvas: Canvas | None) -> list[Packed]:
        if canvas is None:
            return []
        file = io.BytesIO()
        try:
            picture = Image.fromarray(np.ascontiguousarray(canvas[..., ::-1]))
            picture.save(file, self._form.pillow, quality=self._quality, **self._form.options)
        except (OSError, ValueError) as error:
            raise _failed(self._form.pillow, error) from error
        self._number += 1
        return [Packed(file.getvalue(), self._number - 1, keyframe=True)]

    def decode(self, packed: Packed | None) -> list[Canvas]:
        if packed is None:
            return []
        with Image.open(io.BytesIO(packed.data), formats=[self._form.pillow]) as picture:
            rgb = np.asarray(picture.convert("RGB"))
        return [np.ascontiguousarray(rgb[..., ::-1])]


@dataclass(frozen=True, slots=True)
class VideoFormat:
    """An encoder of FFmpeg's at constant quality, 4:2:0, one intra frame and then differences, on one thread."""

    encoder: str
    decoder: str
    standard: Sequence[int]
    values: range
    note: str
    options: Mapping[str, str]
    unneeded: str | None = None  # bitstream filter for what no decoder needs
    delayed: bool = False  # the encoder looks ahead, so that its work cannot be told apart by frames
    parameter: str = "crf"

    def missing(self) -> str | None:
        """What the installed build lacks for it, if anything."""
        try:
            av.Codec(self.encoder, "w")
            av.Codec(self.decoder, "r")
        except UnknownCodecError as error:
            return f"the installed PyAV has no {error}"
        return None

    def coder(self, value: int, size: tuple[int, int]) -> Coder:
        """A new coder of canvases of `size` (H, W). Raises PixelCodecError."""
        return _VideoCoder(self, value, size)


class _VideoCoder:
    def __init__(self, form: VideoFormat, crf: int, size: tuple[int, int]) -> None:
        self._form = form
        self._given = self._returned = 0
        try:
            encoder = av.CodecContext.create(form.encoder, "w")
            decoder = av.CodecContext.create(form.decoder, "r")
            assert isinstance(encoder, VideoCodecContext)
            assert isinstance(decoder, VideoCodecContext)
            encoder.height, encoder.width = size
            encoder.pix_fmt = "yuv420p"
            encoder.time_base, encoder.framerate = Fraction(1, _RATE), Fraction(_RATE)
            encoder.options = {"crf": str(crf), "g": str(_ENDLESS), **form.options}
            for context in (encoder, decoder):
                context.thread_count = 1
                with _same_priority():
                    context.open()
            self._encoder, self._decoder = encoder, decoder
            codec = form.decoder
            self._filter = BitStreamFilterContext(form.unneeded, codec) if form.unneeded else None
        except FFmpegError as error:
            raise _failed(form.encoder, error) from error
        self._to_chroma, self._from_chroma = VideoReformatter(), VideoReformatter()

    def encode(self, canvas: Canvas | None) -> list[Packed]:
        try:
            packets = self._encoder.encode(None if canvas is None else self._frame(canvas))
            if self._filter:
                packets = [packet for whole in packets for packet in self._filter.filter(whole)]
        except FFmpegError as error:
            raise _failed(self._form.encoder, error) from error
        packed = []
        for packet in packets:
            assert packet.pts is not None
            packed.append(Packed(bytes(packet), packet.pts, packet.is_keyframe))
        return packed

    def _frame(self, canvas: Canvas) -> VideoFrame:
        frame = self._to_chroma.reformat(
            VideoFrame.from_ndarray(canvas, format="bgr24"),
            format="yuv420p",
            dst_colorspace=Colorspace.ITU601,
            interpolation=_TO_CHROMA,
        )
        frame.pts = self._given
        self._given += 1
        return frame

    def decode(self, packed: Packed | None) -> list[Canvas]:
        packet = None
        if packed is not None:
            packet = av.Packet(packed.data)
            packet.pts = packed.number
        try:
            return [self._canvas(frame) for frame in self._decoder.decode(packet)]
        except FFmpegError as error:
            raise _failed(self._form.decoder, error) from error

    def _canvas(self, frame: VideoFrame) -> Canvas:
        if frame.pts != self._returned:
            raise PixelCodecError(
                f"{self._form.decoder} gives frame {frame.pts} where {self._returned} is due; measure without it"
            )
        self._returned += 1
        picture = self._from_chroma.reformat(frame, format="bgr24", src_colorspace=Colorspace.ITU601)
        return np.asarray(picture.to_ndarray(), np.uint8)


@contextmanager
def _same_priority() -> Iterator[None]:
    """Takes back the real-time priority that SVT-AV1 gives, where it may, to its threads and to who opens it.

    It is never taken back otherwise, children inherit it, and whatever spins then starves all other processes.
    """
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    before = set(os.listdir("/proc/self/task"))  # noqa: PTH208 - names are what is wanted
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)
        for thread in set(os.listdir("/proc/self/task")) - before:  # noqa: PTH208
            with suppress(ProcessLookupError):  # it has ended
                os.sched_setscheduler(int(thread), policy, parameters)


def _failed(codec: str, error: Exception) -> PixelCodecError:
    return PixelCodecError(f"{codec} cannot code these canvases ({error}); measure without it")


Format: TypeAlias = ImageFormat | VideoFormat


@dataclass(frozen=True, slots=True)
class PixelCodec:
    """One setting of an image or video format; str() is how it is written."""

    name: str
    value: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """The codec that `jpeg:quality=90` or `x264:crf=23` stands for.

        Raises BadCodecSpec; MissingCodec if it exists but not in the installed build.
        """
        try:
            name, values = parse_spec(text)
        except ValueError as error:
            raise BadCodecSpec(str(error)) from None
        if name not in FORMATS:
            raise BadCodecSpec(f"no codec {name!r}; there are {', '.join(FORMATS)}")
        form = FORMATS[name]
        parameter, value = form.parameter, values.get(form.parameter, "")
        if len(values) != 1 or not (value.isascii() and value.isdigit() and len(value) < 10):
            raise BadCodecSpec(f"{text[:80]!r}: write {name}:{form.parameter}=NUMBER")
        if int(value) not in form.values:
            raise BadCodecSpec(
                f"{name}: {parameter} is {int(value)}, not {form.values[0]} to {form.values[-1]}"
            )
        if lacking := form.missing():
            raise MissingCodec(f"{name} cannot be measured here: {lacking}")
        return cls(name, int(value))

    @property
    def format(self) -> Format:
        return FORMATS[self.name]

    def __str__(self) -> str:
        return format_spec(self.name, {self.format.parameter: self.value})

    def coder(self, size: tuple[int, int]) -> Coder:
        """A new coder of canvases of `size` (H, W). Raises PixelCodecError."""
        return self.format.coder(self.value, size)


# x264 writes its settings, as text, before the first frame: 600 bytes that would count against every still.
_NO_BANNER = "filter_units=remove_types=6"

FORMATS: Mapping[str, Format] = {
    "jpeg": ImageFormat(
        "JPEG",
        "jpg",
        (30, 50, 70, 80, 90, 95, 98),
        "Pillow (libjpeg-turbo), 4:2:0, standard Huffman tables",
        {"subsampling": "4:2:0"},
    ),
    "webp": ImageFormat(
        "WEBP", "webp", (30, 50, 70, 80, 90, 95, 98), "Pillow (libwebp), 4:2:0, method 4", {"method": 4}
    ),
    "avif": ImageFormat(
        "AVIF",
        "avif",
        (30, 45, 60, 70, 80, 90, 95, 98),
        "Pillow (libavif with libaom), 4:2:0, speed 6, one thread to encode",
        {"subsampling": "4:2:0", "speed": 6, "max_threads": 1, "codec": "aom"},
    ),
    "x264": VideoFormat(
        "libx264",
        "h264",
        (2, 6, 10, 14, 18, 22, 27, 32, 37),
        range(52),
        "FFmpeg's libx264, preset veryfast, tune zerolatency, without the settings that it writes as text",
        {"preset": "veryfast", "tune": "zerolatency"},
        _NO_BANNER,
    ),
    "x264-medium": VideoFormat(
        "libx264",
        "h264",
        (2, 6, 10, 14, 18, 22, 27, 32, 37),
        range(52),
        "FFmpeg's libx264, preset medium with lookahead and B frames: not for a live camera",
        {"preset": "medium"},
        _NO_BANNER,
        delayed=True,
    ),
    "x265": VideoFormat(
        "libx265",
        "hevc",
        (2, 6, 10, 14, 18, 22, 27, 32, 37),
        range(52),
        "FFmpeg's libx265, preset veryfast, tune zerolatency",
        {
            "preset": "veryfast",
            "tune": "zerolatency",
            "x265-params": "log-level=none:pools=none:frame-threads=1:info=0",
        },
    ),
    "svt-av1": VideoFormat(
        "libsvtav1",
        "libdav1d",
        (4, 12, 20, 28, 35, 42, 50, 58),
        range(1, 64),
        "FFmpeg's libsvtav1, preset 10, low delay with its real-time tools",
        {"preset": "10", "svtav1-params": "pred-struct=1:rtc=1:lp=1"},
    ),
}

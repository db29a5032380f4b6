"""Image and video codecs: what comes back, in which order, and what is said of codecs that are not there."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from codec.errors import BadCodecSpec
from services.errors import MissingCodec, PixelCodecError
from services.evaluation import pixel_codecs as pixels
from services.evaluation.pixel_codecs import FORMATS, ImageFormat, PixelCodec, VideoFormat

SIZE = (64, 96)
FRAMES = 12
IMAGES = [name for name, form in FORMATS.items() if isinstance(form, ImageFormat)]
VIDEO = [name for name, form in FORMATS.items() if isinstance(form, VideoFormat)]


def clip(frames=FRAMES):
    """A bright disc that moves over a smooth colored ground with some texture."""
    height, width = SIZE
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    ground = np.stack([60 + 120 * across, 60 + 120 * down, 180 - 120 * across], -1)
    ground += np.random.default_rng(0).normal(0, 3, ground.shape)
    for number in range(frames):
        canvas = ground.clip(0, 255).astype(np.uint8)
        yield cv2.circle(canvas, (12 + 6 * number, 32), 9, (250, 240, 230), -1)


@pytest.fixture(params=FORMATS)
def name(request):
    if lacking := FORMATS[request.param].missing():
        pytest.skip(lacking)
    return request.param


def through(codec, canvases):
    """Canvases after coding, and everything that was sent."""
    canvases = list(canvases)
    coder = codec.coder(canvases[0].shape[:2])
    sent = [packed for canvas in [*canvases, None] for packed in coder.encode(canvas)]
    return [shown for packed in [*sent, None] for shown in coder.decode(packed)], sent


def likeness(canvases, shown):
    return np.mean([cv2.PSNR(one, other) for one, other in zip(canvases, shown, strict=True)])


class TestRoundTrip:
    def test_higher_quality_is_larger_and_closer(self, name):
        standard = FORMATS[name].standard
        best, middle, worst = (
            through(PixelCodec(name, value), clip())
            for value in sorted(
                (standard[0], standard[len(standard) // 2], standard[-1]), reverse=name in IMAGES
            )
        )
        sizes = [sum(len(packed.data) for packed in sent) for _, sent in (best, middle, worst)]
        assert sizes[0] > sizes[1] > sizes[2] > 0
        likenesses = [likeness(clip(), shown) for shown, _ in (best, middle, worst)]
        assert likenesses[0] > likenesses[1] > likenesses[2] > 20

    def test_every_canvas_comes_back_once_in_its_order(self, name):
        shown, sent = through(PixelCodec(name, FORMATS[name].standard[4]), clip())
        canvases = list(clip())
        assert [canvas.shape for canvas in shown] == [(*SIZE, 3)] * FRAMES
        assert sorted(packed.number for packed in sent) == list(range(FRAMES))
        for number, canvas in enumerate(shown):
            distances = [np.abs(canvas.astype(int) - other).mean() for other in canvases]
            assert np.argmin(distances) == number

    def test_still_pictures_are_coded_one_by_one_and_clips_have_one_keyframe(self, name):
        _, sent = through(PixelCodec(name, FORMATS[name].standard[4]), clip())
        assert sum(packed.keyframe for packed in sent) == (1 if name in VIDEO else FRAMES)

    def test_a_canvas_by_itself(self, name):
        (shown,), (packed,) = through(PixelCodec(name, FORMATS[name].standard[4]), clip(1))
        assert packed.keyframe
        assert likeness(clip(1), [shown]) > 25

    def test_the_smallest_canvas(self, name):
        gray = np.full((32, 32, 3), 114, np.uint8)
        (shown,), _ = through(PixelCodec(name, FORMATS[name].standard[4]), [gray])
        assert np.abs(shown.astype(int) - 114).max() < 6

    def test_a_delayed_encoder_keeps_canvases_back_and_another_none(self, name):
        coder = PixelCodec(name, FORMATS[name].standard[4]).coder(SIZE)
        at_once = []
        for canvas in clip():
            at_once += [shown for packed in coder.encode(canvas) for shown in coder.decode(packed)]
        assert (len(at_once) < FRAMES) == FORMATS[name].delayed
        assert FORMATS[name].delayed or len(at_once) == FRAMES


def test_x264_is_not_charged_for_the_text_of_its_settings():
    form = FORMATS["x264"]
    banner = b"x264 - core"
    for coder, told in ((form.coder(37, SIZE), False), (replace(form, unneeded=None).coder(37, SIZE), True)):
        (packed,) = coder.encode(next(clip()))
        assert (banner in packed.data) == told


@pytest.mark.parametrize("name", VIDEO)
def test_the_way_to_yuv_and_back_costs_little(name):
    """A smooth picture at the finest setting: wrong ranges, matrices or an offset would show at once."""
    if lacking := FORMATS[name].missing():
        pytest.skip(lacking)
    height, width = 128, 128
    across, down = np.meshgrid(np.linspace(0, 6, width), np.linspace(0, 6, height))
    waves = [128 + 100 * np.sin(across), 128 + 100 * np.cos(down), 128 + 100 * np.sin(across + down)]
    canvas = np.stack(waves, -1).astype(np.uint8)
    (shown,), _ = through(PixelCodec(name, FORMATS[name].standard[0]), [canvas])
    assert cv2.PSNR(canvas, shown) > 40


class TestSpec:
    @pytest.mark.parametrize("text", ["jpeg:quality=90", "x264:crf=23", "x264-medium:crf=0"])
    def test_reads_as_it_writes(self, text):
        assert str(PixelCodec.parse(text)) == text

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("mp3:crf=3", "no codec 'mp3'; there are jpeg, webp"),
            ("x264", "write x264:crf=NUMBER"),
            ("x264:quality=3", "write x264:crf=NUMBER"),
            ("jpeg:quality=-1", "write jpeg:quality=NUMBER"),
            ("jpeg:quality=\u0663", "write jpeg:quality=NUMBER"),
            ("jpeg:quality=101", "jpeg: quality is 101, not 1 to 100"),
            ("x264:crf=52", "x264: crf is 52, not 0 to 51"),
        ],
    )
    def test_says_what_is_wrong(self, text, reason):
        with pytest.raises(BadCodecSpec, match=reason):
            PixelCodec.parse(text)

    def test_every_standard_setting_exists(self, name):
        for value in FORMATS[name].standard:
            assert PixelCodec.parse(f"{name}:{FORMATS[name].parameter}={value}") == PixelCodec(name, value)


class TestMissing:
    def test_an_image_format_that_pillow_lacks(self, monkeypatch):
        monkeypatch.setattr(pixels.features, "check", lambda feature: feature != "avif")
        with pytest.raises(
            MissingCodec, match="avif cannot be measured here: the installed Pillow has no AVIF"
        ):
            PixelCodec.parse("avif:quality=50")

    @pytest.mark.parametrize("side", ["encoder", "decoder"])
    def test_a_video_format_that_pyav_lacks(self, side, monkeypatch):
        lacking = replace(FORMATS["x264"], **{side: "libnothing"})
        monkeypatch.setattr(pixels, "FORMATS", {"x264": lacking})
        with pytest.raises(MissingCodec, match="the installed PyAV has no libnothing"):
            PixelCodec.parse("x264:crf=20")


class TestFailure:
    def test_a_size_that_an_encoder_refuses(self):
        with pytest.raises(PixelCodecError, match="libx264 cannot code these canvases"):
            PixelCodec("x264", 20).coder((0, 0))

    def test_a_canvas_that_is_lost_is_noticed(self):
        coder = PixelCodec("x264", 20).coder(SIZE)
        first, *_ = (packed for canvas in clip() for packed in coder.encode(canvas))
        with pytest.raises(PixelCodecError, match="where 0 is due"):
            coder.decode(replace(first, number=1))


@pytest.mark.parametrize("name", ["x264", "x265", "svt-av1"])
def test_no_encoder_raises_its_own_priority(name):
    """SVT-AV1 makes itself and its caller real-time where it is allowed to, as root is."""
    before = os.sched_getscheduler(0)
    coder = PixelCodec.parse(f"{name}:crf=40").coder((64, 96))
    coder.encode(np.zeros((64, 96, 3), np.uint8))
    assert {os.sched_getscheduler(int(thread.name)) for thread in Path("/proc/self/task").iterdir()} == {
        before
    }

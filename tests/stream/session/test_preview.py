from __future__ import annotations

from contextlib import suppress

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import InvalidPreview
from stream.session.preview import MAX_BYTES, MAX_SIDE, PreviewGate, check_preview


def jpeg(height: int, width: int, *parameters: int) -> bytes:
    picture = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    good, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 30, *parameters])
    assert good
    return encoded.tobytes()


GOOD = jpeg(24, 32)
FRAME, SCAN = GOOD.index(b"\xff\xc0"), GOOD.index(b"\xff\xda")


def promising(side: int, *parameters: int) -> bytes:
    """A JPEG of a few hundred bytes that decodes to side x side pixels."""
    picture = jpeg(8, 8, *parameters)
    (at,) = (picture.index(marker) + 5 for marker in (b"\xff\xc0", b"\xff\xc2") if marker in picture)
    return picture[:at] + side.to_bytes(2) * 2 + picture[at + 4 :]


def decoded(data: bytes) -> tuple[int, ...] | None:
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return None if picture is None else picture.shape


@pytest.mark.parametrize("size", [(1, 1), (24, 32), (320, 320), (1, 320)])
def test_takes_small_pictures(size):
    picture = jpeg(*size)
    assert check_preview(picture) is picture


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (b"", "not a whole JPEG"),
        (GOOD[:-1], "not a whole JPEG"),
        (b"\x89PNG" + GOOD, "not a whole JPEG"),
        (b"<svg onload=alert(1)>", "not a whole JPEG"),
        (b"\xff\xd8\xff\xd9", "marker d9 may not stand"),
        (b"\xff\xd8" + bytes(1000) + b"\xff\xd9", "no marker"),
        (b"\xff\xd8" + b"\xff\xe0\x00\x00" * 5000 + b"\xff\xd9", "segment is malformed"),
        (b"\xff\xd8" + b"\xff\xe0\x00\x01" * 5000 + b"\xff\xd9", "segment is malformed"),
        (b"\xff\xd8\xff\xe0\xff\xff" + GOOD[2:], "segment is malformed"),
        (b"\xff\xd8\xff\xda" + GOOD[2:], "no frame header"),  # its scan comes first
        (GOOD[:FRAME] + GOOD[SCAN:], "no frame header"),
        (GOOD[:FRAME] + b"\xff\xc0\x00\x07\x08\x00\x18\x00\x20" + GOOD[SCAN:], "frame header is malformed"),
        (GOOD[: FRAME + 9] + b"\x04" + GOOD[FRAME + 10 :], "frame header is malformed"),
        (GOOD[:SCAN] + GOOD[FRAME:], "two frame headers"),
        (b"\xff\xd8\xff\xe1\x00\x04ab" + GOOD[2:], "marker e1 may not stand"),  # EXIF: a place, a thumbnail
        (jpeg(24, 321), "321x24"),
        (jpeg(2000, 1)[:-2] + b"\xff\xd9", "1x2000"),
        (jpeg(24, 32, cv2.IMWRITE_JPEG_PROGRESSIVE, 1), "only baseline"),
        (GOOD[:-2] + bytes(MAX_BYTES) + b"\xff\xd9", "at most 40000"),
    ],
)
def test_refuses_what_a_viewer_should_not_get(bad, words):
    with pytest.raises(InvalidPreview, match=words):
        check_preview(bad)


@pytest.mark.parametrize("size", [(0, 32), (65535, 65535)])
def test_believes_the_header_and_no_less(size):
    """A few hundred bytes may promise gigabytes of pixels."""
    at = GOOD.index(b"\xff\xc0") + 5
    with pytest.raises(InvalidPreview, match="sides must be"):
        check_preview(GOOD[:at] + size[0].to_bytes(2) + size[1].to_bytes(2) + GOOD[at + 4 :])


@pytest.mark.parametrize(
    "length", range(2, GOOD.index(b"\xff\xc0") + 8)
)  # of the width at least a byte is cut
def test_refuses_a_truncated_header(length):
    with pytest.raises(InvalidPreview):
        check_preview(GOOD[:length] + b"\xff\xd9")


@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("marker", [0x01, *range(0xD0, 0xD8), 0xFF])
def test_is_not_led_past_the_frame_header_that_a_decoder_finds(marker, progressive):
    """To a decoder these markers have no length: it skips two stray bytes, then a comment, and finds the frame.

    Whoever takes the stray bytes for a length lands inside the comment, where another frame header is.
    """
    harmless = GOOD[FRAME : FRAME + 19]
    comment = b"\xff\xfe" + (2 + len(harmless)).to_bytes(2) + harmless
    large = promising(1000, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
    bad = b"\xff\xd8\xff" + bytes([marker]) + (2 + 4).to_bytes(2) + comment + large[2:]
    assert decoded(bad) == (1000, 1000, 3)
    with pytest.raises(InvalidPreview, match=f"marker {marker:02x} may not stand before the scan"):
        check_preview(bad)


@pytest.mark.parametrize("kept", [len(GOOD), len(GOOD) - 2, SCAN + 14])
@pytest.mark.parametrize("skipped", [0, 2])
def test_takes_no_other_picture_behind_the_scan_header(kept, skipped):
    """Some decoder may prefer it. The second picture begins with SOI or without."""
    with pytest.raises(InvalidPreview, match="only one scan"):
        check_preview(GOOD[:kept] + promising(1000)[skipped:])


def test_takes_restarts_and_tables_made_to_measure():
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    for parameters in ([cv2.IMWRITE_JPEG_RST_INTERVAL, 1], [cv2.IMWRITE_JPEG_OPTIMIZE, 1]):
        data = cv2.imencode(".jpg", picture, parameters)[1].tobytes()
        assert check_preview(data) is data
    gray = cv2.imencode(".jpg", picture[..., 0])[1].tobytes()
    assert check_preview(gray) is gray


@given(st.binary(max_size=300), st.integers(0, len(GOOD)))
def test_any_bytes_are_refused_or_decode_small(inside, at):
    data = GOOD[: 2 + at] + inside + GOOD[2 + at :]
    with suppress(InvalidPreview):
        assert check_preview(data) is data
        height, width = (decoded(data) or (1, 1))[:2]
        assert max(height, width) <= MAX_SIDE


class TestPreviewGate:
    def test_is_open_at_first(self):
        assert PreviewGate().may_send(answered=0)

    def test_lets_one_preview_through_at_a_time(self):
        gate = PreviewGate()
        gate.sent(packets=7)
        for answered in (5, 6, 7):  # two that were ahead of it, then one behind
            assert not gate.may_send(answered)
        assert gate.may_send(answered=8)
        assert gate.may_send(answered=9)

    def test_leaves_a_link_that_holds_frames_up_to_them(self):
        gate = PreviewGate()
        gate.compare(network_ns=300, detector_ns=50)
        gate.hold()
        assert not gate.may_send(answered=0)
        assert gate.may_send(answered=0)  # since then no frame has waited

    def test_a_slow_detector_leaves_the_link_free(self):
        gate = PreviewGate()
        gate.compare(network_ns=50, detector_ns=300)
        gate.hold()
        assert gate.may_send(answered=0)

    def test_a_long_link_that_keeps_up_lets_previews_through(self):
        gate = PreviewGate()
        gate.compare(network_ns=300, detector_ns=50)
        assert gate.may_send(answered=0)

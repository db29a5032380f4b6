"""Which codecs a name stands for."""

from __future__ import annotations

import pytest

from codec.errors import BadCodecSpec
from services.evaluation.codec_sets import parse_codecs, parse_reference
from services.evaluation.pixel_codecs import FORMATS


def test_a_reference_is_what_is_evaluated_of_it_or_its_set():
    codecs = parse_codecs(["jpeg:quality=40", "jpeg:quality=60", "webp:quality=40"])
    assert parse_reference("jpeg", codecs) == codecs[:2]
    assert parse_reference("jpeg:quality=70", codecs) == parse_codecs(["jpeg:quality=70"])
    assert parse_reference("x264", codecs) == parse_codecs(["x264"])


def test_a_name_alone_stands_for_its_standard_set():
    assert [str(codec).partition(",")[0] for codec in parse_codecs(["rle:bits=3", "raw", "rle"])] == [
        "rle:bits=3",
        "raw",
        *(f"rle:bits={bits}" for bits in (2, 4, 5, 6, 7, 8)),
    ]
    assert [str(codec) for codec in parse_codecs(["jpeg"])] == [
        f"jpeg:quality={quality}" for quality in FORMATS["jpeg"].standard
    ]
    with pytest.raises(BadCodecSpec, match=r"no codec 'mp3'; there are raw, rle.*, jpeg, webp"):
        parse_codecs(["mp3"])

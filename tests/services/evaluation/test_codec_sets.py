"""Which codecs a name stands for."""

from __future__ import annotations

import pytest

from codec.errors import BadCodecSpec
from services.evaluation.codec_sets import parse_codecs
from services.evaluation.pixel_codecs import FORMATS


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

"""Codec specifications: what is written parses, what is not there is named."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.errors import BadCodecSpec, UnsupportedPacket
from codec.packet import PacketHeader
from codec.spec import CODECS, codec_of_packet, parse_codec
from tests.codec.calibrated import make_profile
from tests.codec.samples import LAYOUT


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("raw", "raw"),
        ("rle", "rle:bits=4,temporal=false,keyframe_interval=250"),
        ("rle:bits=3", "rle:bits=3,temporal=false,keyframe_interval=250"),
        ("rle:keyframe_interval=9,temporal=true", "rle:bits=4,temporal=true,keyframe_interval=9"),
        ("feature", "feature:quality=6,temporal=true,effort=2,keyframe_interval=250,profile=auto"),
        (
            "feature:profile=none",
            "feature:quality=6,temporal=true,effort=2,keyframe_interval=250,profile=none",
        ),
    ],
)
def test_canonical_text_has_every_parameter(text, canonical):
    spec = parse_codec(text)
    assert str(spec) == canonical
    assert parse_codec(canonical) == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there are raw, rle"),
        ("zlib", "no codec 'zlib'; there are raw, rle"),
        ("RLE", "there are raw, rle"),
        ("raw:bits=3", "raw has no parameter 'bits'; there are none"),
        ("rle:depth=3", "no parameter 'depth'; there are bits, temporal, keyframe_interval"),
        ("rle:bits", "bits is '', not a number"),
        ("rle:bits=1", "bits is 1, not 2 to 8"),
        ("rle:bits=9", "bits is 9, not 2 to 8"),
        ("rle:bits=-3", "'-3', not a number"),
        ("rle:bits=3.0", "'3.0', not a number"),
        ("rle:bits=³", "not a number"),
        ("rle:bits=3,bits=3", "given twice"),
        ("rle:bits=3,", "no parameter ''"),
        ("rle: bits=3", "no parameter ' bits'"),
        ("rle:temporal=1", "'1', not true or false"),
        ("rle:profile=auto", "rle has no parameter 'profile'"),
        ("feature:profile=none,profile=auto", "given twice"),
        ("feature:profile_is_open=true", "no parameter 'profile_is_open'"),
        ("rle:keyframe_interval=0", "keyframe_interval is 0"),
        ("rle:keyframe_interval=99999999", "keyframe_interval is 99999999"),
    ],
)
def test_refuses_what_there_is_not(text, message):
    with pytest.raises(BadCodecSpec, match=message):
        parse_codec(text)


@given(st.text() | st.text(max_size=30).map(lambda text: f"rle:{text}"))
def test_any_text_is_a_spec_or_refused(text):
    try:
        spec = parse_codec(text)
    except BadCodecSpec:
        return
    assert parse_codec(str(spec)) == spec


def test_names_and_ids_are_used_once():
    assert len({codec.name for codec in CODECS}) == len({codec.codec_id for codec in CODECS}) == len(CODECS)


@pytest.mark.parametrize(
    ("codec_id", "parameters", "text"),
    [(0, b"", "raw"), (1, b"\x03", "rle:bits=3,temporal=true")],
)
def test_a_packet_says_its_codec(codec_id, parameters, text):
    header = PacketHeader(codec_id, parameters, True, 0, 0, 0, 0, LAYOUT, (0, 0))
    assert codec_of_packet(header) == parse_codec(text)


@pytest.mark.parametrize(
    ("codec_id", "parameters"), [(0, b"\0"), (1, b""), (1, b"\x01"), (1, b"\x09"), (1, b"\x03\x03"), (9, b"")]
)
def test_a_packet_of_no_codec_is_refused(codec_id, parameters):
    with pytest.raises(UnsupportedPacket):
        codec_of_packet(PacketHeader(codec_id, parameters, True, 0, 0, 0, 0, LAYOUT, (0, 0)))


@pytest.mark.parametrize("text", ["raw", "rle", "rle:temporal=true"])
def test_a_codec_without_a_quantizer_step_or_profile_says_so(text):
    codec = parse_codec(text)
    assert (codec.takes_profile, codec.profile, codec.profile_is_open, codec.step_range) == (
        False,
        None,
        False,
        None,
    )
    with pytest.raises(BadCodecSpec, match=f"{codec.name} takes no calibration profile"):
        codec.with_profile(None)


def test_the_feature_codec_leaves_its_profile_open_until_it_is_given_one():
    profile = make_profile(LAYOUT)
    codec = parse_codec("feature:quality=3,effort=1")
    assert codec.takes_profile
    assert codec.profile_is_open
    assert codec.profile is None
    given = codec.with_profile(profile)
    assert given.profile == profile
    assert not given.profile_is_open
    assert str(given).endswith(f",profile={profile.hash}")
    assert parse_codec(str(given), {profile.hash: profile}) == given
    assert codec.with_profile(None) == parse_codec("feature:quality=3,effort=1,profile=none")
    with pytest.raises(BadCodecSpec, match="given and left open"):
        replace(given, profile_is_open=True)


def test_the_step_range_holds_every_quality():
    finest, coarsest = parse_codec("feature").step_range
    for quality in range(1, 11):
        assert finest <= parse_codec(f"feature:quality={quality}").encoder(LAYOUT).step <= coarsest


LIST_KERNELS = "print(*(name for name in sys.modules if name == 'numba' or name.startswith('codec.')))"


def loaded_after(statement):
    program = f"import sys; {statement}; {LIST_KERNELS}"
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return set(ran.stdout.split())


def test_what_a_codec_is_needs_no_kernel():
    use = "codec = spec.parse_codec('feature:quality=7'); layout = (TensorSpec('4.m', (8, 4, 4)),)"
    use += "; codec.packet_format(layout); spec.parse_codec('rle').packet_format(layout)"
    assert "numba" not in loaded_after(f"from codec import spec; from codec.layout import TensorSpec; {use}")


def test_once_codecs_are_loaded_none_loads_any_more():
    load = (
        "from codec import spec; from codec.layout import TensorSpec; [codec.load() for codec in spec.CODECS]"
    )
    use = "layout = (TensorSpec('4.m', (8, 4, 4)),); [(codec().encoder(layout), codec().decoder(layout))"
    use += " for codec in (*spec.CODECS, lambda: spec.parse_codec('rle:temporal=true'))]"
    assert loaded_after(load) == loaded_after(f"{load}; {use}") >= {"numba"}

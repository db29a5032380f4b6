"""Records whose comparison is known."""

from __future__ import annotations

from dataclasses import replace

from services.evaluation.scores import EvaluationRecord

UNSPLIT = EvaluationRecord(
    codec="none",
    setting="",
    data="street",
    clip=None,
    kb_per_frame=None,
    raw_kb_per_frame=None,
    bits_per_coefficient=None,
    map50=0.6,
    map=0.4,
    agreement=0.995,
    agreement50=0.995,
    encode_ms=None,
    decode_ms=None,
    head_ms=None,
    tail_ms=None,
    unsplit_ms=30.0,
    frames=9,
    keyframes=None,
    objects=100,
    distortion=0.0,
    anchors=500,
    keyframe_kb=None,
    difference_kb=None,
    frame_distortion=(0.0,) * 9,
    frame_bytes=None,
    frame_is_key=None,
    frame_sequence=tuple(range(9)),
)


def coded(spec, kb, agreement, ap=0.4, agreement50=None):
    codec, _, setting = spec.partition(":")
    return replace(
        UNSPLIT,
        codec=codec,
        setting=setting,
        kb_per_frame=kb,
        agreement=agreement,
        agreement50=agreement50,
        map=ap,
        keyframes=9,
    )


RECORDS = [
    UNSPLIT,
    coded("jpeg:quality=50", 40, 0.80, 0.37),
    coded("jpeg:quality=98", 160, 0.96, 0.39),
    coded("rle:bits=3,temporal=false", 120, 0.90, 0.395),
    coded("rle:bits=2,temporal=false", 60, 0.70, 0.2),
    coded("rle:bits=4,temporal=false", 180, 0.98, 0.40),
    coded("x264:crf=20", 30, 0.92, 0.3),
    coded("x264:crf=10", 60, 0.94, 0.3),
]

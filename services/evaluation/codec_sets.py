"""Which codecs and settings are evaluated: one of them, or the set that a name alone stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from codec.errors import BadCodecSpec
from codec.spec import CODECS, Codec, parse_codec
from services.errors import MissingCodec
from services.evaluation.pixel_codecs import FORMATS, PixelCodec

AnyCodec: TypeAlias = Codec | PixelCodec

# What a codec's name alone stands for: the settings that draw its curve.
STANDARD_SETS: Mapping[str, Sequence[str]] = {
    "feature": [f"feature:quality={quality}" for quality in range(1, 11)],
    "raw": ["raw"],
    "rle": [f"rle:bits={bits}" for bits in range(2, 9)],
    **{
        name: [f"{name}:{form.parameter}={value}" for value in form.standard]
        for name, form in FORMATS.items()
    },
}


def parse_codecs(texts: Iterable[str]) -> list[AnyCodec]:
    """The codecs to evaluate, each once: a name alone stands for its standard set.

    Raises BadCodecSpec or MissingCodec.
    """
    specs = (spec for text in texts for spec in STANDARD_SETS.get(text, (text,)))
    return list(dict.fromkeys(_parse_codec(spec) for spec in specs))


def parse_reference(text: str, codecs: Sequence[AnyCodec]) -> list[AnyCodec]:
    """The codecs that others are compared with: those of a name alone which are evaluated, or its standard set.

    Raises BadCodecSpec or MissingCodec.
    """
    return [codec for codec in codecs if str(codec).partition(":")[0] == text] or parse_codecs([text])


def _parse_codec(text: str) -> AnyCodec:
    name = text.partition(":")[0]
    if name in FORMATS:
        return PixelCodec.parse(text)
    if name not in {codec.name for codec in CODECS}:
        names = ", ".join([*(codec.name for codec in CODECS), *FORMATS])
        raise BadCodecSpec(f"no codec {name[:80]!r}; there are {names}")
    return parse_codec(text)


def standard_codecs(notice: Callable[[str], None]) -> list[AnyCodec]:
    """All standard sets, but for those of codecs that are not to be had here."""
    codecs: list[AnyCodec] = []
    for name in STANDARD_SETS:
        try:
            codecs += parse_codecs([name])
        except MissingCodec as error:
            notice(f"left out: {error}")
    return codecs

"""Names of a network's classes, in whatever form a training script has left them in its checkpoint."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from stream.errors import UnreadableCheckpoint
from stream.network.pickle_reader import PickledObject

MAX_CLASSES = 4096
MAX_NAME = 200  # characters

_SCALAR = re.compile(r"numpy\._?core\.multiarray\.scalar")
_ARRAY = re.compile(r"numpy\._?core\.multiarray\._reconstruct")
_ARRAY_TYPE = re.compile(r"[biufSU]\d{1,4}")  # of numbers and texts; arrays of objects hold a list
_MAX_ARRAY_BYTES = MAX_CLASSES * MAX_NAME * 4
_MAX_ELEMENT_BYTES = MAX_NAME * 4  # a long one may stand in every place


def class_names(found: object) -> tuple[str | None, ...] | None:
    """Names in the order of the classes' numbers, None for a class without one; None if they are not to be had.

    Understood are sequences and arrays, dictionaries by number (also written as text) or from name to number, and a
    single text. Half characters, which no UTF-8 can hold, are replaced; all else stays as it is, and has to be escaped
    where it is shown.
    Raises UnreadableCheckpoint for more than MAX_CLASSES classes or a name of more than MAX_NAME characters.
    """
    match _plain(found, _MAX_ARRAY_BYTES):
        case dict() as names:
            sequence = _by_number(names)
        case list() | tuple() as sequence:
            pass
        case str() as name:
            sequence = [name]
        case _:
            return None
    if not sequence:
        return None
    # A text or a number of any length may stand in every place.
    if len(sequence) > MAX_CLASSES:
        raise UnreadableCheckpoint(
            f"the network has too many classes, or names too long (at most {MAX_CLASSES})"
        )
    return tuple(_name(value) for value in sequence)


def _by_number(names: dict[object, object]) -> Sequence[object]:
    """Values by their keys as numbers, or keys by their values; empty if neither is a set of numbers."""
    for pairs in (names.items(), ((value, key) for key, value in names.items())):
        numbered = {number: name for key, name in pairs if (number := _number(key)) is not None}
        if len(numbered) == len(names):
            most = max(numbered, default=-1)
            return [numbered.get(number) for number in range(min(most, MAX_CLASSES) + 1)]
    return []


def _number(key: object) -> int | None:
    match _plain(key, _MAX_ELEMENT_BYTES):
        case int() as number if 0 <= number < 1 << 31:
            return number
        case str() as text if text.isascii() and text.isdigit() and len(text) < 10:
            return int(text)
    return None


def _name(value: object) -> str | None:
    match _plain(value, _MAX_ELEMENT_BYTES):
        case str() as name:
            pass
        case bytes() as data:
            name = data.decode(errors="replace")
        case int() as number if number.bit_length() > 64:
            raise UnreadableCheckpoint("the network has too many classes, or names too long (a number)")
        case int() | float() as number:
            name = str(number)
        case {"name": inner} if isinstance(inner, str):  # as COCO lists its categories
            name = inner
        case _:
            return None
    if len(name) > MAX_NAME:
        raise UnreadableCheckpoint(
            f"the network has too many classes, or names too long (at most {MAX_NAME} characters)"
        )
    return name.encode("utf-16", "surrogatepass").decode("utf-16", "replace") or None


def _plain(value: object, most_bytes: int) -> object:
    """What a record of numpy's, or of bytes, stands for, None if that is longer; anything else as it is."""
    if not isinstance(value, PickledObject):
        return value
    try:
        match value.arguments, value.built:
            case (str() as text, *_), _ if value.kind == "_codecs.encode" and len(text) <= most_bytes:
                return text.encode("latin1")
            case (list() as values, *_), _ if value.name in ("_make_dict_values", "_make_dict_keys"):
                return values
            case (PickledObject() as dtype, data), _ if _SCALAR.fullmatch(value.kind):
                (number,) = _array(dtype, data, most_bytes)
                return number
            case _, (_, _, PickledObject(), _, list() as values) if _ARRAY.fullmatch(value.kind):
                return values
            case _, (_, _, PickledObject() as dtype, _, data) if _ARRAY.fullmatch(value.kind):
                return _array(dtype, data, most_bytes)
    except (TypeError, ValueError):  # bytes that are no array of that type
        pass
    return None


def _array(dtype: PickledObject, data: object, most_bytes: int) -> list[object]:
    """The elements of an array, as numbers, texts or bytes. Raises ValueError or TypeError."""
    match dtype.arguments, dtype.built, _plain(data, most_bytes):
        case (str() as kind, *_), (_, str() as order, *_), bytes() as stored:
            if _ARRAY_TYPE.fullmatch(kind) and order in "<>|=" and len(stored) <= most_bytes:
                values: list[object] = np.frombuffer(stored, f"{order}{kind}").tolist()
                return values
    raise ValueError("not an array of numbers or texts")

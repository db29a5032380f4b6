"""`name:key=value,key=value`: how codecs and virtual cameras are written, on command lines and in handshakes."""

from __future__ import annotations

from collections.abc import Mapping


def parse_spec(text: str) -> tuple[str, dict[str, str]]:
    """The name, and the values by key as they were written; what is left out is empty.

    Raises ValueError if a key is given twice.
    """
    name, _, assignments = text.partition(":")
    values: dict[str, str] = {}
    for assignment in assignments.split(",") if assignments else ():
        key, _, value = assignment.partition("=")
        if key in values:
            raise ValueError(f"{name[:80]}: {key[:80]} is given twice")
        values[key] = value
    return name, values


def format_spec(name: str, values: Mapping[str, object]) -> str:
    """The text that `parse_spec` reads; truth values in lower case."""
    assignments = ",".join(f"{key}={str(value).lower()}" for key, value in values.items())
    return f"{name}:{assignments}" if assignments else name

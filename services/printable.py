"""Text of strangers as it may be shown: class names, stream names and reasons may move a cursor or forge a line."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""The text on one line: what is not printable as Python writes it, such as `\n`, `\x1b` and `\ud800`."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text
    )


def printable_lines(text: str) -> str:
    """The text with each of its lines printable."""
    return "\n".join(map(printable, text.split("\n")))


def well_formed(text: str) -> str:
    r"""The text as characters that every encoding of Unicode has: half of a surrogate pair becomes `\ud800`."""
    return text.encode(errors="backslashreplace").decode()

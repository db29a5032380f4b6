from __future__ import annotations

import pytest

from services.printable import printable, printable_lines, well_formed


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("hand bag", "hand bag"),
        ("Straße 日本", "Straße 日本"),
        ("a\nb\r\t", r"a\nb\r\t"),
        ("\x1b[2Jred\x07", r"\x1b[2Jred\x07"),
        ("\ud800", r"\ud800"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\u2028", r"\u2028"),
        ("\x9b31m", r"\x9b31m"),
    ],
)
def test_what_is_not_printable_is_escaped(text, shown):
    assert printable(text) == shown


def test_lines_stay_lines():
    assert printable_lines("one\ntwo\x1b\n") == "one\ntwo\\x1b\n"


def test_half_a_pair_can_be_written_everywhere():
    assert well_formed("a\ud800é\U0001f600") == "a\\ud800é\U0001f600"
    well_formed("\udfff").encode()

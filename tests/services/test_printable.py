from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from services.commands.demo import _table as demo_table
from services.printable import printable, printable_lines, well_formed
from tests.paths import ROOT


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


def test_names_of_a_strangers_classes_are_shown_as_they_are():
    """rich would take [/red] for the end of a style, and fail, and :bus: for a picture."""
    summary = {
        "kb_per_frame": 1.0,
        "frames": 1,
        "captured": 1,
        "dropped": {},
        "frames_per_second": 1.0,
        "raw_kb_per_frame": 0.0,
        "jpeg_kb_per_frame": 0.0,
        "keyframes": {},
        "latency_ms": {},
        "detections": 3,
        "detections_by_class": {"[/red]": 1, ":bus:": 1, "a\x1b[2Jb": 1},
    }
    output = io.StringIO()
    # As every command makes its own.
    console = Console(file=output, width=80, markup=False, emoji=False)
    console.print(demo_table(summary))
    for name in ("[/red]", ":bus:", r"a\x1b[2Jb"):
        assert name in output.getvalue()


def test_no_console_takes_text_for_markup():
    for path in (ROOT / "services").rglob("*.py"):
        for options in re.findall(r"\bConsole\((.*?)\)", path.read_text()):
            assert "markup=False, emoji=False" in options, path

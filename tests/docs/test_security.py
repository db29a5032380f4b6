"""The threat model names the tests that show it, and they are there."""

from __future__ import annotations

import ast
import re
from functools import cache

from tests.paths import ROOT

WHO = [
    "somebody without a token",
    "a camera",
    "a consumer",
    "a page's visitor",
    "a page of another site in a visitor's browser",
    "a network attacker",
    "a stolen token",
    "a malicious checkpoint",
    "a malicious profile",
    "a malicious exported file",
    "a malicious clip or picture",
    "an rtsp server or webcam",
]
TEST = re.compile(r"`([\w/.]+)::(\w+)`")


def threats() -> list[tuple[str, str, str, list[tuple[str, str]]]]:
    """Who, can or cannot, what, and (file, name) of the tests of each row."""
    text = (ROOT / "SECURITY.md").read_text().partition("## Threat model")[2]
    rows, who = [], ""
    for line in [line for line in text.splitlines() if line.startswith("|")][2:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        who = cells[0].lower() or who
        rows.append((who, cells[1], cells[2], TEST.findall(cells[3])))
        assert TEST.sub("", cells[3]).strip() == "", f"no test: {cells[3]}"
    return rows


@cache
def defined_in(file: str) -> frozenset[str]:
    module = ast.parse((ROOT / "tests" / file).read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(module) if isinstance(node, kinds))


def test_everybody_who_may_do_harm_is_there():
    assert list(dict.fromkeys(who for who, *_ in threats())) == WHO


def test_whatever_nobody_can_do_has_a_test_that_shows_it():
    rows = threats()
    assert {can for _, can, *_ in rows} == {"can", "cannot"}
    assert [what for _, can, what, tests in rows if can == "cannot" and not tests] == []


def test_every_test_that_is_named_exists():
    named = {test for *_, tests in threats() for test in tests}
    assert len(named) > 50
    assert [f"{file}::{name}" for file, name in sorted(named) if name not in defined_in(file)] == []

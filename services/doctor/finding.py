"""What a check found: whether that is right, what was measured, and what to change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Level: TypeAlias = Literal["ok", "warning", "error"]
"""ok: nothing to do. warning: it works, but not as well as it could, or that was not checked. error: it will not work
as the settings say."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found, for people, and its numbers for programs."""

    level: Level
    measured: str
    advice: str = ""  # what to change: a flag, or a command; empty where there is nothing
    facts: Mapping[str, object] = field(default_factory=dict)  # of JSON's types; units in the names


def fine(measured: str, **facts: object) -> Finding:
    """Nothing to do."""
    return Finding("ok", measured, facts=facts)


def doubtful(measured: str, advice: str, **facts: object) -> Finding:
    """It works, and could do better."""
    return Finding("warning", measured, advice, facts)


def wrong(measured: str, advice: str = "", **facts: object) -> Finding:
    """It will not work so. Without advice `measured` says what to do, as our errors do."""
    return Finding("error", measured, advice, facts)


def unchecked(why: str) -> Finding:
    """Nothing can be said before something else is mended."""
    return Finding("warning", f"not checked: {why}")

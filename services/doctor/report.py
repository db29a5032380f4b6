"""What a doctor says: a line a check while it looks, or all of it as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from services.doctor.examination import Result
from services.errors import Exit
from services.metrics import VERSION
from services.printable import printable
from stream.redact import redact_url

_NAME_COLUMNS = 12


def line(result: Result) -> str:
    """A check's line: how it is, what was measured, what to change. Others' words are in it, as they may be shown."""
    finding = result.finding
    advice = f" -> {finding.advice}" if finding.advice else ""
    text = f"{finding.level:<7}  {result.check:<{_NAME_COLUMNS}} {finding.measured}{advice}"
    return redact_url(printable(text)).rstrip()


def summary(results: Sequence[Result], planned: int) -> str:
    """The last line."""
    counts = Counter(result.finding.level for result in results)
    parts = [
        f"{counts['error']} error{'s' * (counts['error'] != 1)}",
        f"{counts['warning']} warning{'s' * (counts['warning'] != 1)}",
        f"{counts['ok']} ok",
    ]
    if len(results) < planned:
        parts.append(f"interrupted: {planned - len(results)} not checked")
    return ", ".join(parts)


def as_json(service: str, results: Sequence[Result], planned: int) -> str:
    """All of it as one JSON object, by lines."""
    checks = [
        {
            "check": result.check,
            "level": result.finding.level,
            "measured": _shown(result.finding.measured),
            "advice": _shown(result.finding.advice),
            "facts": dict(result.finding.facts),
            "seconds": round(result.took_s, 3),
        }
        for result in results
    ]
    report = {
        "service": service,
        "software": f"splitcast/{VERSION}",
        "ok": verdict(results, planned) is Exit.OK,
        "interrupted": len(results) < planned,
        "checks": checks,
    }
    return json.dumps(report, indent=2, allow_nan=False)


def verdict(results: Sequence[Result], planned: int) -> Exit:
    """OK where everything was looked at, and no error found."""
    if len(results) < planned or any(result.finding.level == "error" for result in results):
        return Exit.FAILURE
    return Exit.OK


def _shown(text: str) -> str:
    return redact_url(printable(text))

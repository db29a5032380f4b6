"""What tests of the study make studies and records with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from services.study.distribution import PROBABILITIES, WHOLE
from services.study.record import StudyRecord
from services.study.study import Study

StudyFactory = Callable[..., Study]


def record(experiment: str, settings: dict[str, Any], values: dict[str, Any], **changes: Any) -> StudyRecord:
    """A record of a network called tiny, at layer 4.m, as `Study.write` would make it."""
    given = {
        "network": "tiny",
        "weights": "hash",
        "split": "4.m",
        "data": "folder 3 abc",
        "seed": 0,
        **changes,
    }
    return StudyRecord(experiment, settings=settings, values=values, **given)


def distribution_records(experiment: str, network: str, **changes: Any) -> list[StudyRecord]:
    """A curve and the summary of figures 1 to 3; `changes` are of the whole tensor, of parts, or the weights."""
    whole = {
        "deviation": 1.0, "zeros": 0.45, "negatives": 0.3, "entropy": 2.0, "minimum": -0.2, "maximum": 1.5,
        "range": 1.7, "pictures": 4,
    }  # fmt: skip
    curve = {**whole, "quantiles": [float(one) for one in PROBABILITIES]}
    found = {f"4.m {WHOLE}": {**whole, **changes.get("whole", {})}}
    found |= {f"4.m {part}": {**whole, **values} for part, values in changes.get("parts", {}).items()}
    weights = changes.get("weights", "hash")
    return [
        record(
            experiment,
            {"picture": 0, "tensor": "4.m", "part": WHOLE},
            curve,
            network=network,
            weights=weights,
        ),
        record(experiment, {"summary": True}, found, network=network, weights=weights),
    ]

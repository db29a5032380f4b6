"""What the split points of a network cost."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from codec.layout import TensorSpec
from services.evaluation import point_costs as module
from services.evaluation.point_costs import point_costs
from stream.network.engine import open_network


def test_times_add_up_along_the_network(weights: Path) -> None:
    network, told = open_network(weights), []
    canvas = np.zeros((64, 96, 3), np.uint8)
    costs = point_costs(network, canvas, rounds=1, watch=lambda: told.append(1))
    assert [cost.point for cost in costs] == list(network.split_points)
    assert len(told) == len(costs)
    heads = [cost.head_ms for cost in costs]
    assert heads == sorted(heads)
    assert len({round(cost.head_ms + cost.tail_ms, 6) for cost in costs}) == 1
    assert min(min(cost.head_ms, cost.tail_ms) for cost in costs) > 0
    at = next(cost for cost in costs if cost.point == "4.m")
    assert at.raw_bytes == sum(spec.raw_bytes for spec in network.cut("4.m").layout((64, 96)))


class Half:
    """Half of a network that takes so long, by a clock of the test's own."""

    now_ms = 0
    layout = (TensorSpec("0", (1, 2, 2)),)

    def __init__(self, ms: int) -> None:
        self._ms = ms

    def __call__(self, given: object) -> object:
        Half.now_ms += self._ms
        return given


def test_times_are_those_of_heads_and_of_the_tail_behind_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    heads = {"0": Half(2), "1": Half(5), "2": Half(4)}  # the last was measured in a quiet moment
    network = SimpleNamespace(
        split_points=tuple(heads), head=lambda split, _size: heads[split], tail=lambda _split: Half(3)
    )
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic_ns=lambda: Half.now_ms * 1_000_000))
    costs = point_costs(network, np.zeros((64, 96, 3), np.uint8))  # type: ignore[arg-type]
    assert [(cost.head_ms, cost.tail_ms) for cost in costs] == [(2, 6), (5, 3), (5, 3)]

"""What the split points of a network cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np

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

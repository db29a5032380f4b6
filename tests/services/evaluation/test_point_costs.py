"""What the split points of a network cost."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from services.evaluation.point_costs import node_times_ms, point_costs
from stream.network.cut import layout, split_points
from stream.torch_network.model import Model, load_model


@pytest.fixture(scope="module")
def model(weights: Path) -> Model:
    return load_model(weights)


def test_times_add_up_along_the_network(model: Model) -> None:
    picture = torch.zeros(1, 3, 64, 96)
    times = node_times_ms(model.graph, picture, rounds=2)
    assert list(times) == [node.name for node in model.graph.nodes]
    assert min(times.values()) > 0
    costs = point_costs(model, picture)
    assert [cost.point for cost in costs] == list(split_points(model.graph))
    heads = [cost.head_ms for cost in costs]
    assert heads == sorted(heads)
    assert len({round(cost.head_ms + cost.tail_ms, 6) for cost in costs}) == 1
    at = next(cost for cost in costs if cost.point == "4.m")
    assert at.raw_bytes == sum(spec.raw_bytes for spec in layout(model.graph, "4.m", (64, 96)))

"""The live set at a split is exactly what the tail needs, as shapes say and as a run confirms."""

from __future__ import annotations

import pytest
import torch

from codec.layout import TensorSpec, raw_bytes
from stream.errors import UnknownModel, UnknownSplitPoint
from stream.network.cut import halves, layout, live_set, points, split_points
from stream.network.graph import INPUT
from stream.network.names import MODELS
from stream.network.network import official_structure
from stream.torch_network.graph import run
from stream.torch_network.model import random_model


def test_the_default_cut_has_two_live_tensors():
    kilobytes = 1024  # the paper's
    crossing = layout(official_structure("yolov5m").graph, "4.m", (480, 640))
    assert crossing == (TensorSpec("4.cv2", (96, 60, 80)), TensorSpec("4.m", (96, 60, 80)))
    assert crossing[1].raw_bytes == 1800 * kilobytes  # the one that the paper counts
    assert raw_bytes(crossing) == 3600 * kilobytes


@pytest.mark.parametrize(
    ("split", "live"),
    [
        ("0", ("0",)),
        ("2.cv2", ("1", "2.cv2")),
        ("4.m", ("4.cv2", "4.m")),
        ("4", ("4",)),
        ("6.cv1", ("4", "6.cv2", "6.cv1")),
        ("9", ("4", "6", "9")),
        ("15", ("4", "10", "14", "15")),
        ("23", ("17", "20", "23")),
    ],
)
def test_live_sets_of_yolov5n(split, live):
    assert live_set(official_structure("yolov5n").graph, split) == live


def test_split_points_are_every_node_but_detect():
    names = split_points(official_structure("yolov5n").graph)
    assert names[:12] == ("0", "1", "2.cv2", "2.cv1", "2.m", "2", "3", "4.cv2", "4.cv1", "4.m.0", "4.m", "4")
    assert names[-1] == "23"
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", ["yolov5n", "yolov5su"])
def test_the_live_set_is_enough_and_no_more(name):
    graph = random_model(name).graph
    picture = torch.rand(1, 3, 64, 64)
    for split in split_points(graph):
        head, tail = halves(graph, split)
        live = run(head, {INPUT: picture}, live_set(graph, split))
        run(tail, live, (graph.output,))
        for missing in live:
            with pytest.raises(KeyError, match=missing):
                run(tail, {key: value for key, value in live.items() if key != missing}, (graph.output,))


def test_shapes_without_weights_are_the_shapes_of_a_run():
    graph = random_model("yolov5n").graph
    size = (96, 160)
    for point in points(graph, size):
        head, _ = halves(graph, point.name)
        made = run(head, {INPUT: torch.rand(1, 3, *size)}, live_set(graph, point.name))
        assert point.layout == tuple(
            TensorSpec(name, tuple(tensor.shape[1:])) for name, tensor in made.items()
        )
        assert point.layout == layout(graph, point.name, size)


@pytest.mark.parametrize("name", MODELS)
def test_work_grows_along_the_network(name):
    shares = [point.share for point in points(official_structure(name).graph, (480, 640))]
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] < 1


@pytest.mark.parametrize(
    ("name", "giga"), [("yolov5n", 4.5), ("yolov5s", 16.5), ("yolov5m", 49.0), ("yolov5l", 109.1)]
)
def test_total_work_is_the_published_one(name, giga):
    # The release notes of v6.0 count at 640x640, with what is not convolution.
    total = points(official_structure(name).graph, (640, 640))[0].total_flops
    assert total / 1e9 == pytest.approx(giga, rel=0.03)


def test_looking_at_a_network_leaves_it_alone():
    graph = random_model("yolov5n").graph
    before = {
        node.name: [value.clone() for value in node.module.state_dict().values()] for node in graph.nodes
    }
    points(graph, (64, 64))
    for node in graph.nodes:
        after = list(node.module.state_dict().values())
        assert all(map(torch.equal, before[node.name], after))


@pytest.mark.parametrize(
    ("split", "near"),
    [("4.m.9", ("4.cv2", "4.cv1", "4.m.0", "4.m", "4")), ("24", ("23",)), ("", ("0",)), ("four", ("4",))],
)
def test_an_unknown_point_names_valid_ones_nearby(split, near):
    with pytest.raises(UnknownSplitPoint) as caught:
        live_set(official_structure("yolov5n").graph, split)
    assert set(caught.value.near) <= set(split_points(official_structure("yolov5n").graph))
    if split.startswith("4.m"):
        assert caught.value.near == near
    assert all(name in str(caught.value) for name in caught.value.near)


def test_an_unknown_model_is_refused():
    with pytest.raises(UnknownModel, match="one of yolov5n"):
        official_structure("yolov8n")

"""ONNX Runtime and boxes by our kernels beside torch and ultralytics' NMS, frame by frame in turns: `make bench`.

This is what a CPU did before, and what it does: the official yolov5n on a real clip where there is one; otherwise
random weights on frames of the virtual camera. These find noise, of which ultralytics' NMS takes seconds: there boxes
are left out.
"""

from __future__ import annotations

from itertools import islice
from statistics import median

import pytest
import torch

from stream.letterbox import Letterbox
from stream.network.boxes import detect
from stream.network.names import DEFAULT_SPLIT
from stream.network.network import load_network, random_network
from stream.network.onnx_engine import OnnxNetwork
from stream.sources.files import read_video
from stream.sources.virtual_camera import VirtualCamera
from stream.torch_network.model import torch_model
from stream.torch_network.split import TorchHead, TorchTail
from tests.benchmarks.timing import ROUNDS, show, timed
from tests.paths import SHARED
from tests.stream.network.reference_boxes import suppressed

SIZE = (384, 640)


@pytest.mark.parametrize("name", ["yolov5n", "yolov5m"])
def test_engines(benchmark, capsys, name):
    if benchmark.disabled and name == "yolov5m":
        pytest.skip("yolov5n shows that it runs: make bench")
    torch.set_num_threads(1)
    weights, clip = (
        SHARED / "data" / path for path in (f"weights/{name}.pt", "clips/one-by-one-person-detection.mp4")
    )
    official = weights.is_file() and clip.is_file()
    network = load_network(weights) if official else random_network(name)
    virtual = VirtualCamera(scene="bus", size=SIZE[::-1])
    pictures = list(islice(read_video(clip), 98, 100)) if official else [virtual.render(n) for n in range(2)]
    letterbox = Letterbox(pictures[0].shape[:2], SIZE)
    canvases = [letterbox.apply(picture) for picture in pictures]
    model, engine = torch_model(network), OnnxNetwork(network)
    torch_head, torch_tail = TorchHead(model, DEFAULT_SPLIT, SIZE), TorchTail(model)
    head, tail = engine.head(DEFAULT_SPLIT, SIZE), engine.tail(DEFAULT_SPLIT)
    times_s = {key: [] for key in ("torch head", "torch tail", "torch boxes", "head", "tail", "boxes")}

    def one_frame():
        canvas = canvases[len(times_s["head"]) % 2]
        results = []
        times_s["torch head"].append(timed(lambda given: results.append(torch_head(given)), canvas))
        features = results[-1]
        times_s["head"].append(timed(head, canvas))
        times_s["torch tail"].append(timed(lambda given: results.append(torch_tail(given)), features))
        times_s["torch boxes"].append(timed(lambda given: suppressed(given, letterbox), results[-1]))
        times_s["tail"].append(timed(lambda given: results.append(tail([given])[0]), features))
        times_s["boxes"].append(timed(lambda given: detect(given, network.levels, letterbox), results[-1]))

    benchmark.group = "one frame, in torch and in ONNX Runtime"
    benchmark.pedantic(one_frame, rounds=ROUNDS, warmup_rounds=2)
    ms = {stage: 1e3 * median(times) for stage, times in times_s.items()}
    stages = ("head", "tail", "boxes") if official else ("head", "tail")
    before = sum(ms[f"torch {stage}"] for stage in stages)
    ratios = {f"{stage} faster": ms[f"torch {stage}"] / ms[stage] for stage in stages}
    ratios["frames/s"] = before / sum(ms[stage] for stage in stages)
    benchmark.extra_info.update(ms | ratios)
    show(capsys, f"{name} ({'official' if official else 'random'} weights) by torch's", ratios, "{:.2f}")

"""The codec's time as a share of the network's own, in ONNX Runtime: `make bench`.

The official yolov5n on two neighboring frames of a real clip where there is one; otherwise random weights on two
frames of the virtual camera. Random weights have no calibration profile, and their features code worse than real ones:
the size of a packet is told beside the shares.
"""

from __future__ import annotations

from itertools import islice
from statistics import median

import pytest

from codec.packet import Stamp
from codec.spec import parse_codec
from services.profiles import resolve
from stream.letterbox import Letterbox
from stream.network.names import DEFAULT_SPLIT
from stream.network.network import load_network, random_network
from stream.network.onnx_engine import OnnxNetwork
from stream.sources.files import read_video
from stream.sources.virtual_camera import VirtualCamera
from tests.benchmarks.timing import ROUNDS, show, timed
from tests.paths import SHARED

SIZE = (480, 640)
CODECS = ["rle:bits=2", "rle:bits=3", "rle:bits=4", "rle:bits=8", "rle:bits=4,temporal=true"]
CODECS += ["feature:quality=6,temporal=false", "feature:quality=3,temporal=false", "feature:quality=6"]


@pytest.fixture(scope="module", params=["yolov5n", "yolov5m"])
def network(request):
    """Name, hash of the weights, head, tail and two canvases."""
    weights = SHARED / "data" / "weights" / f"{request.param}.pt"
    clip = SHARED / "data" / "clips" / "one-by-one-person-detection.mp4"
    official = weights.is_file() and clip.is_file()
    model = OnnxNetwork(load_network(weights) if official else random_network(request.param))
    if official:
        pictures = list(islice(read_video(clip), 98, 100))
    else:
        virtual = VirtualCamera(scene="bus", size=SIZE[::-1])
        pictures = [virtual.render(number) for number in range(2)]
    canvases = [Letterbox(picture.shape[:2], SIZE).apply(picture) for picture in pictures]
    name = f"{request.param} ({'official' if official else 'random'} weights)"
    return name, model.weights_hash, model.head(DEFAULT_SPLIT, SIZE), model.tail(DEFAULT_SPLIT), canvases


@pytest.mark.parametrize("codec", CODECS)
def test_share_of_the_network(benchmark, capsys, network, codec):
    name, weights_hash, head, tail, canvases = network
    spec = resolve(parse_codec(codec), weights_hash, head.split)
    encoder, decoder = spec.encoder(head.layout), spec.decoder(head.layout)
    features = [head(canvas) for canvas in canvases]
    times_s = {stage: [] for stage in ("head", "encode", "decode", "tail")}
    packets = []

    def one_frame():
        turn = len(packets) % 2
        times_s["head"].append(timed(head, canvases[turn]))
        stamp = Stamp(len(packets), 0)
        times_s["encode"].append(
            timed(lambda tensors: packets.append(encoder.encode(tensors, stamp)), features[turn])
        )
        times_s["decode"].append(timed(decoder.decode, packets[-1].data))
        times_s["tail"].append(timed(tail, [features[turn]]))

    benchmark.group = "one frame, head to tail"
    benchmark.pedantic(one_frame, rounds=ROUNDS, warmup_rounds=2)
    ms = {stage: 1e3 * median(times) for stage, times in times_s.items()}
    shares = {
        "encode, of the head": ms["encode"] / ms["head"],
        "decode, of the tail": ms["decode"] / ms["tail"],
    }
    benchmark.extra_info.update(
        ms | shares | {"kilobytes": median(len(packet.data) for packet in packets) / 1e3}
    )
    kilobytes = benchmark.extra_info["kilobytes"]
    show(capsys, f"{name}, {codec}, {kilobytes:.1f} kB", shares, "{:.1%}")

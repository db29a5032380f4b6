"""`splitcast bench device`: what a device computes beside the CPU, how fast, and how many streams it holds."""

from __future__ import annotations

import asyncio
import json
import platform
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from services.bench import device_figures
from services.bench.device_figures import Correctness, Pictures, Speed
from services.bench.load import bench_load
from services.bench.machine import this_machine
from services.bench.markdown import table, write_page
from services.bench.settings import BenchDeviceSettings
from services.errors import NotMeasurable
from services.torch_devices import choose_device
from stream.atomic_file import write_whole
from stream.canvas import canvas_for, parse_size
from stream.letterbox import Letterbox
from stream.network.download import find_weights
from stream.network.engine import RunnableNetwork, open_network
from stream.sources.virtual_camera import VirtualCamera
from stream.torch_network.engine import open_network as open_torch_network

SPLITS = ("4.m", "9")
LEAST_AGREEMENT = 0.99  # of float32: what agrees less computes another network
STEP = 7  # frames of the virtual camera from one picture to the next


def run_bench_device(settings: BenchDeviceSettings) -> None:
    """Compare, measure, print, and write record and page where they are asked for.

    Raises WeightsError, CheckpointError, SettingsError where there is no such device, NotMeasurable where it computes
    something else than the CPU: after all is told.
    """
    started_s = time.monotonic()
    device = choose_device(settings.device)
    correctness, speeds = _compare(settings, device)
    load = asyncio.run(bench_load(settings.load_settings))
    card = device_name(device)
    blocks = [
        f"{Path(settings.model).stem}, torch {torch.__version__}, {this_machine()}.",
        "## Against ONNX Runtime on the CPU",
        _correctness_table(correctness),
        "Head and logits: largest difference, as a share of the largest value; both halves on the device. Agreement: "
        f"AP50-95 against the CPU's confident detections on {settings.pictures} pictures of the virtual camera, 1 for "
        "an exact copy.",
        "## Frames a second of the tail, by batch",
        _speed_table(speeds),
        "From arrays in memory to arrays in memory, transfers included.",
        f"## Under load: {load.title}",
        *load.blocks(),
        f"All of it took {time.monotonic() - started_s:.0f} s.",
    ]
    print(f"# {card}", *blocks, sep="\n\n")
    if settings.out:
        record = {
            "device": card,
            "correctness": [asdict(row) for row in correctness],
            "speeds": [asdict(row) for row in speeds],
            "load": load.record(),
        }
        write_whole(settings.out, json.dumps(record, indent=2) + "\n")
    if settings.table:
        write_page(settings.table, [f"# {card}", *blocks])
    require_agreement(correctness)


def _compare(settings: BenchDeviceSettings, device: str) -> tuple[list[Correctness], list[Speed]]:
    """float32 and float16 on the device against the CPU. The networks are gone afterwards."""
    weights = find_weights(settings.model)
    reference = open_network(weights)
    pictures = _pictures(settings, reference)
    correctness, speeds = [], []
    for precision in ("float32", "float16"):
        network = open_torch_network(weights, device, settings.threads, half=precision == "float16")
        for split in SPLITS:
            correctness.append(device_figures.check(precision, network, reference, split, pictures))
            head = reference.head(split, pictures[0].shape[:2])
            frames, tail = [head(picture) for picture in pictures], network.tail(split)
            speeds += [
                device_figures.measure(precision, tail, frames, batch, settings.batch_seconds)
                for batch in settings.batch_sizes
            ]
    return correctness, speeds


def _pictures(settings: BenchDeviceSettings, network: RunnableNetwork) -> Pictures:
    camera = VirtualCamera(scene="bus")
    rendered = [camera.render(STEP * number) for number in range(settings.pictures)]
    height, width = rendered[0].shape[:2]
    canvas = canvas_for(parse_size(settings.size), height, width, network.stride)
    return [np.ascontiguousarray(Letterbox((height, width), canvas).apply(picture)) for picture in rendered]


def device_name(device: str) -> str:
    """The card's own name, or the processor's."""
    if torch.device(device).type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    return f"{this_machine().processor} ({platform.machine()}): no card"


def require_agreement(correctness: list[Correctness]) -> None:
    """Raise NotMeasurable where float32 on the device finds other objects than the CPU."""
    for row in correctness:
        if row.network == "float32" and row.agreement is not None and row.agreement < LEAST_AGREEMENT:
            raise NotMeasurable(
                f"split at {row.split} the device agrees {row.agreement:.3f} with the CPU, not {LEAST_AGREEMENT}"
            )


def _correctness_table(rows: list[Correctness]) -> str:
    return table(
        ("precision", "split", "head", "logits", "agreement"),
        [
            (
                row.network,
                row.split,
                f"{row.head:.1e}",
                f"{row.logits:.1e}",
                "" if row.agreement is None else f"{row.agreement:.4f}",
            )
            for row in rows
        ],
    )


def _speed_table(rows: list[Speed]) -> str:
    batches = sorted({row.batch for row in rows})
    kinds = dict.fromkeys((row.network, row.split) for row in rows)
    fps = {(row.network, row.split, row.batch): f"{row.fps:.0f}" for row in rows}
    return table(
        ("precision", "split", *map(str, batches)),
        [(*kind, *(fps[*kind, batch] for batch in batches)) for kind in kinds],
    )

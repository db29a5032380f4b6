"""How fast the whole pipeline is, against the same network without a split on the same frames."""

from __future__ import annotations

import asyncio
import json
import platform
import statistics
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from services.bench.settings import BenchPipelineSettings
from services.camera.service import Camera
from services.camera.settings import CameraSettings
from services.commands.loopback import local_detector
from services.detector.settings import DetectorSettings
from services.evaluation.images import folder_images
from services.loading import LoadedModel, load_network
from services.units import KB
from stream.atomic_file import write_whole
from stream.canvas import canvas_for, parse_size
from stream.letterbox import Letterbox
from stream.network.boxes import detect
from stream.network.engine import Head
from stream.sources.files import Image, read_video


async def bench_pipeline(settings: BenchPipelineSettings) -> dict[str, Any]:
    """Frames per second of the split pipeline and of the bare loop, in turn, round by round.

    The pipeline is the real one: this process is the camera, another the detector, a WebSocket over loopback
    between them. The bare loop reads, letterboxes, runs the whole network and NMS, one frame after the other,
    with as many threads. The first round warms up and is not counted.
    """
    console = Console(stderr=True, markup=False, emoji=False)
    shared: dict[str, Any] = {"model": settings.model, "threads": settings.threads, "device": settings.device}
    shared |= {"log_format": "text", "log_level": "warning"}
    to_camera: dict[str, Any] = {"source": settings.source, "size": settings.size, "codec": settings.codec}
    to_camera |= {"split": settings.split, "frames": settings.frames}
    to_camera |= {"metrics_port": 0, "stream": "bench", **shared}
    rounds = []
    async with local_detector(DetectorSettings.load({"port": 0, **shared})) as url:
        config = CameraSettings.load({"detector": url, **to_camera})
        network = await asyncio.to_thread(load_network, config)
        for number in range(settings.rounds + 1):
            camera = Camera(config)
            await camera.run()
            bare_fps = await asyncio.to_thread(bare_frames_per_second, network, config)
            if number:
                rounds.append((camera, bare_fps))
                console.print(
                    f"round {number}: pipeline {camera.statistics.frames_per_second:.1f}, bare {bare_fps:.1f} frames/s"
                )
    return _record(config, rounds)


def bare_frames_per_second(network: LoadedModel, config: CameraSettings) -> float:
    """Frames per second of `model(frame)` alone, from the first frame read to the last detections."""
    split = network.model.split_points[-1]
    tail, heads = network.model.tail(split), dict[tuple[int, int], Head]()
    size = parse_size(config.size)
    frames = 0
    started_ns = 0
    for image in islice(_pictures(Path(config.source)), config.frames):
        started_ns = started_ns or time.monotonic_ns()
        height, width = image.shape[:2]
        letterbox = Letterbox((height, width), canvas_for(size, height, width, network.model.stride))
        if letterbox.canvas not in heads:
            heads[letterbox.canvas] = network.model.head(split, letterbox.canvas)
        (logits,) = tail([heads[letterbox.canvas](letterbox.apply(image))])
        detect(logits, network.model.levels, letterbox)
        frames += 1
    return frames / (time.monotonic_ns() - started_ns) * 1e9


def _pictures(source: Path) -> Iterator[Image]:
    return iter(folder_images(source)) if source.is_dir() else read_video(source)


def _record(config: CameraSettings, rounds: list[tuple[Camera, float]]) -> dict[str, Any]:
    cameras = [camera for camera, _ in rounds]
    ratios = [camera.statistics.frames_per_second / bare_fps for camera, bare_fps in rounds]
    by_stage: dict[str, list[float]] = {}
    for camera in cameras:
        for stage, spread in camera.statistics.stages.by_stage().items():
            by_stage.setdefault(stage, []).append(spread.median_ms)
    packets = sum(camera.statistics.totals.packets for camera in cameras)
    return {
        "pipeline_fps": round(
            statistics.median(camera.statistics.frames_per_second for camera in cameras), 3
        ),
        "bare_fps": round(statistics.median(bare_fps for _, bare_fps in rounds), 3),
        "ratio": round(statistics.median(ratios), 4),
        "ratios": [round(ratio, 4) for ratio in ratios],
        "rounds": len(rounds),
        "frames": sum(camera.statistics.frame_counts.detected for camera in cameras),
        "stages_ms": {stage: round(statistics.median(values), 3) for stage, values in by_stage.items()},
        "kb_per_frame": round(
            sum(camera.statistics.totals.encoded_bytes for camera in cameras) / packets / KB, 3
        ),
        "raw_kb_per_frame": round(
            sum(camera.statistics.totals.raw_bytes for camera in cameras) / packets / KB, 3
        ),
        "model": Path(config.model).name,
        "source": Path(config.source).name,
        "split": config.split,
        "size": config.size,
        "codec": config.codec,
        "threads": config.threads,
        "machine": platform.processor() or platform.machine(),
    }


def run_bench_pipeline(settings: BenchPipelineSettings) -> None:
    """Measure, print a table, and write the record to `--json` if it is given."""
    record = asyncio.run(bench_pipeline(settings))
    table = Table(title=f"{record['model']} on {record['source']}, {record['codec']}", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_row("pipeline, frames/s (median)", f"{record['pipeline_fps']:.1f}")
    table.add_row("bare model(frame), frames/s (median)", f"{record['bare_fps']:.1f}")
    table.add_row(f"ratio (median of {record['rounds']} rounds)", f"{record['ratio']:.2f}")
    table.add_row("kB/frame", f"{record['kb_per_frame']:.1f}")
    table.add_section()
    for stage, milliseconds in record["stages_ms"].items():
        table.add_row(f"{stage}, ms (median)", f"{milliseconds:.2f}")
    Console(markup=False, emoji=False).print(table)
    if settings.record:
        write_whole(settings.record, json.dumps(record, indent=2) + "\n")

"""How fast the whole pipeline is, against the same network without a split on the same frames."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from services.bench.machine import this_machine
from services.bench.settings import BenchPipelineSettings
from services.camera.service import Camera
from services.camera.settings import CameraSettings
from services.commands.loopback import OPEN_CAMERA, OPEN_DETECTOR, local_detector
from services.detector.settings import DetectorSettings
from services.evaluation.images import folder_images
from services.loading import LoadedModel, load_network
from services.settings import EngineChoice
from services.units import KB
from stream.atomic_file import write_whole
from stream.canvas import canvas_for, parse_size
from stream.letterbox import Letterbox
from stream.network.boxes import detect
from stream.network.engine import Head
from stream.sources.files import Image, read_video


@dataclass(frozen=True, slots=True, eq=False)
class EngineRounds:
    """One engine's camera configuration and network, and what each round gave."""

    config: CameraSettings
    network: LoadedModel
    rounds: list[tuple[Camera, float]]  # the camera that has run, and the bare loop's frames a second

    async def run(self, *, counted: bool) -> str:
        """One round; what it gave, for a person."""
        camera = Camera(self.config)
        await camera.run()
        bare_fps = await asyncio.to_thread(bare_frames_per_second, self.network, self.config)
        if counted:
            self.rounds.append((camera, bare_fps))
        fps = camera.statistics.frames_per_second
        return f"{self.config.engine}: pipeline {fps:.1f}, bare {bare_fps:.1f} frames/s"

    @property
    def pipeline_fps(self) -> list[float]:
        """Of each round."""
        return [camera.statistics.frames_per_second for camera, _ in self.rounds]


async def bench_pipeline(settings: BenchPipelineSettings) -> dict[str, Any]:
    """Frames per second of the split pipeline and of the bare loop, in turn, round by round, for one engine or two.

    The pipeline is the real one: this process is the camera, another the detector, a WebSocket over loopback
    between them. The bare loop reads, letterboxes, runs the whole network and makes boxes, one frame after the other,
    with as many threads. The first round warms up and is not counted.
    """
    engines = [settings.engine, *([settings.against] if settings.against else [])]
    async with AsyncExitStack() as detectors:
        measured = [await _prepare(settings, engine, detectors) for engine in engines]
        for number in range(settings.rounds + 1):
            for engine in measured:
                told = await engine.run(counted=number > 0)
                if number:
                    print(f"round {number}, {told}", file=sys.stderr)
    first, *others = measured
    record = _record(first.config, first.rounds)
    for other in others:
        speedups = [a / b for a, b in zip(first.pipeline_fps, other.pipeline_fps, strict=True)]
        record["against"] = _record(other.config, other.rounds)
        record["speedup"] = round(statistics.median(speedups), 4)
        record["speedups"] = [round(speedup, 4) for speedup in speedups]
    return record


async def _prepare(
    settings: BenchPipelineSettings, engine: EngineChoice, detectors: AsyncExitStack
) -> EngineRounds:
    """A detector with an engine, which lives as long as `detectors`, and what its camera needs."""
    shared: dict[str, Any] = {"model": settings.model, "threads": settings.threads, "device": settings.device}
    shared |= {"engine": engine, "log_format": "text", "log_level": "warning"}
    to_camera: dict[str, Any] = {"source": settings.source, "size": settings.size, "codec": settings.codec}
    to_camera |= {"split": settings.split, "frames": settings.frames}
    to_camera |= {"metrics_port": 0, "stream": "bench", **shared}
    to_detector = DetectorSettings.load({"port": 0, **shared, **OPEN_DETECTOR})
    url = await detectors.enter_async_context(local_detector(to_detector))
    config = CameraSettings.load({"detector": url, **to_camera, **OPEN_CAMERA})
    return EngineRounds(config, await asyncio.to_thread(load_network, config), [])


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
        "engine": config.engine,
        "machine": str(this_machine()),
    }


def run_bench_pipeline(settings: BenchPipelineSettings) -> None:
    """Measure, print a table, and write the record to `--json` if it is given."""
    record = asyncio.run(bench_pipeline(settings))
    columns = [record, *([record["against"]] if settings.against else [])]
    table = Table(
        "",
        *(Column(column["engine"], justify="right") for column in columns),
        title=f"{record['model']} on {record['source']}, {record['codec']}",
        caption=record["machine"],
    )
    rows = {
        "pipeline, frames/s (median)": "pipeline_fps",
        "bare model(frame), frames/s (median)": "bare_fps",
        f"ratio (median of {record['rounds']} rounds)": "ratio",
        "kB/frame": "kb_per_frame",
    }
    for text, name in rows.items():
        table.add_row(text, *(f"{column[name]:.2f}" for column in columns))
    table.add_section()
    for stage in record["stages_ms"]:
        table.add_row(f"{stage}, ms (median)", *(f"{column['stages_ms'][stage]:.2f}" for column in columns))
    Console(markup=False, emoji=False).print(table)
    if settings.against:
        print(f"pipeline by {settings.engine}, of that by {settings.against}: {record['speedup']:.2f} times")
    if settings.record:
        write_whole(settings.record, json.dumps(record, indent=2) + "\n")

"""Camera and detector on one machine, over a real loopback WebSocket, for a person who watches."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
import webbrowser
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from services.camera.pictures import REFERENCE_QUALITY
from services.camera.service import Camera
from services.camera.settings import CameraSettings
from services.commands.loopback import OPEN_CAMERA, OPEN_DETECTOR, local_detector
from services.commands.settings import DemoSettings
from services.commands.watch import messages
from services.detections_address import detections_url
from services.detector.settings import DetectorSettings
from services.errors import Exit, NothingDetected
from services.loading import choose_engine
from services.printable import printable
from services.settings import DEFAULT_PORT
from services.signals import run_until_stopped
from services.units import KB
from stream.atomic_file import write_whole
from stream.network.download import find_weights
from stream.network.names import DEFAULT_SPLIT
from stream.redact import redact_url
from stream.sources.opening import open_source
from stream.tasks.background import run_with_background

REFRESH_S = 0.5
STREAM = "demo"
JPEG = f"JPEG, quality {REFERENCE_QUALITY}"


def run_demo(settings: DemoSettings) -> Exit:
    """Run until the source ends or the time is over, and print what happened.

    Raises SettingsError, WeightsError, SourceError, DetectorFailed, OSError.
    """
    try:
        detections = asyncio.run(_demo(settings))
    except KeyboardInterrupt:  # before there was a camera to stop
        return Exit.NOTHING_DETECTED
    return Exit.OK if detections else Exit.NOTHING_DETECTED


async def _demo(settings: DemoSettings) -> int:
    """Number of detections."""
    console = Console(markup=False, emoji=False)
    # What is wrong with the settings is said before anything starts.
    find_weights(settings.model)
    choose_engine("auto", settings.device)
    async with open_source(settings.source):
        pass
    if settings.summary:
        _check_writable(settings.summary)
    to_camera, to_detector = _service_settings(settings)
    CameraSettings.load(to_camera)
    console.print(f"source    {printable(redact_url(settings.source))}", highlight=False)
    console.print(f"network   {settings.model}, split at {DEFAULT_SPLIT}, {settings.codec}", highlight=False)
    console.print("starting the detector")
    classes: Counter[str] = Counter()
    # The page's address is the same each time, where no other program has it.
    async with local_detector(DetectorSettings.load(to_detector), usual_port=DEFAULT_PORT) as url:
        page = url.replace("ws", "http", 1) + "/"
        console.print(f"live page {page}", style="bold", highlight=False)
        console.print(f"metrics   {page}metrics", highlight=False)
        if _can_open() if settings.open is None else settings.open:
            # A text browser holds whoever opens it until it is closed.
            threading.Thread(target=webbrowser.open, args=(page,), daemon=True).start()
        camera = Camera(CameraSettings.load({"detector": url, **to_camera}))
        subscription = _count_classes(url, classes)
        running = run_with_background(
            camera.run(), subscription, _show(camera, console), _stop_after(camera, settings.seconds)
        )
        with suppress(NothingDetected):  # which the summary shows, and the exit code says
            await run_until_stopped(running, camera.stop)
    summary = summarize(camera, classes)
    console.print(_table(summary))
    if settings.summary:
        write_whole(settings.summary, json.dumps(summary, indent=2) + "\n")
    return camera.statistics.totals.detections


def _check_writable(file: Path) -> None:
    """Raises OSError where the file cannot be written; leaves what was there, and nothing new."""
    new = not file.exists()
    file.touch()
    if new:
        file.unlink()


def _service_settings(settings: DemoSettings) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the camera and the detector are told, whatever the environment says."""
    shared: dict[str, Any] = {"model": settings.model, "threads": settings.threads, "device": settings.device}
    shared |= {"log_format": "text", "log_level": "error", "split": DEFAULT_SPLIT}
    camera: dict[str, Any] = {
        "source": settings.source,
        "stream": STREAM,
        "size": settings.size,
        "codec": settings.codec,
    }
    camera |= {"preview": settings.preview, "metrics_port": 0}
    detector: dict[str, Any] = {"port": 0, "preview": True}
    return {**camera, **shared, **OPEN_CAMERA}, {**detector, **shared, **OPEN_DETECTOR}


def _can_open() -> bool:
    """Whether a person sits before a screen here; without one a text browser would take the terminal."""
    screen = sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return sys.stdout.isatty() and bool(screen)


def summarize(camera: Camera, classes: Counter[str]) -> dict[str, Any]:
    """The figures of a run: times in milliseconds, sizes in kB."""
    totals = camera.statistics.totals
    packets = max(totals.packets, 1)
    latency = camera.statistics.stages.latency()
    stages = camera.statistics.stages.by_stage()
    return {
        "frames": camera.statistics.frame_counts.detected,
        "captured": camera.statistics.frame_counts.captured,
        "dropped": {
            f"{stage}/{reason}": count
            for (stage, reason), count in camera.statistics.frame_counts.dropped.items()
        },
        "detections": totals.detections,
        "detections_by_class": dict(classes.most_common()),
        "frames_per_second": round(camera.statistics.frames_per_second, 3),
        "kb_per_frame": round(totals.encoded_bytes / packets / KB, 3),
        "raw_kb_per_frame": round(totals.raw_bytes / packets / KB, 3),
        "jpeg_kb_per_frame": round(totals.jpeg_bytes / totals.jpegs / KB, 3) if totals.jpegs else None,
        "wire_kb_per_frame": round(camera.statistics.wire.sent / packets / KB, 3),
        "keyframes": dict(camera.statistics.keyframes),
        "latency_ms": {
            **{stage: round(spread.mean_ms, 3) for stage, spread in stages.items()},
            "total": round(latency.mean_ms, 3) if latency else None,
            "total_p95": round(latency.p95_ms, 3) if latency else None,
        },
        "codec": camera.config.codec,
    }


async def _count_classes(url: str, classes: Counter[str]) -> None:
    async for text in messages(f"{detections_url(url, STREAM)}?types=detections"):
        classes.update(prediction["class"] for prediction in json.loads(text)["predictions"])


async def _stop_after(camera: Camera, seconds: float) -> None:
    """Stop after so many seconds of streaming; those count, too, in which there is no picture to stream."""
    if not seconds:
        return
    await camera.loaded.wait()
    connected, left_s = camera.statistics.connected, seconds
    while left_s > 0:
        tick_s = min(left_s, REFRESH_S)
        await asyncio.sleep(tick_s)
        if (
            connected["detector"] or not connected["source"]
        ):  # no getting ready: that is not what one came to watch
            left_s -= tick_s
    camera.stop()


async def _show(camera: Camera, console: Console) -> None:
    """A line that follows the stream: in place on a terminal, one every few seconds elsewhere."""
    with Live(Text("loading the network"), console=console, auto_refresh=False, transient=True) as live:
        started_s = shown_s = time.monotonic()
        while True:
            await asyncio.sleep(REFRESH_S)
            live.update(Text(_line(camera)), refresh=True)
            if not console.is_terminal and time.monotonic() - shown_s > 10 * REFRESH_S:
                shown_s = time.monotonic()
                console.print(f"{shown_s - started_s:5.0f} s  {_line(camera)}")


def _line(camera: Camera) -> str:
    if not camera.loaded.is_set():
        return "loading the network"
    if not camera.statistics.connected["source"]:
        return f"waiting for the source: {printable(camera.statistics.source_trouble or 'opening')}"
    latency = camera.statistics.stages.latency()
    if latency is None:
        return "waiting for the first frame"
    return (
        f"{camera.statistics.frames_per_second:5.1f} frames/s  "
        f"{camera.statistics.totals.encoded_bytes / camera.statistics.totals.packets / KB:7.1f} kB/frame  "
        f"{latency.median_ms:5.0f} ms  {camera.statistics.totals.detections:6d} detections"
    )


def _table(summary: dict[str, Any]) -> Table:
    table = Table(title="split detection over loopback", title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    kilobytes = summary["kb_per_frame"]
    table.add_row("frames detected", f"{summary['frames']} of {summary['captured']}")
    for cause, count in summary["dropped"].items():
        table.add_row(f"  dropped: {cause}", str(count))
    table.add_row("frames/s", f"{summary['frames_per_second']:.1f}")
    table.add_row("kB/frame", f"{kilobytes:.1f}")
    for name, key in (("raw tensors", "raw_kb_per_frame"), (JPEG, "jpeg_kb_per_frame")):
        if summary[key] and kilobytes:
            times = summary[key] / kilobytes
            share = f"{times:.{0 if times >= 100 else 1}f} times as much"
            table.add_row(f"  as {name}, kB/frame", f"{summary[key]:.1f} ({share})")
    keyframes = ", ".join(f"{count} {reason}" for reason, count in summary["keyframes"].items())
    table.add_row("keyframes", keyframes)
    table.add_section()
    for stage, milliseconds in summary["latency_ms"].items():
        if milliseconds is not None:
            table.add_row(f"{stage.replace('_', ', ')}, ms", f"{milliseconds:.1f}")
    table.add_section()
    table.add_row("detections", str(summary["detections"]))
    for name, count in summary["detections_by_class"].items():
        table.add_row(f"  {printable(name)}", str(count))
    return table

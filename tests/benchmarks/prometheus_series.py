"""What a series of a camera costs a Prometheus in memory: kB of its resident memory.

    python -m tests.benchmarks.prometheus_series [--cameras 10000] [--minutes 4]

A real Prometheus scrapes what so many cameras would tell with `--metrics brief`, each series with the camera's own
`instance`, every 15 s, in pages of a hundred cameras, with values that change. The figure is
the most resident memory of the last minute, less what it held without series, by series; queries are not counted.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import yaml
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from services.camera.metrics import CameraMetrics
from stream.frame_counts import DROPS
from tests.ports import free_port

CAMERAS_A_PAGE = 100
SCRAPE_S = 15
PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")


def series_of_a_camera() -> list[str]:
    """Names and labels, of a camera that has lived for a while."""
    metrics = CameraMetrics(full=False)
    metrics.info.labels("door", "yolov5n", "4.m", "feature:quality=6").set(1)
    metrics.source_state.labels("open").set(1)
    for reason in ("first", "periodic", "scene"):
        metrics.keyframes.labels(reason).inc()
    for stage, reason in DROPS[:3]:
        metrics.dropped.labels(stage, reason).inc()
    text = generate_latest(metrics.served).decode()
    return [
        sample.name + "{" + ",".join(f'{key}="{value}"' for key, value in sample.labels.items())
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


class Page(BaseHTTPRequestHandler):
    """`GET /N`: the series of a hundred cameras."""

    series: list[str]
    random = Random(0)

    def do_GET(self) -> None:
        first = int(self.path.strip("/")) * CAMERAS_A_PAGE
        value = time.time()
        lines = []
        for camera in range(first, first + CAMERAS_A_PAGE):
            for name in self.series:
                comma = "" if name.endswith("{") else ","
                lines.append(
                    f'{name}{comma}instance="camera-{camera:06d}:8766"}} {value + self.random.random():.3f}\n'
                )
        body = "".join(lines).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.prometheus_series", description=__doc__)
    parser.add_argument("--cameras", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=4)
    options = parser.parse_args()
    Page.series = series_of_a_camera()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    pages = options.cameras // CAMERAS_A_PAGE
    jobs = [
        {
            "job_name": f"page-{page}",
            "honor_labels": True,
            "metrics_path": f"/{page}",
            "static_configs": [{"targets": [f"127.0.0.1:{server.server_port}"]}],
        }
        for page in range(pages)
    ]
    empty_mb = most_mb([], 0.5)
    full_mb = most_mb(jobs, options.minutes)
    series = pages * CAMERAS_A_PAGE * len(Page.series)
    print(
        f"{len(Page.series)} series a camera, {series:,} in all: {full_mb:.0f} MB, {empty_mb:.0f} without: "
        f"{(full_mb - empty_mb) * 1e3 / series:.1f} kB a series"
    )


def most_mb(jobs: list[dict[str, object]], minutes: float) -> float:
    """Most resident memory of a Prometheus that does these jobs, in the last of so many minutes."""
    with TemporaryDirectory() as folder:
        config = Path(folder) / "prometheus.yml"
        config.write_text(
            yaml.safe_dump({"global": {"scrape_interval": f"{SCRAPE_S}s"}, "scrape_configs": jobs})
        )
        flags = [f"--config.file={config}", f"--storage.tsdb.path={folder}/data", "--log.level=error"]
        flags.append(f"--web.listen-address=127.0.0.1:{free_port()}")
        with subprocess.Popen(["prometheus", *flags]) as process:
            pages, most = Path(f"/proc/{process.pid}/statm"), 0.0
            began_s = time.monotonic()
            while (elapsed_s := time.monotonic() - began_s) < minutes * 60:
                time.sleep(1)
                if elapsed_s > min(minutes * 60 - 60, minutes * 30):
                    most = max(most, int(pages.read_text().split()[1]) * PAGE_SIZE / 1e6)
            process.terminate()
    return most


if __name__ == "__main__":
    main()

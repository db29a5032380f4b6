"""What the programs take of a small machine: CPU seconds until they do something, and memory while they stream.

    python -m tests.benchmarks.footprint [--seconds 20]

Kernels come from numba's cache: the first run only fills it. A first packet is counted to the end of a camera that
sends one.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from urllib.request import urlopen

from tests.ports import free_port

ROUNDS = 3
READY_S = 180.0
BESIDE_S = 0.2


def program(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "services.cli", *arguments]


def cpu_s(*arguments: str) -> float:
    """CPU seconds of a command to its end, all of its processes and threads."""

    def used_s() -> float:
        times = os.times()
        return times.children_user + times.children_system

    before_s = used_s()
    subprocess.run(program(*arguments), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return used_s() - before_s


def resident_mb(pid: int) -> tuple[float, float]:
    """Resident memory of a process now, and the most that it ever was."""
    status = Path(f"/proc/{pid}/status").read_text()
    now, most = (re.search(rf"{name}:\s+(\d+) kB", status) for name in ("VmRSS", "VmHWM"))
    assert now
    assert most
    return int(now[1]) / 1000, int(most[1]) / 1000


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(program(*arguments, "--log-level", "error"))
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes], pattern: str = "") -> None:
    """Until the page is there and has the pattern."""
    end_s = time.monotonic() + READY_S
    while time.monotonic() < end_s:
        assert process.poll() is None, "it has ended"
        try:
            with urlopen(url, timeout=READY_S) as answer:  # noqa: S310 - of this machine
                if re.search(pattern, answer.read().decode(), re.MULTILINE):
                    return
        except OSError:
            pass
        time.sleep(BESIDE_S)
    raise TimeoutError(url)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="to stream before memory is read")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--source", default="demo")
    options = parser.parse_args()
    model = ("--model", options.model)
    port, metrics_port = str(free_port()), str(free_port())
    detector_url = f"ws://127.0.0.1:{port}"
    camera = ("camera", *model, "--source", options.source, "--detector", detector_url)

    for words in (["--help"], ["watch", "--help"], ["camera", "--help"]):
        seconds = median(cpu_s(*words) for _ in range(ROUNDS))
        print(f"splitcast {' '.join(words)}: {seconds:.2f} s of CPU", flush=True)
    with running("detector", "--port", port, *model) as detector:
        wait_for(f"http://127.0.0.1:{port}/readyz", detector)
        print(f"detector, ready: {resident_mb(detector.pid)[0]:.0f} MB resident", flush=True)
        one_packet = (*camera, "--frames", "1", "--metrics-port", "0", "--stream", "one")
        seconds = [cpu_s(*one_packet) for _ in range(ROUNDS + 1)][1:]
        print(f"camera to its first packet: {median(seconds):.2f} s of CPU", flush=True)
        with running(*camera, "--metrics-port", metrics_port, "--stream", "all") as process:
            metrics = f"http://127.0.0.1:{metrics_port}/metrics"
            wait_for(metrics, process, r"^splitcast_camera_frames_detected_total[^\n]* [1-9]")
            time.sleep(options.seconds)
            for name, pid in (("camera", process.pid), ("detector", detector.pid)):
                now, most = resident_mb(pid)
                print(f"{name}, after {options.seconds:g} s: {now:.0f} MB resident, at most {most:.0f}")


if __name__ == "__main__":
    main()

"""What an honest camera has while a detector is attacked, beside what it has alone.

    python -m tests.attacks [--seconds 15] [--rate 10] [--only NAME] [--table docs/results/attacks.md]

A detector with tokens and TLS runs in a process of its own, and so does the attacker, who comes from eight addresses of
loopback's, ten rounds of eight tries a second. Before each attack the camera is measured alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from services.access.tokens import new_token
from services.bench.machine import this_machine
from services.bench.markdown import table, write_page
from services.bench.recording import RecordedPackets, record_packets
from services.bench.settings import BenchLoadSettings
from services.bench.simulated_camera import DETECTED, SimulatedCamera
from services.environment import forget_loading
from services.loading import LoadedModel, find_network
from stream.errors import ConnectionLost
from stream.session.messages import FEATURES_PROTOCOL
from stream.tasks.background import run_with_background
from stream.transport.tls import ClientTls
from stream.transport.websocket import connect
from tests.attacks.attacker import Target
from tests.attacks.attacks import ATTACKS, HONEST, KEPT_OUT
from tests.attacks.besiege import NICE, SOURCES
from tests.attacks.tokens import token_table
from tests.certificates import Authority
from tests.ports import free_port

WARM_UP_S = 2.0
MOST_RATIO = 2.0  # of the camera's p99 beside an attack to its own


@dataclass(frozen=True)
class Figures:
    """Of one camera over some seconds."""

    frames: int
    detected: int
    p50_ms: float
    p99_ms: float


@dataclass
class Siege:
    """What came of an attack."""

    tries: int = 0
    answers: Counter[str] = field(default_factory=Counter)  # of those that were over


@asynccontextmanager
async def attacked(name: str, target: Target) -> AsyncIterator[Siege]:
    """The attack goes on meanwhile; what came of it is known afterwards."""
    siege = Siege()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.attacks.besiege", name),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin
    assert process.stdout
    process.stdin.write(json.dumps(asdict(target) | {"ca": str(target.ca)}).encode() + b"\n")
    try:
        assert await process.stdout.readline()
        yield siege
    finally:
        process.terminate()
        said = json.loads(await process.stdout.read())
        siege.tries, siege.answers = said["tries"], Counter(said["answers"])
        await process.wait()


@asynccontextmanager
async def detector(folder: Path, authority: Authority, tokens: Path) -> AsyncIterator[tuple[int, int]]:
    """Port and process id of a detector that is ready."""
    port = free_port()
    settings = {
        "port": port,
        "model": "demo",
        "tokens": tokens,
        "tls-cert": authority.sign(),
        "device": "cpu",
    }
    flags = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    with (folder / "detector.log").open("w") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.cli", "detector", *flags), stderr=file
        )
        try:
            while '"ready"' not in (folder / "detector.log").read_text():
                assert process.returncode is None, (folder / "detector.log").read_text()
                await asyncio.sleep(0.2)
            yield port, process.pid
        finally:
            process.terminate()
            await process.wait()


async def measure(
    recorded: RecordedPackets, url: str, options: argparse.Namespace, **connection: Any
) -> Figures:
    """What the honest camera has now."""
    stopping = asyncio.Event()
    camera = SimulatedCamera(recorded, HONEST, f"{0:032x}", window=3, interval_s=1 / options.rate)

    async def watch() -> Figures:
        await camera.welcomed.wait()
        await asyncio.sleep(WARM_UP_S)
        first = len(camera.frames)
        await asyncio.sleep(options.seconds)
        frames = camera.frames[first:-1]
        stopping.set()
        await camera.over.wait()
        latencies = [frame.latency_ns / 1e6 for frame in frames if frame.outcome == DETECTED]
        p50, p99 = np.percentile(latencies, [50, 99])
        return Figures(len(frames), len(latencies), round(float(p50), 1), round(float(p99), 1))

    return await run_with_background(watch(), camera.run(url, 0.0, stopping, **connection))


async def until_revoked(url: str, token: str, tls: ClientTls) -> None:
    """Wait until the detector has read its tokens anew, and this one is not among them."""
    headers = {"Authorization": f"Bearer {token}"}
    while True:
        try:
            async with connect(f"{url}/v1/features", FEATURES_PROTOCOL, headers=headers, tls=tls):
                await asyncio.sleep(0.1)
        except ConnectionLost as lost:
            if lost.status == 401:
                return


async def compare(options: argparse.Namespace, folder: Path) -> list[str]:
    """A page with what was measured."""
    recorded = record_packets(
        BenchLoadSettings.load({"model": "demo", "fps": options.rate}),
        LoadedModel("demo", find_network("demo")),
    )
    forget_loading()  # as a camera does
    authority, tokens, machine = Authority(folder), folder / "tokens.toml", this_machine()
    honest, stranger, consumer, revoked = (new_token() for _ in range(4))
    tokens.touch(0o600)
    tokens.write_text(token_table(honest, stranger, consumer, revoked))
    connection: dict[str, Any] = {
        "headers": {"Authorization": f"Bearer {honest}"},
        "tls": ClientTls(authority.file),
    }
    rows = []
    async with detector(folder, authority, tokens) as (port, pid):
        url = f"wss://127.0.0.1:{port}"
        tokens.write_text(token_table(honest, stranger, consumer))
        os.kill(pid, signal.SIGHUP)
        await until_revoked(url, revoked, connection["tls"])
        hello = recorded.hello("yard1", f"{1:032x}").text()
        target = Target(port, authority.file, stranger, consumer, revoked, hello)
        for name in [options.only] if options.only else ATTACKS:
            alone = await measure(recorded, url, options, **connection)
            async with attacked(name, target) as siege:
                beside = await measure(recorded, url, options, **connection)
            rows.append(row(name, alone, beside, siege))
            print(" | ".join(rows[-1]), flush=True)
    title = [
        "attack",
        "tries",
        "answered",
        "frames kept",
        "alone",
        "p50, ms",
        "p99, ms",
        "p99 alone, ms",
        "ratio",
    ]
    slow = [name.strip() for name, *_, ratio in rows if float(ratio) > MOST_RATIO]
    return [
        "# Attacks",
        f"Made by `python -m tests.attacks --seconds {options.seconds:g} --rate {options.rate:g}`: one honest "
        f"camera of {options.rate:g} frames a second, for {options.seconds:g} s alone and then as long beside each "
        f"attack. Detector and camera (nice {os.nice(0)}) and attacker (nice {min(19, os.nice(0) + NICE)}) share "
        f"{machine.cores} cores ({machine.processor}) with other programs: load {machine.load:.1f} at the start. The "
        f"attacker comes from {SOURCES} addresses, makes up to 80 tries a second, stays where it is let in, and knows "
        "everything but the honest camera's token.",
        table(title, rows),
        "*answered*: HTTP statuses, WebSocket close codes, and `dropped` where the connection ended without a word; "
        "*frames kept*: the share of the camera's frames that were detected, beside the attack and alone. Latency is "
        "from capture to acknowledgement; the p99 of so few frames is nearly that of the slowest.",
        f"A p99 above {MOST_RATIO:g} times the camera's own: {', '.join(slow) or 'none'}. The attacker's own work, TLS "
        "handshakes above all, is done on the cores of detector and camera here.",
    ]


def row(name: str, alone: Figures, beside: Figures, siege: Siege) -> list[str]:
    unexpected = set(siege.answers) - ATTACKS[name].answers - KEPT_OUT
    said = ", ".join(f"{answer}: {count}" for answer, count in siege.answers.most_common())
    return [
        name,
        str(siege.tries),
        said + (" (NOT EXPECTED)" if unexpected else ""),
        f"{beside.detected / beside.frames:.1%}",
        f"{alone.detected / alone.frames:.1%}",
        f"{beside.p50_ms:.1f}",
        f"{beside.p99_ms:.1f}",
        f"{alone.p99_ms:.1f}",
        f"{beside.p99_ms / alone.p99_ms:.2f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--rate", type=float, default=10)
    parser.add_argument("--only", choices=ATTACKS)
    parser.add_argument("--table", type=Path)
    parser.add_argument(
        "--besiege", choices=ATTACKS, help="only be the attacker; standard input has the target"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        page = asyncio.run(compare(options, Path(folder)))
    print(*page, sep="\n\n")
    if options.table:
        write_page(options.table, page)


if __name__ == "__main__":
    main()

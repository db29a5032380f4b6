"""A real HAProxy before detectors of this machine, by the file that operators get."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.paths import DEPLOY, ROOT
from tests.ports import free_port
from tests.services.waiting import LIVENESS_S

HAPROXY = shutil.which("haproxy", path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin")
FILE = DEPLOY / "haproxy/haproxy.cfg"
SHARDS = 3  # of the file
DETECTOR = "detector.example"  # the name in docs/shards.md


class Balancer:
    """What HAProxy is started with: the operators' file, with places of this machine in place of theirs."""

    def __init__(
        self, folder: Path, ports: list[int], certificate: Path | None, detectors: Path | None = None
    ) -> None:
        """`ports` are the detectors'; one that the file does not have joins with `join`.

        `detectors` has who signed their certificates, for DETECTOR; None: they take no TLS.
        """
        self.port, self.file = free_port(), folder / "haproxy.cfg"
        self._figures, self._ports, self._certificate = free_port(), ports, certificate
        self._text = FILE.read_text()
        if os.getuid() != 0:  # nobody else can become another user
            self._replace("    user haproxy\n    group haproxy\n", "")
        if detectors:
            self._replace("defaults\n", f"defaults\n{tls_to_detectors(detectors)}\n")
        self.write()

    def join(self) -> None:
        """Add the fourth shard wherever the third is, as docs/shards.md tells."""
        self._replace("-m str s1 s2 s3", "-m str s1 s2 s3 s4")
        stand_in = "    server s3 10.0.0.13:8765 id 3 track s3/s3 backup"
        joined = []
        for section in self._text.split("\n\n"):
            head = section.partition("\n")[0]
            if head == "backend s3":
                joined += [f"{section}\n{_fourth(stand_in)}", f"{_fourth(section)}\n{stand_in}"]
            elif head in ("frontend shard-s3", "backend only-s3"):
                joined += [section, _fourth(section)]
            else:
                joined.append(re.sub(r"^    server s3 .*$", _beside, section, flags=re.MULTILINE))
        self._text = "\n\n".join(joined)
        self.write()

    def write(self) -> None:
        text = self._text.replace(
            "10s\n    stats socket /run/haproxy/admin.sock", "1s\n    stats socket {socket}"
        )
        tls = f" ssl crt {self._certificate} alpn" if self._certificate else ""
        text = text.replace("{socket}", str(self.file.with_suffix(".sock")))
        text = text.replace(
            "bind :8765 ssl crt /etc/haproxy/splitcast.pem alpn", f"bind 127.0.0.1:{self.port}{tls}"
        )
        text = text if tls else text.replace(f":{self.port} http/1.1", f":{self.port}")
        text = text.replace("127.0.0.1:8405", f"127.0.0.1:{self._figures}")
        text = text.replace("abns@splitcast-", f"abns@splitcast-{self.port}-")
        for number, port in enumerate(self._ports, start=1):
            text = text.replace(f"10.0.0.1{number}:8765", f"127.0.0.1:{port}")
        assert "10.0.0." not in text
        assert "8765" not in text.replace(str(self.port), "")
        self.file.write_text(text)

    def _replace(self, old: str, new: str) -> None:
        assert old in self._text, old
        self._text = self._text.replace(old, new)


def _fourth(third: str) -> str:
    """What is written of the third shard, of the fourth."""
    return third.replace("s3", "s4").replace("10.0.0.13", "10.0.0.14").replace("id 3", "id 4")


def _beside(third: re.Match[str]) -> str:
    return f"{third[0]}\n{_fourth(third[0])}"


def tls_to_detectors(authority: Path) -> str:
    """The line that docs/shards.md gives for it."""
    [line] = re.findall(r"^ {4}default-server ssl .*$", (ROOT / "docs/shards.md").read_text(), re.MULTILINE)
    return str(line).replace("/etc/haproxy/detectors.pem", str(authority))


class RunningBalancer:
    """HAProxy in a master and a worker, as systemd starts it."""

    def __init__(self, balancer: Balancer, process: asyncio.subprocess.Process, log: Path) -> None:
        self.port, self._balancer, self._process, self._log = balancer.port, balancer, process, log

    def reload(self) -> None:
        """Read the file anew."""
        self._process.send_signal(signal.SIGUSR2)

    async def until_listening(self) -> None:
        async with asyncio.timeout(LIVENESS_S):
            while True:
                assert self._process.returncode is None, self._log.read_text()
                with suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                await asyncio.sleep(0.05)


@asynccontextmanager
async def haproxy(balancer: Balancer) -> AsyncIterator[RunningBalancer]:
    """HAProxy, which listens."""
    assert HAPROXY
    log = balancer.file.with_suffix(".log")
    with log.open("w") as output:
        process = await asyncio.create_subprocess_exec(
            HAPROXY, "-W", "-db", "-f", str(balancer.file), stdout=output, stderr=output
        )
    running = RunningBalancer(balancer, process, log)
    try:
        await running.until_listening()
        yield running
    finally:
        if process.returncode is None:
            process.terminate()  # the master ends its worker
            await asyncio.wait_for(process.wait(), LIVENESS_S)

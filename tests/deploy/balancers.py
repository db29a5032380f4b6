"""A real HAProxy before detectors of this machine, by the file that operators get."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.paths import DEPLOY
from tests.ports import free_port
from tests.services.waiting import LIVENESS_S

HAPROXY = shutil.which("haproxy", path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin")
FILE = DEPLOY / "haproxy/haproxy.cfg"
SHARDS = 3  # of the file


class Balancer:
    """What HAProxy is started with: the operators' file, with places of this machine in place of theirs."""

    def __init__(self, folder: Path, ports: list[int], certificate: Path | None) -> None:
        """`ports` are the detectors'; one that the file does not have joins with `join`."""
        self.port, self.file = free_port(), folder / "haproxy.cfg"
        self._figures, self._ports, self._certificate = free_port(), ports, certificate
        self._text = FILE.read_text()
        self.write()

    def join(self) -> None:
        """Add the fourth shard, as docs/shards.md tells."""
        self._replace("-m str s1 s2 s3", "-m str s1 s2 s3 s4")
        self._replace(
            "    server s3 abns@splitcast-s3 id 3\n",
            "    server s3 abns@splitcast-s3 id 3\n    server s4 abns@splitcast-s4 id 4\n",
        )
        for begin in ("frontend shard-s3\n", "backend s3\n", "backend only-s3\n"):
            section = self._text[self._text.index(f"\n{begin}") + 1 :].split("\n\n")[0]
            joined = section.replace("s3", "s4").replace("10.0.0.13", "10.0.0.14").replace("id 3", "id 4")
            self._replace(f"{section}\n", f"{section}\n\n{joined}\n")
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

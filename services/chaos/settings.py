"""Settings of `splitcast chaos`."""

from __future__ import annotations

from typing import Annotated, ClassVar, NamedTuple
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from services.chaos.faults import FAULTS, parse_fault
from services.command_settings import CommandSettings
from services.logs import LogSettings
from services.settings import (
    PathSetting,
    Seconds,
)


class Address(NamedTuple):
    """Where a TCP server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """HOST:PORT, with an IPv6 address in brackets. Raises ValueError."""
    parts = urlsplit(f"//{text}")
    if parts.netloc != text or not parts.hostname or parts.port is None or "@" in text:
        raise ValueError("must be an address such as 127.0.0.1:8765 or [::1]:8765")
    return Address(parts.hostname, parts.port)


def _address_text(text: str) -> str:
    return str(parse_address(text))


def _fault_texts(texts: tuple[str, ...]) -> tuple[str, ...]:
    for text in texts:
        parse_fault(text)
    return texts


AddressText = Annotated[str, AfterValidator(_address_text)]


class ChaosSettings(CommandSettings):
    """Settings of `splitcast chaos`."""

    epilog: ClassVar[str | None] = (
        f"faults: {', '.join(FAULTS)}; docs/chaos.md describes them\n\n"
        "  splitcast chaos --listen 127.0.0.1:9000 --to 127.0.0.1:8765 --fault latency:ms=250,jitter=50\n"
        "  splitcast chaos --listen 127.0.0.1:9000 --to 127.0.0.1:8765 --fault blackhole:start=10,duration=30\n"
        "  splitcast chaos --listen 127.0.0.1:9000 --to 127.0.0.1:8765 --fault flip:kind=binary,probability=.1"
    )

    listen: AddressText = Field(title="HOST:PORT", description="where clients connect; port 0: any free one")
    to: AddressText = Field(title="HOST:PORT", description="the server that they reach")
    fault: Annotated[tuple[str, ...], AfterValidator(_fault_texts)] = Field(
        (), title="NAME:KEY=VALUE,...", description="what goes wrong, and when; may be repeated"
    )
    seconds: Seconds | None = Field(None, title="N", description="how long (default: until Ctrl-C)")
    seed: int = Field(0, title="N", description="of the random choices: the same seed, the same choices")
    json_file: PathSetting | None = Field(
        None, alias="json", title="FILE", description="write the report there (default: standard output)"
    )

    @property
    def logs(self) -> LogSettings:
        return LogSettings("auto", "info")

"""An MQTT broker: where it is, and how it and its client know each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

from services.errors import SettingsError
from services.listening import is_loopback
from services.regular_file import open_regular
from stream.transport.tls import ClientTls

PORTS = {"mqtt": 1883, "mqtts": 8883}
EXAMPLE = "write mqtt://HOST[:1883], or mqtts://HOST[:8883] for TLS, and a user before the host: USER@HOST"
_LONGEST = 4096  # bytes that are read of a password's file


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """What an address such as mqtts://door@broker.example:8883 says."""

    host: str
    port: int
    tls: bool
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """Raises ValueError, which does not show the address: there may be a password in it."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:  # of a port that is no number, or a bracket that is not closed
            raise ValueError(f"is no address of a broker: {EXAMPLE}") from None
        if parts.scheme not in PORTS or not parts.hostname or port == 0:
            raise ValueError(f"is no address of a broker: {EXAMPLE}")
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError(
                "has something after host and port, where nothing may stand; a password that has / ? or # goes into "
                "--mqtt-password-file, or is written with %2F, %3F and %23"
            )
        user = unquote(parts.username) if parts.username is not None else None
        password = unquote(parts.password) if parts.password is not None else None
        if not all(text.isprintable() for text in (parts.hostname, user or "", password or "")):
            raise ValueError("has characters that cannot be printed")
        return cls(parts.hostname, port or PORTS[parts.scheme], parts.scheme == "mqtts", user, password)

    def __str__(self) -> str:
        """Without user and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker, and what its client shows it."""

    address: BrokerAddress
    tls: ClientTls | None = None  # None: as the address says, with the authorities that this machine trusts
    own_password: str | None = field(default=None, repr=False)  # None: that of the address or the file
    password_file: Path | None = None  # read anew for each connection

    def password(self) -> str | None:
        """The password as it is now. Touches the file: for a worker thread. Raises SettingsError."""
        if self.password_file is None:
            return self.own_password or self.address.password
        try:
            with open_regular(self.password_file) as opened:
                text = opened.read(_LONGEST).decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise SettingsError(f"--mqtt-password-file: {self.password_file} is not UTF-8") from None
        except OSError as error:
            raise SettingsError(
                f"--mqtt-password-file: cannot read {self.password_file}: {error.strerror}"
            ) from None
        if not text or not text.isprintable():
            raise SettingsError(f"--mqtt-password-file: {self.password_file} holds no password on one line")
        return text

    @property
    def tells_password(self) -> bool:
        """Whether everybody on the way to the broker can read the password."""
        has_password = self.password_file or self.own_password or self.address.password
        return bool(has_password) and not self.address.tls and not is_loopback(self.address.host)

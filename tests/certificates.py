"""Certificates as people have them, right and wrong: made by trustme, as PEM files."""

from __future__ import annotations

import ssl
from datetime import datetime
from pathlib import Path

import trustme

HOST = "127.0.0.1"
FUTURE = datetime(2999, 1, 1), datetime(2999, 2, 1)  # noqa: DTZ001 - as trustme takes them
PAST = datetime(2020, 1, 1), datetime(2021, 1, 1)  # noqa: DTZ001 - as trustme takes them


class Authority:
    """Who signs certificates, and where the files are."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._authority = folder, trustme.CA()
        self.file = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(self.file)

    def sign(
        self, *names: str, file: str = "server.pem", valid: tuple[datetime, datetime] | None = None
    ) -> Path:
        """A file with a certificate for these names, HOST unless told, and its key."""
        first, last = valid or (None, None)
        made = self._authority.issue_cert(*(names or (HOST,)), not_before=first, not_after=last)
        path = self.folder / file
        made.private_key_and_cert_chain_pem.write_to_path(path)
        return path

    def client_context(self) -> ssl.SSLContext:
        """What connects to whoever has a certificate of this authority."""
        return ssl.create_default_context(cafile=str(self.file))


def der(file: Path) -> bytes:
    """The first certificate of a PEM file, in DER."""
    text = file.read_text()
    return ssl.PEM_cert_to_DER_cert(text[text.index("-----BEGIN CERTIFICATE") :])

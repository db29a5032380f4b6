from __future__ import annotations

from datetime import UTC, datetime

import pytest

from stream.transport.certificate import end_of_first
from stream.transport.tls import RenewedContext, ServerTls
from tests.certificates import FUTURE, PAST, Authority


@pytest.mark.parametrize(
    "valid",
    [FUTURE, PAST, (datetime(2020, 1, 1), datetime(2049, 12, 31, 23, 59, 59))],  # noqa: DTZ001
)
def test_tells_when_a_certificate_ends(tmp_path, valid):
    """As two digits of a year up to 2049, and as four from then on (RFC 5280, 4.1.2.5)."""
    authority = Authority(tmp_path)
    file = authority.sign(valid=valid)
    assert end_of_first(file.read_bytes()) == valid[1].replace(tzinfo=UTC).timestamp()


def test_the_first_of_a_chain_counts_and_a_key_may_come_before_it(tmp_path):
    authority = Authority(tmp_path)
    file = authority.sign(valid=PAST)
    pem = file.read_text() + authority.file.read_text()
    assert pem.startswith(("-----BEGIN EC PRIVATE KEY", "-----BEGIN PRIVATE KEY"))
    assert end_of_first(pem.encode()) == PAST[1].replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    "pem",
    [
        lambda pem: pem.replace(b"CERTIFICATE", b"X509 CERTIFICATE"),
        lambda pem: pem.replace(b"CERTIFICATE", b"TRUSTED CERTIFICATE"),
        lambda pem: pem.replace(b"\n", b"\r\n"),
        lambda pem: "subject=O = Bäckerei\n".encode("latin-1") + pem,
        lambda pem: b"# behind -----BEGIN CERTIFICATE----- and before -----END CERTIFICATE-----\n" + pem,
    ],
)
def test_reads_what_openssl_reads(tmp_path, pem):
    file = Authority(tmp_path).sign(valid=FUTURE)
    file.write_bytes(pem(file.read_bytes()))
    tls = ServerTls(file)
    tls.context()
    assert RenewedContext(tls, lambda reason, peer: None).ends_s == FUTURE[1].replace(tzinfo=UTC).timestamp()

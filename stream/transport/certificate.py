"""What a certificate says of itself (X.509, RFC 5280), as far as it is needed: when it ends. No I/O."""

from __future__ import annotations

import calendar
import ssl
import time

_BEGIN = "-----BEGIN CERTIFICATE-----"
_END = "-----END CERTIFICATE-----"
_VERSION, _UTC_TIME = 0xA0, 0x17  # tags of DER (X.690)
_FORMATS = {True: "%y%m%d%H%M%SZ", False: "%Y%m%d%H%M%SZ"}


def end_of_first(pem: str) -> float:
    """When the first certificate of a PEM file ends, as Unix time: the server's own one, as TLS wants it.

    The file is one that OpenSSL has read already.
    """
    first = pem[pem.index(_BEGIN) : pem.index(_END) + len(_END)]
    der = ssl.PEM_cert_to_DER_cert(first)
    _, at, _ = _element(der, 0)  # Certificate
    _, at, _ = _element(der, at)  # TBSCertificate
    tag, _, end = _element(der, at)
    if tag == _VERSION:
        at = end
    for _ in ("serial number", "signature's algorithm", "issuer"):
        _, _, at = _element(der, at)
    _, at, _ = _element(der, at)  # Validity
    _, _, at = _element(der, at)  # notBefore
    tag, start, end = _element(der, at)
    return float(calendar.timegm(time.strptime(der[start:end].decode(), _FORMATS[tag == _UTC_TIME])))


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Tag of the element at `at`, where its contents begin and where they end."""
    length, start = der[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length, start = int.from_bytes(der[start : start + size], "big"), start + size
    return der[at], start, start + length

"""What a certificate says of itself (X.509, RFC 5280), as far as it is needed: when it ends. No I/O."""

from __future__ import annotations

import binascii
import calendar
import re
import time

_PEM = re.compile(rb"^-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----\r?$([^-]*)^-----END ", re.MULTILINE)
"""As OpenSSL reads it, which passes over whatever stands between; the first element of any of these is X.509's."""
_VERSION, _UTC_TIME = 0xA0, 0x17  # tags of DER (X.690)
_FORMATS = {True: "%y%m%d%H%M%SZ", False: "%Y%m%d%H%M%SZ"}


def end_of_first(pem: bytes) -> float:
    """When the first certificate of a PEM file ends, as Unix time: the server's own one, as TLS wants it.

    The file is one that OpenSSL has read already. Raises ValueError or IndexError where it is not.
    """
    first = _PEM.search(pem)
    if first is None:
        raise ValueError("no certificate")
    der = binascii.a2b_base64(first[1])
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

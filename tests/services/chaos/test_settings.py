"""What `splitcast chaos` is told."""

from __future__ import annotations

import pytest

from services.chaos.settings import Address, ChaosSettings, parse_address
from services.errors import SettingsError

WHERE = {"listen": "127.0.0.1:0", "to": "127.0.0.1:8765"}


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8765", Address("127.0.0.1", 8765)),
        ("[::1]:0", Address("::1", 0)),
        ("camera.lan:80", Address("camera.lan", 80)),
    ],
)
def test_addresses(text, address):
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text", ["", "8765", ":8765", "host", "host:", "host:x", "host:70000", "ws://host:1", "u:p@h:1", "h:1/x"]
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(SettingsError, match="--to: "):
        ChaosSettings.load({**WHERE, "to": text})


def test_a_wrong_fault_is_told_by_its_flag():
    with pytest.raises(SettingsError, match=r"--fault: flip: there is no 'bit'"):
        ChaosSettings.load({**WHERE, "fault": ("lose", "flip:bit=1")})

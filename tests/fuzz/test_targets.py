"""The fuzz targets on their seeds and some changed ones: that they run, go deep, and tell what is broken."""

from __future__ import annotations

import time

import numpy as np
import pytest

from codec.errors import BitstreamError
from tests.fuzz import watch
from tests.fuzz.targets import TARGETS, Broken, Target
from tests.fuzz.watch import Watch


@pytest.mark.parametrize("name", TARGETS)
def test_targets_take_their_seeds_and_changed_ones(name):
    target = TARGETS[name]()
    observed = Watch(target)
    rng = np.random.default_rng(0)
    for number in range(100):
        data = bytearray(target.seeds[number % len(target.seeds)])
        for at in rng.integers(0, len(data), 3):
            data[at] = rng.integers(256)
        observed(bytes(data))
        observed(bytes(data[: rng.integers(len(data))]))
    observed(b"")
    assert observed.report.executions == 201


@pytest.mark.parametrize("name", [name for name in TARGETS if name.endswith("sections")])
def test_sections_go_behind_the_checksum(name, monkeypatch):
    """Seeds decode, and a changed byte is refused by the codec, if at all."""
    target = TARGETS[name]()
    reasons = []
    original = BitstreamError.__init__

    def remember(self, *arguments):
        original(self, *arguments)
        reasons.append(str(self))

    monkeypatch.setattr(BitstreamError, "__init__", remember)
    target.run(target.seeds[0])
    assert not [reason for reason in reasons if "reference" not in reason]
    changed = bytearray(target.seeds[-1])
    for at in range(1, len(changed)):
        changed[at] ^= 0x55
        target.run(bytes(changed))
    assert reasons or name == "raw sections"
    assert not [reason for reason in reasons if "checksum is wrong" in reason]


def test_slow_executions_are_found(monkeypatch):
    def spin(data):
        end = time.process_time() + 0.02 * (data == b"slow")
        while time.process_time() < end:
            pass

    monkeypatch.setattr(watch, "MAX_SECONDS", 0.01)
    observed = Watch(Target(spin, [b""]))
    observed(b"quick")
    with pytest.raises(Broken, match="took"):
        observed(b"slow")
    assert observed.report.slowest_s >= 0.02


def test_memory_is_found(monkeypatch):
    sizes = iter([100.0, 100.0, 357.0])
    monkeypatch.setattr(watch, "_peak_mib", lambda: next(sizes))
    observed = Watch(Target(lambda data: None, [b""]))
    for _ in range(127):
        observed(b"")
    with pytest.raises(Broken, match="257 MiB"):
        observed(b"")


def test_what_a_target_raises_is_found():
    def broken(data):
        if data:
            raise IndexError

    observed = Watch(Target(broken, [b""]))
    with pytest.raises(IndexError):
        observed(b"x")


def test_the_report_is_written(tmp_path):
    observed = Watch(Target(lambda data: None, [b""]), tmp_path / "report.json")
    for _ in range(64):
        observed(b"")
    assert '"executions": 64' in (tmp_path / "report.json").read_text()

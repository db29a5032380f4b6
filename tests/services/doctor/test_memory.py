"""Memory that a detector may take, and what there is of it."""

from __future__ import annotations

import pytest

from services.doctor.memory import look_at_memory

GIB = 2**30


@pytest.fixture
def machine(tmp_path):
    """A machine's files, with so much free, and what a container's limit leaves."""

    def make(available: int | None, limit: str | None = None, used: int = 0):
        (tmp_path / "proc").mkdir()
        cgroup = tmp_path / "sys/fs/cgroup"
        cgroup.mkdir(parents=True)
        if available is not None:
            text = f"MemTotal: 99 kB\nMemAvailable: {available // 1024} kB\n"
            (tmp_path / "proc/meminfo").write_text(text)
        if limit is not None:
            (cgroup / "memory.max").write_text(limit)
            (cgroup / "memory.current").write_text(str(used))
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("available", "limit", "used", "free_mib"),
    [
        (8 * GIB, None, 0, 8192),
        (8 * GIB, "max\n", 0, 8192),
        (8 * GIB, f"{6 * GIB}\n", GIB, 5120),
        (2 * GIB, None, 0, 2048),
        (8 * GIB, f"{2 * GIB}\n", GIB, 1024),
        (8 * GIB, f"{2 * GIB}\n", 3 * GIB, 0),
    ],
)
def test_what_is_free(machine, available, limit, used, free_mib):
    finding = look_at_memory(4096, machine(available, limit, used))
    assert finding.facts["free_mib"] == free_mib
    assert finding.level == ("ok" if free_mib >= 4096 else "warning")
    assert ("--max-memory" in finding.advice) == (finding.level == "warning")


def test_a_system_that_tells_nothing(machine):
    assert look_at_memory(4096, machine(None)).measured.startswith("not checked")
    assert "MiB are free" in look_at_memory(64).measured

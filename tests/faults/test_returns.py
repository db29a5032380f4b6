"""What `python -m tests.faults.returns` says of its tries."""

from __future__ import annotations

import json

from tests.faults import returns
from tests.faults.returns import main, summary


def test_the_99th_percentile_of_fifty_tries_is_the_slowest():
    told = summary([0.1] * 49 + [2.5], bound_s=2.0)
    assert (told["tries"], told["p50_s"], told["p99_s"], told["kept"]) == (50, 0.1, 2.5, False)
    assert summary([0.1] * 50, bound_s=2.0)["kept"]


def test_it_writes_what_was_measured_and_ends_by_whether_it_is_kept(monkeypatch, tmp_path):
    given = []

    async def tries(count: int, outage_s: float) -> list[float]:
        given.append((count, outage_s))
        return [0.25, 0.75]

    monkeypatch.setitem(returns.KINDS, "link", tries)
    flags = ["--tries", "2", "--outage-s", "1.5", "--kind", "link", "--out", str(tmp_path / "returns.json")]
    assert main(flags) == 0
    assert given == [(2, 1.5)]
    figures = json.loads((tmp_path / "returns.json").read_text())
    assert (figures["outage_s"], figures["link"]["p99_s"]) == (1.5, 0.75)
    monkeypatch.setitem(returns.BOUNDS_S, "link", 0.5)
    assert main(flags) == 1

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.table import WRITE_TO, rows, write_table


def pytest_sessionfinish(session: pytest.Session) -> None:
    if WRITE_TO:
        write_table(Path(WRITE_TO), rows())

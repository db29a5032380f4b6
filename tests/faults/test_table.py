"""The table of faults: a run of some of them leaves what it says of the others."""

from __future__ import annotations

from tests.faults.table import Row, write_table


def rows_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("| ")][2:]


def test_rows_that_were_not_run_stay_where_they_are(tmp_path):
    file = tmp_path / "faults.md"
    write_table(file, [Row("reset", "", None, 0.5, 1.0), Row("lost", "rejected", 0.25, 0.75, 2.0)])
    before = rows_of(file.read_text())
    assert before == ["| reset |  |  | 0.50 | 1 | yes |", "| lost | rejected | 0.25 | 0.75 | 2 | yes |"]
    write_table(file, [Row("new", "", None, 3.0, 2.0), Row("reset", "both ends", None, 0.125, 1.0)])
    assert rows_of(file.read_text()) == [
        "| reset | both ends |  | 0.12 | 1 | yes |",
        before[1],
        "| new |  |  | 3.00 | 2 | **no** |",
    ]
    assert file.read_text().startswith("# Faults\n")

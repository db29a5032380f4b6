"""Tables of figures."""

from __future__ import annotations

from services.bench.markdown import table, write_page


def test_columns_are_aligned_right_and_as_wide_as_they_need():
    assert table(("n", "held"), [("1", "1"), ("16", "7")]).splitlines() == [
        "|   n | held |",
        "| --: | ---: |",  # a colon alone would be no column
        "|   1 |    1 |",
        "|  16 |    7 |",
    ]


def test_a_page_has_a_line_between_its_blocks(tmp_path):
    write_page(tmp_path / "page.md", ["# Load", "Words."])
    assert (tmp_path / "page.md").read_text() == "# Load\n\nWords.\n"

"""Pages that are made of templates: their values are text, and their tables hold no empty columns."""

from __future__ import annotations

import pytest
from jinja2 import UndefinedError

from services.evaluation.html import HtmlRow, HtmlTable, page_templates


def test_values_are_escaped_but_for_what_is_called_safe():
    template = page_templates().from_string("{{ text }}{{ element|safe }}")
    assert template.render(text="<b>", element="<i>") == "&lt;b&gt;<i>"


def test_a_value_that_is_missing_is_an_error():
    with pytest.raises(UndefinedError, match="title"):
        page_templates().get_template("page.html").render()


def test_columns_without_a_figure_are_left_out():
    rows = [HtmlRow("a", ("1", "", "")), HtmlRow("b", ("", "", "2"), "reference")]
    table = HtmlTable.of("t", ("name", "x", "y", "z"), rows)
    assert table.heads == ("name", "x", "z")
    assert [row.figures for row in table.rows] == [("1", ""), ("", "2")]
    assert table.rows[1].kind == "reference"

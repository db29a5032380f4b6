"""The study's report: one HTML file with every figure, table and statement, for people."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from itertools import zip_longest

from services.evaluation.html import HtmlRow, HtmlTable, page_templates
from services.evaluation.plot import page_svg
from services.study.draw import jpeg, label
from services.study.record import StudyRecord
from services.study.section import Drawing, Section, Table

TITLE = "Splitting a network: the paper's tables and figures, measured again"
PAPER = (
    "Damiano Carra and Giovanni Neglia: DNN Split Computing: Quantization and Run-length Coding are Enough. "
    "IEEE Global Communications Conference, 2023."
)


def study_report(sections: Mapping[str, Section], records: Sequence[StudyRecord]) -> str:
    """The page for the sections of a study, by experiment, and the records that they were made from."""
    return (
        page_templates("services.study")
        .get_template("study.html")
        .render(
            title=TITLE,
            paper=PAPER,
            networks=list(dict.fromkeys(label(record) for record in records if record.network)),
            sections=sections,
            random={record.experiment for record in records if record.random},
            summary=[
                (claim, name, section.paper or "beyond")
                for name, section in sections.items()
                for claim in section.claims
            ],
            count=len(records),
            origins=_origins(records),
            zip_longest=zip_longest,
            drawn=_drawn,
            html_table=_html_table,
        )
    )


def _drawn(drawing: Drawing) -> str:
    """The element of HTML."""
    if not drawing.photographic:
        return page_svg(drawing.figure, drawing.caption)
    data = base64.b64encode(jpeg(drawing.figure)).decode()
    return f'<img alt="{escape(drawing.caption)}" src="data:image/jpeg;base64,{data}">'


def _html_table(table: Table) -> HtmlTable:
    return HtmlTable.of(
        table.title, table.head, [HtmlRow(row[0], row[1:]) for row in table.rows], table.caption
    )


def _origins(records: Sequence[StudyRecord]) -> dict[str, list[str]]:
    """Where the records come from: a study that was resumed may have more than one origin."""
    values = {
        "Commit": [record.commit for record in records],
        "Machine": [record.machine for record in records],
        "Versions": [
            ", ".join(f"{name} {version}" for name, version in record.versions.items()) for record in records
        ],
        "Weights": [f"{record.network}: {record.weights}" for record in records if record.weights],
        "Pictures": [record.data for record in records],
        "Seed": [str(record.seed) for record in records],
    }
    return {name: [text for text in dict.fromkeys(texts) if text] for name, texts in values.items()}

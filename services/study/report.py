"""The study's report: one HTML file with every figure, table and statement, for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from services.evaluation.html import html_table, page
from services.study.draw import svg
from services.study.record import StudyRecord
from services.study.section import Claim, Drawing, Section, Table

PAPER = (
    "Damiano Carra and Giovanni Neglia: DNN Split Computing: Quantization and Run-length Coding are Enough. "
    "IEEE Global Communications Conference, 2023."
)

_STYLE = """
figure { background: #fff; }
figure svg { width: auto; max-width: 100%; margin: 0 auto; }
figure svg text { fill: currentColor; }
figcaption { color: #566270; }
.claims td, .claims th { text-align: left; white-space: normal; vertical-align: top; position: static; }
.claims th { font-weight: 600; white-space: nowrap; }
.claims td { min-width: 12rem; }
.stamp { color: #b3470a; font-weight: 600; }
nav ol { columns: 2; padding-left: 1.4rem; font-size: .9rem; }
"""


def study_report(sections: Mapping[str, Section], records: Sequence[StudyRecord]) -> str:
    """The page for the sections of a study, by experiment, and the records that they were made from."""
    title = "Splitting a network: the paper's tables and figures, measured again"
    parts = [_introduction(records), _contents(sections), _summary(sections)]
    parts += [_section(name, section, records) for name, section in sections.items()]
    return page(title, "".join([*parts, _made_with(records)]), _STYLE)


def _introduction(records: Sequence[StudyRecord]) -> str:
    networks = ", ".join(
        dict.fromkeys(
            f"{record.network} at layer {record.split}{' (random weights)' if record.random else ''}"
            for record in records
            if record.network
        )
    )
    stamp = (
        '<p class="stamp">Some networks have random weights: their shapes and times are real, what depends on trained '
        "weights is not. Every figure and row that this touches says so.</p>\n"
        if any(record.random for record in records)
        else ""
    )
    return (
        f"<p>{escape(PAPER)} Here is each of its results, measured again by <code>splitcast study</code>, beside the "
        f"numbers that the paper states, and what its conclusions leave open. Networks: {escape(networks) or 'none'}. "
        f"A kB is 1024 bytes, as in the paper.</p>\n{stamp}"
    )


def _contents(sections: Mapping[str, Section]) -> str:
    items = "".join(
        f'<li><a href="#{name}">{escape(_heading(section))}</a></li>\n' for name, section in sections.items()
    )
    return f"<nav><ol>\n{items}</ol></nav>\n"


def _heading(section: Section) -> str:
    return f"{section.paper}. {section.title}" if section.paper else f"Beyond the paper. {section.title}"


def _summary(sections: Mapping[str, Section]) -> str:
    """The paper's number of the figure, what it states, what was found, and what agrees."""
    rows = [
        (f'<a href="#{name}">{escape(section.paper or "beyond")}</a>', claim)
        for name, section in sections.items()
        for claim in section.claims
    ]
    return f"<h2>What agrees and what does not</h2>\n{_claims(rows)}" if rows else ""


def _claims(rows: Iterable[tuple[str, Claim]]) -> str:
    """A table of claims; the first text of each is HTML."""
    body = "".join(
        f'<tr><th scope="row">{where}</th>'
        + "".join(f"<td>{escape(text)}</td>" for text in (claim.paper, claim.ours, claim.verdict))
        + "</tr>\n"
        for where, claim in rows
    )
    return (
        '<div class="box claims"><div class="scroll"><table>\n<thead><tr><th scope="col"></th>'
        '<th scope="col">The paper</th><th scope="col">Here</th><th scope="col">In a sentence</th></tr></thead>\n'
        f"<tbody>\n{body}</tbody></table></div></div>\n"
    )


def _section(name: str, section: Section, records: Sequence[StudyRecord]) -> str:
    random = any(record.random for record in records if record.experiment == name)
    parts = [f'<h2 id="{name}">{escape(_heading(section))}</h2>\n<p>{escape(section.method)}</p>\n']
    if random:
        parts.append('<p class="stamp">With random weights, where it says so.</p>\n')
    parts += [_figure(drawing) for drawing in section.drawings]
    if section.claims:
        parts.append(_claims(("", claim) for claim in section.claims))
    parts += [_table(table) for table in section.tables]
    if section.notes:
        parts.append("<ul>\n" + "".join(f"<li>{escape(note)}</li>\n" for note in section.notes) + "</ul>\n")
    return "".join(parts)


def _figure(drawing: Drawing) -> str:
    document = svg(drawing.figure)
    element = document[document.index("<svg") :]  # a page takes neither the XML declaration nor the doctype
    label = f'role="img" aria-label="{escape(drawing.caption)}"'
    return (
        f'<figure id="{drawing.name}">{element.replace("<svg", f"<svg {label}", 1)}'
        f"<figcaption>{escape(drawing.caption)}</figcaption></figure>\n"
    )


def _table(table: Table) -> str:
    rows = [(row[0], list(row[1:]), "") for row in table.rows]
    return f"<h3>{escape(table.title)}</h3>\n{html_table(table.head, rows, table.caption)}"


def _made_with(records: Sequence[StudyRecord]) -> str:
    """Where the records come from: a study that was resumed may have more than one origin."""
    told = {
        "Commit": [record.commit for record in records],
        "Machine": [record.machine for record in records],
        "Versions": [", ".join(f"{k} {v}" for k, v in record.versions.items()) for record in records],
        "Weights": [f"{record.network}: {record.weights}" for record in records if record.weights],
        "Pictures": [record.data for record in records],
        "Seed": [str(record.seed) for record in records],
    }
    rows = "".join(
        f'<tr><th scope="row">{name}</th><td>{_lines(values)}</td></tr>\n' for name, values in told.items()
    )
    return (
        f"<h2>Made with</h2>\n<p>{len(records)} records, one line of JSON each, from which this page was drawn.</p>\n"
        f'<div class="box claims"><table><tbody>\n{rows}</tbody></table></div>\n'
    )


def _lines(values: Iterable[str]) -> str:
    return "<br>".join(escape(one) for one in dict.fromkeys(values) if one)

"""Runs a study: measures what is missing, then draws and tells everything that is recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table as RichTable

from services.errors import SettingsError
from services.evaluation.evaluate import tell
from services.evaluation.plot import style, svg
from services.study.classification import Classification
from services.study.dataset import PictureSet, class_pictures, clip_pictures, folder_pictures
from services.study.draw import jpeg, png
from services.study.experiments import EXPERIMENTS
from services.study.networks import DEFAULT, NetworkSpec
from services.study.record import RecordBook
from services.study.report import study_report
from services.study.section import Section, Table
from services.study.settings import StudySettings
from services.study.study import Experiment, Study
from services.study.subject import Subject
from services.torch_devices import choose_device
from stream.atomic_file import write_whole
from stream.canvas import parse_size

RECORDS, REPORT, FIGURES = "records.jsonl", "report.html", "figures"
QUICK_IMAGES, CLIP_FRAMES = 16, 60


def run_study(settings: StudySettings) -> None:
    """Measure the named experiment, or all, into `--out`, and write figures and report of all that is recorded there.

    Raises SettingsError, InvalidSize, SourceError, UnknownSplitPoint, WeightsError, CheckpointError or CodecError.
    """
    chosen = EXPERIMENTS if settings.name == "all" else {settings.name: EXPERIMENTS[settings.name]}
    if settings.from_records and not (settings.out / RECORDS).is_file():
        raise SettingsError(f"--from-records: there is no {RECORDS} in {settings.out}")
    (settings.out / FIGURES).mkdir(parents=True, exist_ok=True)
    book = RecordBook(settings.out / RECORDS)
    console, notices = Console(markup=False, emoji=False), Console(stderr=True, markup=False, emoji=False)
    if not settings.from_records:
        study = _study(settings, book, notices)
        for pictures in (study.images, study.imagenet, *study.training):
            tell(pictures.account if pictures else "", notices)
        _measure(study, chosen, notices)
        for refusal in study.refusals:
            notices.print(f"left out: {refusal}", highlight=False, soft_wrap=True)
        if not any(book.of(name) for name in chosen):
            raise SettingsError(" ".join(study.refusals) or "nothing could be measured")
    with style():
        sections = {
            name: experiment.present(book.of(name))
            for name, experiment in EXPERIMENTS.items()
            if book.of(name)
        }
        _write(sections, book, settings.out)
    for name, section in sections.items():
        if name in chosen:
            _print(section, console)
    console.print(f"{settings.out / REPORT}: {len(list(book))} records of {len(sections)} experiments")


def _study(settings: StudySettings, book: RecordBook, notices: Console) -> Study:
    size = parse_size(settings.size)
    torch.set_num_threads(settings.threads)
    device = choose_device(settings.device)
    specs = [NetworkSpec.parse(text) for text in settings.model or DEFAULT]
    subjects = [spec.load(size, device, lambda text: notices.print(text, soft_wrap=True)) for spec in specs]
    most = settings.images or (QUICK_IMAGES if settings.quick else None)
    frames = QUICK_IMAGES if settings.quick else CLIP_FRAMES
    return Study(
        book,
        subjects,
        images=folder_pictures(settings.data, most, settings.labels) if settings.data else None,
        imagenet=_imagenet(settings.imagenet, subjects, most),
        clips=[clip_pictures(file, frames) for file in settings.clip],
        training=[
            folder_pictures(path, most) if path.is_dir() else clip_pictures(path, frames)
            for path in settings.train
        ],
        seed=settings.seed,
        quick=settings.quick,
    )


def _imagenet(folder: Path | None, subjects: Sequence[Subject], most: int | None) -> PictureSet | None:
    if folder is None:
        return None
    for subject in subjects:
        if isinstance(subject, Classification):
            return class_pictures(folder, subject.model.names, most)
    raise SettingsError("--imagenet is for classifiers, and no network of --model is one")


def _measure(study: Study, chosen: Mapping[str, Experiment], console: Console) -> None:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("study", total=len(chosen))
        for name, experiment in chosen.items():
            pictures = 0

            def watch(what: str, name: str = name) -> None:
                nonlocal pictures
                pictures += 1
                progress.update(bar, description=f"{name}: {what}, picture {pictures}")

            progress.update(bar, description=name)
            study.watch = watch
            experiment.measure(study)
            progress.advance(bar)


def _write(sections: Mapping[str, Section], book: RecordBook, out: Path) -> None:
    for section in sections.values():
        for drawing in section.drawings:
            if drawing.photographic:
                write_whole(out / FIGURES / f"{drawing.name}.jpg", jpeg(drawing.figure))
                continue
            write_whole(out / FIGURES / f"{drawing.name}.svg", svg(drawing.figure))
            write_whole(out / FIGURES / f"{drawing.name}.png", png(drawing.figure))
    write_whole(out / REPORT, study_report(sections, list(book)))


def _print(section: Section, console: Console) -> None:
    console.print(f"\n{section.heading}", style="bold", highlight=False)
    for table in section.tables:
        console.print(_rich(table))
    for claim in section.claims:
        for who, text in (("paper", claim.paper), ("here", claim.ours), ("", claim.verdict)):
            if text:
                console.print(f"{who:>6}  {text}", highlight=False, soft_wrap=True)


def _rich(table: Table) -> RichTable:
    shown = RichTable(title=table.title, caption=table.caption)
    for number, name in enumerate(table.head):
        shown.add_column(name, justify="right" if number else "left")
    for row in table.rows:
        shown.add_row(*row)
    return shown

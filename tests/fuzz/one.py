"""Fuzzes one target in this process: python -m tests.fuzz.one TARGET FOLDER SECONDS [libFuzzer options]"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

# What numba compiles must not be instrumented: it is imported first.
from codec.feature import blocks, levels, motion, transform  # noqa: F401
from codec.rle import kernels  # noqa: F401

with atheris.instrument_imports(include=["codec", "stream.recording"]):
    from tests.fuzz.targets import TARGETS

from tests.fuzz.watch import Watch


def main() -> None:
    """Fuzz until the time is over or something is found; the folder gets corpus, findings and report."""
    name, folder, seconds, *options = sys.argv[1:]
    target = TARGETS[name]()
    corpus = Path(folder) / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    watch = Watch(target, Path(folder) / "report.json")
    arguments = [
        f"-max_total_time={seconds}", f"-artifact_prefix={folder}/", "-timeout=20", "-rss_limit_mb=4096",
        "-max_len=8192", "-print_final_stats=0", "-verbosity=0", *options, str(corpus),
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *arguments], watch)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

"""Fuzzes every target for a share of the time, as in production and with every index of the kernels checked.

python -m tests.fuzz.run --minutes 10 [--target NAME] [--folder .fuzz]

Exits with 1 if anything was found; the input is then in the folder, as `crash-...`, and
`python -m tests.fuzz.run --target NAME --again FILE` runs it once.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.fuzz.watch import MAX_MIB, MAX_SECONDS, Watch

MODES = ("production", "checked")
START_S = 900  # compiling every kernel anew on a slow machine


def main() -> int:
    """Run what the command line asks for; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--target", action="append", help="one of the targets, several times for several")
    parser.add_argument("--folder", type=Path, default=Path(".fuzz"))
    parser.add_argument("--again", type=Path, help="run this input once")
    options = parser.parse_args()
    from tests.fuzz.targets import TARGETS

    names = options.target or list(TARGETS)
    for name in names:
        if name not in TARGETS:
            parser.error(f"no target {name!r}; there are {', '.join(TARGETS)}")
    if options.again:
        for name in names:
            Watch(TARGETS[name]())(options.again.read_bytes())
        return 0
    runs = [(name, mode) for name in names for mode in MODES]
    seconds = max(1, round(60 * options.minutes / len(runs)))
    print(f"{len(runs)} runs of {seconds} s; limits: {MAX_SECONDS:.0f} s an execution, {MAX_MIB} MiB\n")
    print(f"{'target':30} {'mode':11} {'executions':>11} {'slowest, ms':>12} {'MiB more':>9}")
    found = sum(not _fuzz(name, mode, options.folder, seconds) for name, mode in runs)
    print(f"\n{found} of {len(runs)} runs found something" if found else "\nnothing found")
    return 1 if found else 0


def _fuzz(name: str, mode: str, folder: Path, seconds: int) -> bool:
    """One run in a process of its own; tells whether it went well."""
    own = (folder / mode / name.replace(" ", "-")).absolute()
    own.mkdir(parents=True, exist_ok=True)
    report, log = own / "report.json", own / "log"
    report.unlink(missing_ok=True)
    environment = dict(os.environ)
    if mode == "checked":
        # Numba's cache does not know this flag, so the kernels that it holds are kept apart.
        cache = (folder / "numba").absolute()
        environment |= {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(cache)}
    with log.open("w") as output:
        command = [sys.executable, "-m", "tests.fuzz.one", name, str(own), str(seconds)]
        status = subprocess.run(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, timeout=START_S + 2 * seconds,
            check=False,
        ).returncode  # fmt: skip
    seen = json.loads(report.read_text()) if report.is_file() else {}
    if seen:
        more = seen["peak_mib"] - seen["before_mib"]
        row = f"{seen['executions']:11,} {1000 * seen['slowest_s']:12.1f} {more:9.0f}"
    else:
        row = f"{'none':>11} {'':12} {'':9}"
    verdict = "" if status == 0 and seen else f"  FOUND, see {log}"
    print(f"{name:30} {mode:11} {row}{verdict}", flush=True)
    return not verdict


if __name__ == "__main__":
    sys.exit(main())

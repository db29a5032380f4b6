"""What the benchmarks share: a stage's time, and a line of figures."""

from __future__ import annotations

from time import perf_counter

ROUNDS = 15


def timed(stage, argument):
    start = perf_counter()
    stage(argument)
    return perf_counter() - start


def show(capsys, what, figures, form):
    """One line of figures, past pytest's capture."""
    with capsys.disabled():
        print(
            f"\n{what}: " + ", ".join(f"{name} {form.format(value)}" for name, value in figures.items()),
            end="",
        )

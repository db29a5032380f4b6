"""The machine that a record names."""

from __future__ import annotations

from services.bench.machine import this_machine


def test_names_processor_and_widest_instructions(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: fpu sse4_2 avx avx2\n\n")
    machine = this_machine(cpuinfo)
    assert (machine.processor, machine.isa) == ("Some CPU @ 2 GHz", "avx2")
    assert machine.cores >= 1


def test_says_so_where_the_kernel_tells_nothing(tmp_path):
    machine = this_machine(tmp_path / "none")
    assert machine.isa == "unknown"
    assert machine.processor

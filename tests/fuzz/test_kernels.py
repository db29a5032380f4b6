"""The kernels' own fuzzing: that it reaches all of them, and tells what leaves its arrays."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from tests.fuzz.kernels import groups, hammer, payloads, state_of


def test_hostile_payloads_reach_every_kernel():
    group, fresh = groups()
    taken = np.zeros(3, np.int64)
    hammer(state_of(group), state_of(fresh), *payloads(), 3000, 1, taken)
    assert taken.sum() == 3000
    assert (taken > 10).all()
    assert group.planes.any()


def test_seeds_are_payloads_with_levels_in_every_frame():
    _, sizes = payloads()
    assert (sizes > 50).all()


OUTSIDE = """
import numpy as np
from tests.fuzz.kernels import groups, hammer, payloads, state_of
group, fresh = groups()
state = state_of(group)
short = state.levels._replace(lasts=state.levels.lasts[:, :-1].copy())
hammer(state._replace(levels=short), state_of(fresh), *payloads(), 3000, 1, np.zeros(3, np.int64))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)  # all kernels are compiled anew
def test_an_index_outside_its_array_is_found(tmp_path):
    environment = os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", OUTSIDE], env=environment, capture_output=True, text=True, check=False
    )
    assert "IndexError" in ended.stderr

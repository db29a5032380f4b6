"""The programs: they join the codec, the split network and the session."""

import os

# One thread for numpy's matrices, as for torch: on shared cores a second one spins more than it helps.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import stream  # noqa: F401 - before anything here imports ultralytics

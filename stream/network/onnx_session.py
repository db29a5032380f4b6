"""A model in ONNX Runtime on the CPU, with the settings that suit many small networks on shared cores."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as native

from codec.layout import FloatArray

# ONNX Runtime's errors have no base but Exception.
_ERRORS = (
    native.EPFail,
    native.Fail,
    native.InvalidArgument,
    native.InvalidGraph,
    native.InvalidProtobuf,
    native.NotImplemented,
    native.RuntimeException,
)
_LEAST_SEVERE = 3  # of what it logs on standard error: errors


class OnnxSession:
    """A model that is ready to run. Several threads may run it at once."""

    def __init__(
        self, model: bytes, threads: int = 1, *, optimized: bool = True, keep_memory: bool = False
    ) -> None:
        """`keep_memory` suits a model that runs on pictures of one size, on one thread, for as long as it is there.

        Raises RuntimeError for a model that cannot be run.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _LEAST_SEVERE
        # A thread that waits spins for a millisecond by default, on a core that a neighbour could use.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # ONNX Runtime's own arena keeps the most that any runs at once have ever taken, and its patterns a plan for
        # every size of picture. The system's allocator is as fast, and gives back what is free; but what each run
        # takes from its heap and frees again lies between other things, and the holes are more than an arena's.
        options.enable_cpu_mem_arena = keep_memory
        options.enable_mem_pattern = False
        if not optimized:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except _ERRORS as error:
            raise RuntimeError(str(error)) from error
        self.inputs = tuple(value.name for value in self._session.get_inputs())
        self.outputs = tuple(value.name for value in self._session.get_outputs())

    def __call__(self, inputs: Mapping[str, NDArray[np.generic]]) -> list[FloatArray]:
        """What the model puts out, in the order of `outputs`. Raises RuntimeError."""
        try:
            results: list[FloatArray] = self._session.run(None, dict(inputs))
        except _ERRORS as error:
            raise RuntimeError(str(error)) from error
        return results

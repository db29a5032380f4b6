"""What the kernels promise a service: compiled at import, no lock held, nothing reordered."""

from __future__ import annotations

import numba
import pytest
from numba.core.dispatcher import Dispatcher

from codec.rle import kernels

KERNELS = [kernel for kernel in vars(kernels).values() if isinstance(kernel, Dispatcher)]


def test_there_are_kernels():
    assert {kernels.encode, kernels.decode_coefficients} <= set(KERNELS)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.__name__)
def test_kernel_is_compiled_for_one_signature_holds_no_lock_and_counts_no_references(kernel):
    assert len(kernel.signatures) == 1
    assert not kernel._can_compile
    assert kernel.targetoptions["nogil"]
    assert not kernel.targetoptions["_nrt"]
    assert not kernel.targetoptions.get("fastmath")


def test_quantize_fuses_no_multiply_and_add():
    """A fused operation rounds once instead of twice: the ends would no longer agree."""
    # Compiled again, since numba shows no assembly of what it took from its cache.
    (signature,) = kernels.quantize.signatures
    (assembly,) = numba.njit(signature)(kernels.quantize.py_func).inspect_asm().values()
    assert "mul" in assembly
    assert "fmadd" not in assembly
    assert "fmla" not in assembly

"""How all kernels of the package are compiled."""

from __future__ import annotations

import pkgutil
from importlib import import_module

import pytest
from numba.core.dispatcher import Dispatcher

import codec

DISPATCHERS = {
    f"{module.name}.{name}": value
    for module in pkgutil.walk_packages(codec.__path__, "codec.")
    for name, value in vars(import_module(module.name)).items()
    if isinstance(value, Dispatcher) and value.__module__ == module.name
}
KERNELS = [name for name, value in DISPATCHERS.items() if not value.targetoptions.get("forceinline")]
FLOATING = {
    "codec.feature.noise._compare",
    "codec.feature.noise._follow",
    "codec.feature.transform._quantize",
    "codec.feature.transform._spectrum",
    "codec.feature.step_prediction.measure",
    "codec.feature.step_prediction._predict",
}  # the encoder's own affair


def test_there_are_kernels():
    assert len(KERNELS) > 20
    assert set(KERNELS) > FLOATING


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_is_compiled_for_one_signature_holds_no_lock_and_counts_no_references(name):
    kernel = DISPATCHERS[name]
    assert len(kernel.signatures) == 1
    assert not kernel._can_compile
    assert kernel.targetoptions["nogil"]
    assert not kernel.targetoptions["_nrt"]
    assert bool(kernel.targetoptions.get("fastmath")) == (name in FLOATING)


@pytest.mark.parametrize("name", sorted(DISPATCHERS.keys() - set(KERNELS)))
def test_what_is_inlined_counts_no_references(name):
    assert not DISPATCHERS[name].targetoptions["_nrt"]

"""The contexts: their places and where they start are those of the text."""

from __future__ import annotations

from codec.feature import contexts
from tests.codec import reference_feature as reference


def test_places_of_contexts_are_those_of_the_text():
    for name in (
        "PLANE",
        "BLOCK",
        "SIGN",
        "STEP",
        "SKIP",
        "MOTION",
        "SHARP",
        "PROFILED",
        "CONTEXTS",
        "LAST",
        "FIRST",
        "OTHER",
        "END",
    ):
        assert getattr(contexts, name) == getattr(reference, name)
    assert contexts.ALPHABETS == reference.ALPHABETS


def test_zigzag_is_that_of_the_text():
    assert [(v, u) for u, v in contexts.ZIGZAG] == reference.ORDER


def test_defaults_are_those_of_the_text():
    assert contexts.default_probabilities().tolist() == reference.default_probabilities()
    assert contexts.default_distributions().tolist() == reference.default_distributions()

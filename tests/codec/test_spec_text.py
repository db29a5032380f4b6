from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.spec_text import format_spec, parse_spec

words = st.text(st.characters(categories=["Ll", "Nd"]), min_size=1)


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("raw", "raw", {}),
        ("raw:", "raw", {}),
        ("rle:bits=3,temporal=true", "rle", {"bits": "3", "temporal": "true"}),
        ("demo:size=640x480,", "demo", {"size": "640x480", "": ""}),
        ("feature:profile=a=b", "feature", {"profile": "a=b"}),
        ("", "", {}),
    ],
)
def test_reads_names_and_values(text, name, values):
    assert parse_spec(text) == (name, values)


@pytest.mark.parametrize("text", ["rle:bits=3,bits=4", "rle:bits,bits", "rle:,"])
def test_refuses_a_key_that_is_given_twice(text):
    with pytest.raises(ValueError, match="given twice"):
        parse_spec(text)


@given(words, st.dictionaries(words, words))
def test_reads_what_it_writes(name, values):
    assert parse_spec(format_spec(name, values)) == (name, values)


def test_truth_values_are_written_in_lower_case():
    assert format_spec("rle", {"temporal": True, "bits": 4}) == "rle:temporal=true,bits=4"

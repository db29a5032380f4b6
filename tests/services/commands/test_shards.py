"""Of what several detectors tell, each stream's states are those where it is."""

from __future__ import annotations

import json

import pytest

from services.commands.shards import ShardMerge


def state(stream: str, word: str) -> str:
    return json.dumps({"type": "stream", "stream": stream, "state": word})


def test_what_a_stream_has_left_says_nothing_of_it_any_more():
    merge = ShardMerge()
    told = [
        ("one", "connected", True),
        ("two", "connected", True),  # before the first one has noticed
        ("one", "lost", False),
        ("one", "ended", False),
        ("two", "frozen", True),
        ("one", "lost", False),  # to whoever subscribes anew
        ("two", "lost", True),
        ("one", "waiting", True),  # back
        ("two", "lost", False),
        ("one", "ended", True),
    ]
    assert [merge.admits(address, state("door", word)) for address, word, _ in told] == [
        passes for *_, passes in told
    ]


def test_streams_are_told_apart_and_forgotten_once_they_are_gone():
    merge = ShardMerge()
    assert merge.admits("one", state("door", "connected"))
    assert merge.admits("two", state("porch", "lost"))
    assert merge.admits("one", state("door", "lost"))
    assert not merge._at


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "detections", "stream": "door", "frame": 1}',
        '{"type": "gap", "stream": "door"}',
        '{"type": "stream"}',
        '{"type": "stream", "stream": ["door"], "state": "lost"}',
        '{"type": "stream", "stream": "door", "state": {}}',
        '{"type": "stream", "stream": "door", "state": "of a newer detector"}',
        "[]",
        "no JSON",
        "[" * 100_000,
    ],
)
def test_all_else_passes(text):
    merge = ShardMerge()
    merge.admits("one", state("door", "connected"))
    assert merge.admits("two", text)

from __future__ import annotations

import json

import pytest

from stream.errors import InvalidMessage
from stream.session.messages import (
    parse_to_detector,
)
from tests.stream.session.peers import (
    make_hello,
)


@pytest.mark.parametrize(
    "changes",
    [
        {"preview": 1},
        {"preview": "yes"},
        {"stream": "../etc"},
        {"stream": ""},
        {"stream": "x" * 65},
        {"weights": "AB" * 32},
        {"canvas": [480]},
        {"canvas": [480, 10**9]},
        {"canvas": [480, "640"]},
        {"tensors": []},
        {"tensors": [{"name": "4.m", "shape": [0, 1]}]},
        {"tensors": [{"name": "4.m", "shape": [1] * 9}]},
        {"codec": "x" * 257},
        {"reject_reasons": ["x" * 65]},
        {"reject_reasons": ["x"] * 33},
        {"clock": {"monotonic_ns": -1, "unix_ns": 0}},
        {"clock": {"monotonic_ns": 2**64, "unix_ns": 0}},
        {"protocol": "1"},
        {"session": ""},
        {"session": "A" * 32},
        {"session": "0" * 33},
        {"live": "yes"},
        {"frame": -1},
        {"step_map_bytes": -1},
        {"step_map_bytes": 2**20 + 1},
    ],
)
def test_refuses_a_hello_out_of_range(changes):
    hello = json.loads(make_hello().text()) | changes
    with pytest.raises(InvalidMessage, match=next(iter(changes))):
        parse_to_detector(json.dumps(hello))

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream.session.close_codes import close_reason


@given(st.text(max_size=300))
def test_close_reasons_fit_a_close_frame(reason):
    cut = close_reason(reason)
    assert len(cut) <= 123
    assert reason.encode().startswith(cut)
    cut.decode()

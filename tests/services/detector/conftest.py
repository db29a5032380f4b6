"""A camera of the test's own, which may say anything: what it needs to agree with the detector of `start_detector`.

And a browser, for the page that a detector serves.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from codec.feature.bundled import BUNDLED
from codec.packet import Stamp
from codec.spec import parse_codec
from stream.network.cut import layout
from stream.session.camera import tensor_shapes
from stream.session.messages import Clock, Hello
from stream.tasks.fair_workers import FairWorkers
from stream.torch_network.model import load_model
from tests.services.browser import open_browser
from tests.services.calibrated import make_profile
from tests.services.clips import SIZE
from tests.services.waiting import LIVENESS_S

expect.set_options(timeout=LIVENESS_S * 1000)


@pytest.fixture(scope="session")
def model(weights):
    return load_model(weights)


@pytest.fixture
def workers():
    """Two threads for whatever is decoded and inferred."""
    workers = FairWorkers("test", 2)
    yield workers
    workers.close()


@pytest.fixture(scope="session")
def agreed(model):
    """The tensors that cross."""
    return layout(model.graph, "4.m", SIZE)


@pytest.fixture
def make_hello(model, agreed):
    def make(**changes) -> Hello:
        fields = {
            "stream": "door",
            "model": "random",
            "weights": model.weights_hash,
            "split": "4.m",
            "canvas": SIZE,
            "tensors": tensor_shapes(agreed),
            "codec": "rle:bits=4,temporal=true",
            "clock": Clock(monotonic_ns=time.monotonic_ns(), unix_ns=time.time_ns()),
        }
        return Hello(**fields | changes)

    return make


@pytest.fixture
def encode(agreed):
    """Packets of random tensors, in order."""
    encoder = parse_codec("rle:bits=4,temporal=true").encoder(agreed)
    numbers = np.random.default_rng(0)
    tensors = {spec.name: numbers.normal(size=spec.shape).astype(np.float32) for spec in agreed}

    def encode(sequence: int, keyframe: bool = False) -> bytes:
        if keyframe:
            encoder.force_keyframe()
        return encoder.encode(tensors, Stamp(sequence, time.monotonic_ns(), *SIZE)).data

    return encode


@pytest.fixture(scope="module")
def calibrated(agreed):
    return make_profile(agreed)


@pytest.fixture
def profile(calibrated, monkeypatch):
    """A profile that this process knows, as camera and detector."""
    monkeypatch.setitem(BUNDLED.__dict__, "_by_hash", {calibrated.hash: calibrated})
    return calibrated


Browse = Callable[..., AbstractAsyncContextManager[Page]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """One for all tests of a module, which share its event loop: starting it takes longer than most of them."""
    async with open_browser() as browser:
        yield browser


@pytest.fixture
def browse(browser: Browser) -> Browse:
    """Opens a page of its own that must not complain: no error or warning, no failed or foreign request."""

    @asynccontextmanager
    async def open_page(url: str, tolerate: str | None = None, **context: Any) -> AsyncIterator[Page]:
        complaints: list[str] = []

        def complain(text: str) -> None:
            # A page that opens another stream leaves a connection that was not made yet: Chromium warns of it.
            left = "WebSocket is closed before the connection is established" in text
            if not left and not (tolerate and tolerate in text):
                complaints.append(text)

        origin = urlsplit(url).netloc
        session = await browser.new_context(**context)
        session.set_default_timeout(LIVENESS_S * 1000)
        page = await session.new_page()
        page.on("console", lambda said: said.type in ("error", "warning") and complain(said.text))
        page.on("pageerror", lambda error: complain(str(error)))
        page.on("dialog", lambda dialog: complain(f"dialog: {dialog.message}"))
        page.on("request", lambda request: urlsplit(request.url).netloc == origin or complain(request.url))
        page.on(
            "response",
            lambda answer: answer.status < 400 or complain(f"{answer.status} for {answer.request.url}"),
        )
        page.on(
            "requestfailed",
            # A poll is aborted when another stream is opened.
            lambda request: (
                "ERR_ABORTED" in (request.failure or "") or complain(f"{request.failure} {request.url}")
            ),
        )
        try:
            await page.goto(url)
            yield page
        finally:
            await session.close()
        assert not complaints

    return open_page

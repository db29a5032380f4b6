"""Debian's Chromium, driven by Playwright: what tests and screenshots of the live page look with."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, async_playwright

CHROMIUM = shutil.which("chromium")
# It runs as root in containers, has no GPU there, and has nobody to call.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@asynccontextmanager
async def open_browser(*flags: str) -> AsyncIterator[Browser]:
    """A headless browser of its own, with flags beside the usual ones; needs CHROMIUM."""
    assert CHROMIUM, "no chromium"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            headless=True, executable_path=CHROMIUM, args=[*FLAGS, *flags]
        )
        try:
            yield browser
        finally:
            await browser.close()

"""Chromium without a network, for tests of pages: what a page asked for, printed or was refused fails the test.

The browser is the system's ``chromium`` (Debian: ``apt-get install chromium``), driven by Playwright.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

DESKTOP, PHONE = (1280, 800), (390, 844)
ARGUMENTS = [
    "--no-sandbox",  # as root
    "--enable-unsafe-swiftshader",  # WebGL without a GPU
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]
#: Names resolve to nothing; addresses of the loopback remain, for pages of a service under test.
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"

#: What Chromium prints when it reads a drawing back, as it does for every frame without a GPU.
STALL = "GPU stall due to ReadPixels"

WATCH = """
window.__violations = [];
document.addEventListener('securitypolicyviolation', (event) =>
    window.__violations.push(event.violatedDirective + ' ' + event.blockedURI));
"""


@dataclass
class Visit:
    """A page and what happened on it.

    Attributes:
        page: Playwright's page.
        requests: The addresses that it asked for, the first one included.
        troubles: Warnings and errors of the console, uncaught exceptions, failed requests.
    """

    page: Any
    requests: list[str] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)

    def violations(self) -> list[str]:
        """What the Content-Security-Policy refused."""
        return list(self.page.evaluate("window.__violations || []"))

    def picture(self, name: str) -> Path | None:
        """A screenshot NAME.png in the directory that JOSE_PICTURES names, if it does."""
        if not (folder := os.environ.get("JOSE_PICTURES")):
            return None
        path = Path(folder) / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=path)
        return path


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Playwright's browser: the system's Chromium, headless, to which no name resolves."""
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed; run `make test-browser`")
    program = os.environ.get("JOSE_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[*ARGUMENTS, OFFLINE])
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def visited(
    browser: Any,
    address: str,
    *,
    size: tuple[int, int] = DESKTOP,
    dark: bool = False,
    touch: bool = False,
    allowed: str | None = None,
    refused: tuple[str, ...] = (),
    **options: Any,
) -> Iterator[Visit]:
    """A page, opened in a context of its own; at its end it must have had no trouble.

    Args:
        browser: From :func:`chromium`.
        address: ``file:///...`` or ``http://127.0.0.1:...``.
        size: Width and height of the window.
        dark: Whether the system prefers dark colours.
        touch: Whether it is a phone.
        allowed: Requests may begin with this; None allows the page itself only.
        refused: Troubles may contain one of these, such as the status of an answer that the test provokes.
        options: Further ones of Playwright's ``new_context``.
    """
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if dark else "light",
        has_touch=touch,
        is_mobile=touch,
        reduced_motion="reduce",
        **options,
    )
    try:
        context.add_init_script(WATCH)
        page = context.new_page()
        page.set_default_timeout(30_000)
        visit = Visit(page)
        page.on("request", lambda request: visit.requests.append(request.url))
        page.on("requestfailed", lambda request: visit.troubles.append(f"failed: {request.url} {request.failure}"))
        page.on("pageerror", lambda error: visit.troubles.append(f"uncaught: {error}"))
        page.on(
            "console",
            lambda message: (
                visit.troubles.append(f"{message.type}: {message.text}")
                if message.type in ("error", "warning", "assert")
                else None
            ),
        )
        page.goto(address)
        yield visit
        foreign = [url for url in visit.requests if not url.startswith(allowed or address) and url[:5] != "blob:"]
        assert foreign == [], "the page asked for something else"
        assert visit.violations() == [], "the policy of the page refused something"
        expected = (*refused, STALL)
        troubles = [trouble for trouble in visit.troubles if not any(part in trouble for part in expected)]
        assert troubles == [], "the console is not empty"
    finally:
        context.close()


def until(visit: Visit, expression: str, value: Any = True, *, timeout: float = 30) -> None:
    """Wait until an expression has a value; a page whose policy forbids eval can be asked in this way only.

    Args:
        visit: The page.
        expression: In JavaScript.
        value: True for any that counts as true.
        timeout: Seconds.
    """
    end = time.monotonic() + timeout
    found = visit.page.evaluate(expression)
    while not (found if value is True else found == value):
        assert time.monotonic() < end, f"{expression} is {found!r}, not {value!r}; {visit.troubles}"
        visit.page.wait_for_timeout(50)
        found = visit.page.evaluate(expression)


def widths_fit(visit: Visit) -> None:
    """Nothing on the page is wider than the window."""
    page = visit.page
    width = page.evaluate("document.documentElement.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def read_pixels(visit: Visit, selector: str) -> Any:
    """uint8 (height, width, 3): the pixels of an element, as a person sees them."""
    imread = pytest.importorskip("matplotlib.image").imread
    image = imread(io.BytesIO(visit.page.locator(selector).screenshot()), format="png")
    return (image[:, :, :3] * 255).round().astype("uint8")

"""The driver itself notices what it is there to notice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from driver import visited

pytestmark = pytest.mark.browser


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("<img src='http://example.org/a.png'>", "asked for something else"),
        ("<script>console.error('no')</script>", "console is not empty"),
        ("<script>throw new Error('no')</script>", "console is not empty"),
        ("<script>navigator.sendBeacon('http://127.0.0.1:9/')</script>", "asked for something else"),
    ],
)
def test_trouble_fails(browser: Any, tmp_path: Path, body: str, says: str) -> None:
    page = tmp_path / "page.html"
    page.write_text(f"<!doctype html>{body}", encoding="utf-8")
    with pytest.raises(AssertionError, match=says), visited(browser, page.as_uri()) as visit:
        visit.page.wait_for_timeout(200)


def test_a_refusal_by_the_policy_fails(browser: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    policy = "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'\">"
    page.write_text(f"<!doctype html>{policy}<script>1</script>", encoding="utf-8")
    with pytest.raises(AssertionError, match="refused something"), visited(browser, page.as_uri()) as visit:
        visit.page.wait_for_timeout(200)


def test_a_quiet_page_passes(browser: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<!doctype html><p id=p>quiet", encoding="utf-8")
    with visited(browser, page.as_uri(), dark=True) as visit:
        assert visit.page.locator("#p").inner_text() == "quiet"
        assert visit.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")

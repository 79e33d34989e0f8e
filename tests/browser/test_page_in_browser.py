"""The page of the service, used as a person would: by keyboard, on a phone, with hostile documents, without a key."""

from __future__ import annotations

import contextlib
import csv
import http.client
import http.server
import json
import random
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from driver import DESKTOP, PHONE, Visit, visited, widths_fit
from serving import READ_KEY, WRITE_KEY, Served, Starter, make_model, start, starting

import jose_embed
from jose_embed.cli.program import train_main

pytestmark = pytest.mark.browser

SIZES = pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["1280", "390"])
VIEWS = [
    "search",
    "search?q=sail+the+boat",
    "search?like=ship-7&in=trained",
    "words",
    "words?w=boat",
    "documents",
    "map",
    "model",
]
TOPICS = {
    "sea": "boat sail wind harbour anchor wave captain tide rope mast deck crew storm island shore",
    "kitchen": "bread oven flour butter salt pepper soup knife plate sugar dough onion garlic spoon kettle",
    "code": "parser string date error class module thread queue socket buffer compiler syntax function loop index",
}
COMMON = ["the", "and", "with", "from", "then", "before", "after", "while", "near"]
HOSTILE = {
    "<script>document.title='hacked'</script>": "<script>window.hacked = 1</script>"
    "<img src=x onerror='window.hacked = 2'> "
    'boat & <b>sail</b> "quotes" {{7*7}} javascript:alert(1) </textarea></script>',
    "شراع": "هذا نص من اليمين إلى اليسار boat sail \u202e desrever \u202c \u2066 isolated نهاية",
    "W" * 300: "W" * 5_000 + " boat " + "x" * 5_000,
    "nul and marks": "boat sail Z\u0351\u0352\u0353\u0354\u0355\u0356 \x00 \x1b[31m \u2028 \ufeff 👩‍👩‍👧‍👦 wind",
}
MAP = """<!doctype html><html><head><meta name="jose-model" content="@model@"></head><body><p id=drawn></p><script>
const seen = [];
try { seen.push('storage ' + parent.sessionStorage.length); } catch (error) { seen.push('no parent'); }
try { seen.push('storage ' + sessionStorage.length); } catch (error) { seen.push('no storage'); }
document.getElementById('drawn').textContent = 'drawn, ' + seen.join(', ');
</script></body></html>"""


@pytest.fixture(scope="session")
def sea(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with texts, titles and topics: the path of its directory."""
    folder = tmp_path_factory.mktemp("sea")
    draw = random.Random(1)
    with (folder / "sea.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "title", "topic", "text"])
        for i in range(360):
            topic = list(TOPICS)[i % 3]
            words = [
                draw.choice(COMMON) if draw.random() < 0.3 else draw.choice(TOPICS[topic].split()) for _ in range(90)
            ]
            prefix = "ship" if topic == "sea" else topic
            rows.writerow([f"{prefix}-{i // 3}", f"About {words[0]} {i}", topic, " ".join(words).capitalize() + "."])
    options = "--text-field text --id-field id --keep-fields title,topic --keep-text --dim 24 --workers 1 --min-count 2"
    assert train_main([str(folder / "sea.csv"), "--output", str(folder / "sea.jose"), *options.split()]) == 0
    return folder / "sea.jose"


@pytest.fixture(scope="module")
def service(sea: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service without keys; the tests of this file leave what they add."""
    running = start(sea, "--documents", str(tmp_path_factory.mktemp("documents") / "d.sqlite3"))
    yield running
    assert running.stop() == 0


@pytest.fixture
def starter() -> Iterator[Starter]:
    """Starts services that are killed when the test ends."""
    with starting() as started:
        yield started


@pytest.fixture
def locked(sea: Path, tmp_path: Path, starter: Starter) -> Served:
    """A service that needs keys, with a map."""
    (tmp_path / "sea.map.html").write_text(MAP.replace("@model@", jose_embed.load(sea).id), encoding="utf-8")
    keys = {"JOSE_READ_KEY": READ_KEY, "JOSE_WRITE_KEY": WRITE_KEY, "JOSE_MAP": str(tmp_path / "sea.map.html")}
    return starter(sea, "--documents", str(tmp_path / "d.sqlite3"), environment=keys)


def opened(browser: Any, service: Served, view: str = "", **options: Any) -> Any:
    """A view of the page, which may ask its own service only."""
    fragment = f"#/{view}" if view else ""
    return visited(browser, f"{service.url}/{fragment}", allowed=service.url, **options)


def cards(visit: Visit) -> Any:
    return visit.page.locator("main > section:not([hidden]) .cards > li")


def said(visit: Visit, text: str) -> None:
    """Wait until a text is shown."""
    visit.page.get_by_text(text).first.wait_for()


def until(visit: Visit, expression: str) -> None:
    """Wait until an expression is true. Playwright's own wait needs the eval that the policy of the page forbids."""
    deadline = time.monotonic() + 30
    while not visit.page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        visit.page.wait_for_timeout(50)


def search(visit: Visit, text: str) -> None:
    visit.page.get_by_label("A text to find documents for").fill(text)
    visit.page.keyboard.press("Enter")
    cards(visit).first.wait_for()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@SIZES
def test_every_part_fits_and_asks_nothing_of_others(
    browser: Any, service: Served, size: tuple[int, int], dark: bool
) -> None:
    with opened(browser, service, size=size, dark=dark, touch=size is PHONE) as visit:
        for view in VIEWS:
            visit.page.goto(f"{service.url}/#/{view}")
            until(visit, "!document.querySelector('.waiting, [aria-busy=true]')")
            visit.page.wait_for_load_state("networkidle")
            widths_fit(visit)
            visit.picture(f"page-{re.sub('[^a-z]+', '-', view)}-{size[0]}-{'dark' if dark else 'light'}")
        assert visit.page.evaluate("document.cookie + localStorage.length + sessionStorage.length") == "00"


@SIZES
def test_search(browser: Any, service: Served, size: tuple[int, int]) -> None:
    with opened(browser, service, size=size, touch=size is PHONE) as visit:
        page = visit.page
        said(visit, "by topic")
        search(visit, "sail the boat from the xyzzy harbour")
        assert cards(visit).count() == 10
        said(visit, "Not known to the model, and searched for as written: xyzzy.")
        marked = {text.lower() for text in page.locator("mark").all_inner_texts()} - {"marked"}
        assert marked == {"sail", "boat", "harbour"}, "frequent words such as the are not marked"
        near = {text.lower() for text in page.locator(".cards .near").all_inner_texts()}
        assert near <= set(TOPICS["sea"].split())
        assert set(page.locator(".fields dd").all_inner_texts()) == {"sea"}
        first = cards(visit).first
        title = first.locator("h2").inner_text()
        assert title.startswith("About ")
        snippet = first.locator(".text").inner_text()
        first.get_by_role("button", name="Whole text").click()
        assert len(first.locator(".text").inner_text()) > len(snippet)
        first.get_by_role("button", name="Less").click()
        assert first.locator(".text").inner_text() == snippet
        page.get_by_role("button", name="More", exact=True).click()
        until(visit, "document.querySelectorAll('.cards > li').length === 20")
        cards(visit).first.get_by_role("button", name="More like this").click()
        said(visit, f"Documents like {title}")
        assert title not in cards(visit).locator("h2").all_inner_texts(), "the document itself is no answer"
        page.go_back()
        until(visit, "document.querySelectorAll('.cards > li').length === 20")
        assert page.get_by_label("A text to find documents for").input_value() == "sail the boat from the xyzzy harbour"
        page.get_by_role("link", name="captain").or_(page.locator(".above .chips a")).first.click()
        page.locator(".words tbody tr").first.wait_for()


def test_a_value_filters_if_it_is_exact_and_not_asked_for_yet(
    browser: Any, sea: Path, starter: Starter, tmp_path: Path
) -> None:
    running = starter(sea, "--documents", str(tmp_path / "d.sqlite3"))
    fields = {"stars": 1, "superstars": 1, "text": "12345678901234567890", "large": 12345678901234567890}
    body = {"text": "boat", "fields": fields}
    assert running.client.put("/documents/a", json=body).status_code == 201
    with opened(browser, running, "search?q=boat&in=added&f=superstars+%3D+1") as visit:
        visit.page.locator(".fields").wait_for()
        linked = visit.page.locator(".fields div").filter(has=visit.page.locator("dd a")).locator("dt")
        assert linked.all_inner_texts() == ["stars", "text"]


@SIZES
def test_a_value_of_a_field_filters(browser: Any, service: Served, size: tuple[int, int]) -> None:
    with opened(browser, service, size=size, touch=size is PHONE, refused=("status of 422",)) as visit:
        page, only = visit.page, visit.page.get_by_label("Only those with")
        assert not only.is_visible()
        search(visit, "sail the boat with bread and butter")
        assert only.is_visible()
        values = page.locator(".fields dd a")
        value = values.first.inner_text()
        values.first.click()
        until(visit, "location.hash.includes('f=') && !document.querySelector('[aria-busy=true]')")
        name, _, shown = only.input_value().partition(" = ")
        assert json.loads(shown) == value
        assert set(page.locator(".fields dd").all_inner_texts()) == {value}
        assert not page.locator(".fields dd a").count(), "it is filtered by it already"
        widths_fit(visit)
        visit.picture(f"page-filter-{size[0]}")
        only.fill(f"{name} = nowhere")
        only.press("Enter")
        said(visit, "No document answers the question and has these fields.")
        only.fill(f"{name} == 1")
        only.press("Enter")
        said(visit, "equality is a single =")
        only.fill("")
        only.press("Enter")
        until(visit, "!location.hash.includes('f=') && document.querySelectorAll('.cards > li').length === 10")
        page.go_back()
        page.go_forward()
        assert only.input_value() == ""


def test_an_address_can_be_kept(browser: Any, service: Served) -> None:
    with opened(browser, service, "search?q=bread+%26+butter%3F&k=20") as visit:
        cards(visit).first.wait_for()
        assert visit.page.get_by_label("A text to find documents for").input_value() == "bread & butter?"
        assert cards(visit).count() == 20
        assert set(visit.page.locator(".fields dd").all_inner_texts()) == {"kitchen"}
    for strange in (
        "nothing",
        "search?k=-5&q=boat",
        "search?k=1e9&q=boat",
        "words?w=%F0%9F",
        "search?in=x&q=boat",
        "?",
        "search?q=%00",
    ):
        with opened(browser, service, strange, refused=("status of 4",)) as visit:
            visit.page.wait_for_load_state("networkidle")
            assert visit.page.locator("main > section:not([hidden])").count() == 1


def test_without_texts_the_words_of_documents_are_shown(browser: Any, tmp_path: Path, starter: Starter) -> None:
    make_model(tmp_path / "plain.jose")
    running = starter(tmp_path / "plain.jose")
    with opened(browser, running, "search?word=king") as visit:
        said(visit, "The model keeps no texts")
        until(visit, "document.querySelectorAll('.cards .chips').length === 10")
        assert visit.page.locator(".cards .chips a").count() == 80


def test_unknown_words_are_told_in_words(browser: Any, service: Served) -> None:
    with opened(browser, service) as visit:
        visit.page.get_by_label("A text to find documents for").fill("xyzzy plugh")
        visit.page.get_by_role("button", name="Search").click()
        said(visit, "No document holds one of these words, and the model knows none of them.")
        said(visit, "Not known to the model, and searched for as written: xyzzy, plugh.")


@SIZES
def test_words(browser: Any, service: Served, size: tuple[int, int]) -> None:
    with opened(browser, service, "words", size=size, touch=size is PHONE) as visit:
        page = visit.page
        field = page.get_by_label("A word, or a sum of words")
        field.press_sequentially("sa")
        until(visit, "document.querySelectorAll('#known-words option').length > 0")
        options = page.eval_on_selector_all("#known-words option", "(all) => all.map((one) => one.value)")
        assert options == ["salt", "sail"] or options == ["sail", "salt"]
        field.fill("boat")
        field.press("Enter")
        page.locator(".words tbody tr").first.wait_for()
        found = page.locator(".words tbody td:first-child").all_inner_texts()
        assert len(found) == 20
        assert set(found[:5]) <= set(TOPICS["sea"].split())
        page.get_by_role("link", name=found[0], exact=True).click()
        until(visit, f"document.getElementById('word').value === '{found[0]}'")
        field.fill("baot")
        page.get_by_role("button", name="Neighbours").click()
        said(visit, "'baot' is not in the vocabulary")
        page.get_by_role("link", name="boat", exact=True).click()
        page.locator(".words tbody tr").first.wait_for()
        field.fill("boat - sail + bread")
        field.press("Enter")
        page.get_by_role("heading", name="boat - sail + bread").wait_for()
        assert not {"boat", "sail", "bread"} & set(page.locator(".words tbody td:first-child").all_inner_texts())
        field.fill("boat")
        field.press("Enter")
        page.get_by_role("link", name="Documents about it").click()
        cards(visit).first.wait_for()
        assert page.locator(".cards mark").count() > 0


@SIZES
def test_hostile_documents_are_text(browser: Any, service: Served, size: tuple[int, int]) -> None:
    with opened(browser, service, "documents", size=size, touch=size is PHONE, refused=("status of 412",)) as visit:
        page = visit.page
        for id, text in HOSTILE.items():
            page.get_by_label("Text", exact=True).evaluate("(field, text) => { field.value = text; }", text)
            page.get_by_label("Name").fill(id)
            page.get_by_role("button", name="Add", exact=True).click()
            page.locator("#add-answer .notice").wait_for()
            if page.get_by_text("There is a document of this name").count():  # from the other size
                page.get_by_role("button", name="Replace it").click()
            said(visit, "Stored as")
        widths_fit(visit)
        for card in cards(visit).all():
            card.get_by_role("button", name="Show text").click()
        until(visit, "document.querySelectorAll('.whole:not([hidden])').length >= 4")
        shown = page.locator(".whole").all_inner_texts()
        assert any("<img src=x onerror='window.hacked = 2'>" in text for text in shown)
        widths_fit(visit)
        visit.picture(f"page-hostile-documents-{size[0]}")
        page.goto(f"{service.url}/#/search?q=boat+sail&in=added")
        cards(visit).first.wait_for()
        assert {"<script>document.title='hacked'</script>", "شراع"} <= set(cards(visit).locator("h2").all_inner_texts())
        right = cards(visit).filter(has=page.locator("h2", has_text="شراع"))
        assert right.locator(".text").evaluate("(text) => getComputedStyle(text).direction") == "rtl"
        widths_fit(visit)
        visit.picture(f"page-hostile-search-{size[0]}")
        assert page.evaluate("window.hacked") is None
        assert page.title() == "sea · jose-embed"


@SIZES
def test_a_document_is_added_and_removed(browser: Any, service: Served, size: tuple[int, int]) -> None:
    with opened(browser, service, "documents", size=size, touch=size is PHONE, refused=("status of 4",)) as visit:
        page = visit.page
        page.get_by_role("button", name="Add", exact=True).click()
        page.get_by_label("Text", exact=True).fill("   ")
        page.get_by_role("button", name="Add", exact=True).click()
        said(visit, "Type or paste a text first.")
        page.get_by_label("Text", exact=True).fill("qwertz asdf")
        page.get_by_role("button", name="Add", exact=True).click()
        said(visit, "The text holds no known word")
        page.get_by_label("Text", exact=True).fill("salt and the soup with unheard words")
        page.get_by_label("Name").fill("a / recipe?")
        page.get_by_role("button", name="Add", exact=True).click()
        said(visit, "Stored as a / recipe?. The model knows 5 of its 7 words.")
        page.get_by_label("Text", exact=True).fill("bread")
        page.get_by_label("Name").fill("a / recipe?")
        page.get_by_role("button", name="Add", exact=True).click()
        said(visit, "There is a document of this name")
        page.get_by_label("Text", exact=True).fill("butter and bread")
        page.get_by_role("button", name="Replace it").click()
        said(visit, "The model knows all of its words.")
        page.get_by_role("link", name="Find documents like it").click()
        said(visit, "Documents like a / recipe?")
        assert "kitchen" in page.locator(".fields dd").all_inner_texts()
        page.goto(f"{service.url}/#/search?q=bread+butter&in=added")
        card = cards(visit).filter(has=page.locator("h2", has_text="a / recipe?"))
        card.get_by_role("button", name="Remove").click()
        card.get_by_role("button", name="Keep it").click()
        card.get_by_role("button", name="Remove").click()
        card.get_by_role("button", name="Remove it").click()
        said(visit, "Removed a / recipe?.")
        assert service.get("/documents/a / recipe?").status_code == 404


@SIZES
def test_keys(browser: Any, locked: Served, size: tuple[int, int]) -> None:
    with opened(browser, locked, size=size, touch=size is PHONE, refused=("status of 401", "status of 403")) as visit:
        page = visit.page
        said(visit, "This needs a key")
        page.get_by_role("button", name="Enter a key").click()
        field = page.get_by_label("Key", exact=True)
        for wrong, message in (
            ("", "Type or paste the key."),
            ("schlüssel", "no letters beyond ASCII"),
            ("wrong", "not known"),
        ):
            field.fill(wrong)
            page.get_by_role("button", name="Use it").click()
            page.locator("#key-answer").get_by_text(message).wait_for()
        visit.picture(f"page-key-{size[0]}")
        field.fill(READ_KEY)
        field.press("Enter")
        said(visit, "by topic")
        search(visit, "boat")
        page.goto(f"{locked.url}/#/documents")
        page.get_by_label("Text", exact=True).fill("a boat")
        page.get_by_role("button", name="Add", exact=True).click()
        said(visit, "This key may only read")
        page.get_by_role("button", name="Enter a key").click()
        field.fill(WRITE_KEY)
        page.get_by_role("button", name="Use it").click()
        said(visit, "Stored as note-")
        assert page.evaluate("JSON.stringify({...sessionStorage})") == f'{{"jose-key":"{WRITE_KEY}"}}'
        assert page.evaluate("document.cookie + localStorage.length") == "0"
        page.goto(f"{locked.url}/#/map")
        frame = page.frame_locator("iframe")
        frame.get_by_text("drawn, no parent, no storage").wait_for()
        assert WRITE_KEY not in " ".join(visit.requests)
        with page.context.expect_page() as alone:
            page.get_by_role("button", name="Open alone").click()
        alone.value.get_by_text("drawn").wait_for()
        page.get_by_role("button", name="Key").click()
        page.get_by_role("button", name="Forget the key").click()
        page.goto(f"{locked.url}/#/words?w=boat")
        said(visit, "This needs a key")
        assert page.evaluate("sessionStorage.length") == 0


def test_read_only(browser: Any, sea: Path, tmp_path: Path, starter: Starter) -> None:
    running = starter(sea, "--documents", str(tmp_path / "d.sqlite3"), "--read-only")
    with opened(browser, running, "documents") as visit:
        said(visit, "This service is read-only")
        assert not visit.page.get_by_role("button", name="Add", exact=True).is_visible()


@pytest.mark.parametrize(
    ("status", "headers", "body", "message"),
    [
        (429, {"Retry-After": "7"}, "slow down", "Too many requests"),
        (
            503,
            {"Retry-After": "3"},
            '{"type": "/problems#saturated", "title": "The service is busy"}',
            "Try again in 3 seconds",
        ),
        (503, {}, '{"type": "/problems#not-ready", "title": "x", "detail": "it is loading"}', "it is loading."),
        (502, {}, "<h1>Bad gateway</h1>", "A server on the way to it answered with status 502"),
        (200, {}, "<h1>Please log in</h1>", "The service is not reached"),
        (418, {}, "", "The answer has status 418"),
        (507, {}, '{"type": "/problems#disk-full", "title": "The disk is full", "advice": "Make room"}', "Make room."),
    ],
)
def test_errors_say_what_to_do(
    browser: Any, service: Served, status: int, headers: dict[str, str], body: str, message: str
) -> None:
    with opened(browser, service, refused=("status of",)) as visit:
        page = visit.page
        said(visit, "by topic")
        page.route("**/search", lambda route: route.fulfill(status=status, headers=headers, body=body))
        page.get_by_label("A text to find documents for").fill("boat")
        page.keyboard.press("Enter")
        said(visit, message)
        page.unroute("**/search")
        if status in (429, 503, 502, 200):
            page.get_by_role("button", name="Try again").click()
            cards(visit).first.wait_for()


def test_a_service_that_stops(browser: Any, sea: Path, tmp_path: Path, starter: Starter) -> None:
    running = starter(sea, "--documents", str(tmp_path / "d.sqlite3"))
    with opened(browser, running, refused=("ERR_CONNECTION_REFUSED", "ERR_")) as visit:
        said(visit, "by topic")
        assert running.stop() == 0
        visit.page.get_by_label("A text to find documents for").fill("boat")
        visit.page.keyboard.press("Enter")
        said(visit, "The service does not answer")
        visit.page.goto(f"{running.url}/#/model")
        said(visit, "not reached")


def test_by_keyboard_alone(browser: Any, service: Served) -> None:
    with opened(browser, service) as visit:
        page = visit.page
        said(visit, "by topic")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "skip"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.id") == "query"
        page.keyboard.type("boat")
        page.keyboard.press("Shift+Enter")
        page.keyboard.type("sail")
        page.keyboard.press("Enter")
        cards(visit).first.wait_for()
        assert page.get_by_label("A text to find documents for").input_value() == "boat\nsail"
        reached = set()
        for _ in range(40):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.textContent.trim()"))
            # The frame around the search field shows the focus of the field.
            shown = page.evaluate(
                "document.activeElement.matches('body, .ask textarea') || "
                "getComputedStyle(document.activeElement).outlineStyle === 'solid'"
            )
            assert shown, f"the focus is not seen on {page.evaluate('document.activeElement.outerHTML')}"
        assert {"Search", "More like this", "Whole text"} <= reached
        names = page.locator("button:visible, a:visible, input:visible, textarea:visible, select:visible")
        assert all(
            names.evaluate_all("(all) => all.map((one) => Boolean(one.textContent.trim() || one.labels?.length))")
        )


@contextlib.contextmanager
def proxy(port: int) -> Iterator[str]:
    """A proxy that serves the service under /tools/jose/; the address of the page there."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def forward(self) -> None:
            if not self.path.startswith("/tools/jose/"):
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            there = http.client.HTTPConnection("127.0.0.1", port)
            there.request(self.command, self.path.removeprefix("/tools/jose"), body, dict(self.headers))
            answer = there.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name not in ("connection", "content-length", "date"):
                    self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            there.close()

        def log_message(self, *arguments: Any) -> None:
            pass

    for method in ("GET", "HEAD", "POST", "PUT", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.forward)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/tools/jose"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_behind_a_proxy_under_a_path(browser: Any, sea: Path, tmp_path: Path, starter: Starter) -> None:
    (tmp_path / "map.html").write_text(MAP.replace("@model@", jose_embed.load(sea).id), encoding="utf-8")
    running = starter(sea, "--documents", str(tmp_path / "d.sqlite3"), "--map", str(tmp_path / "map.html"))
    with proxy(int(running.url.rpartition(":")[2])) as url, visited(browser, f"{url}/", allowed=url) as visit:
        said(visit, "by topic")
        search(visit, "boat")
        visit.page.get_by_role("link", name="Documents", exact=True).click()
        visit.page.get_by_label("Text", exact=True).fill("a boat")
        visit.page.get_by_role("button", name="Add", exact=True).click()
        said(visit, "Stored as note-")
        visit.page.get_by_role("link", name="Map", exact=True).click()
        visit.page.frame_locator("iframe").get_by_text("drawn, no parent, no storage").wait_for()


def test_the_model_and_its_health(browser: Any, service: Served) -> None:
    with opened(browser, service, "model") as visit:
        said(visit, "Ready. Asked just now: index")
        card = visit.page.locator("pre").inner_text()
        assert "vocabulary" in card
        assert "contains the texts and fields (title, topic)" in card
        assert visit.page.locator("#health").inner_text() == "ready"
        visit.page.goto(f"{service.url}/#/map")
        said(visit, "jose map sea.jose")

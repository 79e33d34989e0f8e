"""The map in Chromium, as a person uses it, from disk and without a network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from driver import DESKTOP, PHONE, Visit, read_pixels, until, visited, widths_fit
from maps import HOSTILE, THEMES, large_map, planted_model

import jose_embed

pytestmark = pytest.mark.browser

SIZES = {"desktop": DESKTOP, "phone": PHONE}


@pytest.fixture(scope="module")
def drawn() -> jose_embed.DocumentMap:
    return jose_embed.map(planted_model(hostile=True), n_topics=3)


@pytest.fixture(scope="module")
def file(drawn: jose_embed.DocumentMap, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn.save(tmp_path_factory.mktemp("map") / "map.html", title="<b>A title</b> \u202ewith\u202c text")


def ready(visit: Visit, timeout: float = 60) -> None:
    """Wait until all points are drawn."""
    until(visit, "window.joseMap && joseMap.stats.drawn === joseMap.n", timeout=timeout)


def point_of(visit: Visit, doc_id: str) -> int:
    """The number of the point of a document."""
    script = """async (id) => {
        for (let i = 0; i < joseMap.n; i++) if ((await joseMap.documentOf(i)).id === id) return i;
    }"""
    return int(visit.page.evaluate(script, doc_id))


def move_to(visit: Visit, point: int) -> tuple[float, float]:
    """Bring a point to the middle, large; its place on the screen."""
    visit.page.evaluate("(i) => joseMap.show(...joseMap.position(i), 12)", point)
    ready(visit)
    visit.page.wait_for_timeout(100)
    x, y = visit.page.evaluate("(i) => joseMap.toScreen(i)", point)
    return float(x), float(y)


def heading(visit: Visit) -> str:
    return str(visit.page.locator("#heading").inner_text())


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_opens_and_draws(browser: Any, file: Path, size: str, dark: bool) -> None:
    with visited(browser, file.as_uri(), size=SIZES[size], dark=dark, touch=size == "phone") as visit:
        ready(visit)
        page = visit.page
        assert page.locator("#title").inner_text() == "<b>A title</b> \u202ewith\u202c text"
        assert "594 documents, 3 topics" in page.locator("#facts").inner_text()
        widths_fit(visit)
        shown = page.evaluate("joseMap.labels()")
        assert {theme for theme in THEMES if any(theme in label for label in shown)} == set(THEMES)
        pixels = read_pixels(visit, "#stage").reshape(-1, 3)
        assert len(np.unique(pixels // 32, axis=0)) > 20
        assert (pixels.mean() < 80) == dark
        if size == "desktop":
            assert page.locator("#keys .key").count() == 3
        assert page.evaluate("document.body.scrollHeight <= innerHeight")
        assert visit.requests == [file.as_uri()]
        visit.picture(f"map-{size}-{'dark' if dark else 'light'}")


#: The edges of the visible labels: left, top, right and bottom.
BOXES = """[...document.querySelectorAll('.label')].filter((n) => n.style.visibility === 'visible')
    .map((n) => { const b = n.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; })"""


def test_labels_do_not_overlap_and_thin_out(browser: Any, file: Path) -> None:
    with visited(browser, file.as_uri()) as visit:
        ready(visit)
        far = visit.page.evaluate("joseMap.labels().length")
        for zoom in (1, 2, 4):
            visit.page.evaluate("(zoom) => joseMap.show(joseMap.view.x, joseMap.view.y, zoom)", zoom)
            visit.page.wait_for_timeout(150)
            found = visit.page.evaluate(BOXES)
            for i, a in enumerate(found):
                for b in found[i + 1 :]:
                    assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        x, y = visit.page.evaluate("[joseMap.about.labels[0].x / 65535, joseMap.about.labels[0].y / 65535]")
        visit.page.evaluate("([x, y]) => joseMap.show(x, y, 4)", [x, y])
        visit.page.wait_for_timeout(150)
        near = visit.page.evaluate("joseMap.labels()")
        total = visit.page.evaluate("joseMap.about.labels.filter((l) => l.level === 0).length")
        assert far == total == 3
        assert len(near) > 1


def test_labels_at_the_edge_are_not_cut(browser: Any, file: Path) -> None:
    with visited(browser, file.as_uri()) as visit:
        ready(visit)
        for goal in (5, DESKTOP[0] - 5):  # where the middle of the first label is brought, in pixels
            visit.page.evaluate(
                """(goal) => { const { toScreen, position, show } = joseMap, label = joseMap.about.labels[0];
                const x = label.x / 65535, y = label.y / 65535;
                show(x, y, 2);
                const scale = (toScreen(1)[0] - toScreen(0)[0]) / (position(1)[0] - position(0)[0]);
                show(x + (toScreen(0)[0] + (x - position(0)[0]) * scale - goal) / scale, y, 2); }""",
                goal,
            )
            visit.page.wait_for_timeout(150)
            found = visit.page.evaluate(BOXES)
            assert found
            assert all(left >= 0 and right <= DESKTOP[0] for left, _, right, _ in found)
            assert any(left < 10 or right > DESKTOP[0] - 10 for left, _, right, _ in found)


def test_hover_and_click_show_the_document(browser: Any, file: Path, drawn: jose_embed.DocumentMap) -> None:
    with visited(browser, file.as_uri()) as visit:
        ready(visit)
        page, doc_id = visit.page, "music-301"
        point = point_of(visit, doc_id)
        x, y = move_to(visit, point)
        page.mouse.move(x - 40, y - 40)
        page.mouse.move(x, y)
        page.locator("#tip").wait_for()
        tip = page.locator("#tip").inner_text()
        assert doc_id in tip
        assert "needle301" in tip
        page.mouse.click(x, y)
        page.locator("#content .hit").first.wait_for()
        assert heading(visit) == doc_id
        content = page.locator("#content").inner_text()
        for part in ("It speaks of music1 and needle301", "theme\nmusic", "year\n1991", "title 301", "recall"):
            assert part in content, content
        neighbours = page.locator("#content .hit b").all_inner_texts()
        exact = [n.doc_id for n in drawn.model.similar_documents(doc_id, k=10)]
        assert len(neighbours) == 10
        assert len(set(neighbours) & set(exact)) >= 3
        page.locator("#content .hit").first.click()
        until(visit, "document.querySelector('#heading').textContent", neighbours[0])
        page.keyboard.press("Escape")
        assert page.locator("#panel").is_hidden()


def test_the_neighbours_are_those_that_the_recall_says(browser: Any, file: Path, drawn: jose_embed.DocumentMap) -> None:
    with visited(browser, file.as_uri()) as visit:
        ready(visit)
        script = """async () => {
            const id = async (i) => (await joseMap.documentOf(i)).id, out = [];
            for (let i = 0; i < 60; i++) {
                out.push([await id(i), await Promise.all(joseMap.nearestPoints(i, 10).map(([j]) => id(j)))]);
            }
            return out;
        }"""
        shares = []
        for doc_id, found in visit.page.evaluate(script):
            exact = {n.doc_id for n in drawn.model.similar_documents(doc_id, k=10)}
            shares.append(len(exact & set(found)) / 10)
        assert abs(np.mean(shares) - drawn.recall) < 0.1


def test_search(browser: Any, file: Path) -> None:
    with visited(browser, file.as_uri()) as visit:
        ready(visit)
        page = visit.page
        page.keyboard.press("/")
        page.keyboard.type("needle302")
        page.keyboard.press("Enter")
        page.locator("#content mark").first.wait_for()
        assert "1 texts contain it" in page.locator("#content").inner_text()
        assert page.locator("#content mark").first.inner_text() == "needle302"
        assert page.evaluate("joseMap.state.filter((s) => s === 2).length") == 1
        page.locator("#query").fill("bread5")  # a word of the vocabulary: by meaning, and related words
        page.keyboard.press("Enter")
        page.locator("#content h3", has_text="By meaning").wait_for()
        page.locator("#content h3", has_text="In the texts").wait_for()
        assert all(word.startswith("bread") for word in page.locator(".chip").all_inner_texts())
        near = page.locator("#content > div", has=page.locator("h3", has_text="By meaning")).locator(".hit b")
        ids = near.all_inner_texts()
        assert len(ids) == 10
        assert all(one.startswith("bread") for one in ids)
        page.locator(".chip").first.click()
        page.locator("#content h3", has_text="By meaning").wait_for()
        page.locator("#query").fill("brea")
        page.locator("#content h3", has_text="Words of the map").wait_for()
        page.locator("#query").fill("nothing-like-this")
        page.locator("#content p", has_text="Nothing was found").wait_for()
        page.locator("#close").click()
        assert page.evaluate("joseMap.state.every((s) => s === 1)")
        assert page.locator("#query").input_value() == ""


def test_words_of_a_region(browser: Any, file: Path) -> None:
    with visited(browser, file.as_uri()) as visit:
        ready(visit)
        page = visit.page
        page.locator("#words").click()
        assert "almost the whole map" in page.locator("#content").inner_text()
        label = page.evaluate("joseMap.about.labels.find((l) => l.text.includes('sea'))")
        page.evaluate("([x, y]) => joseMap.show(x, y, 4)", [label["x"] / 65535, label["y"] / 65535])
        page.keyboard.press("w")
        page.locator("#content .hit").first.wait_for()
        assert page.locator(".chip").count() >= 8
        chips = page.locator(".chip").all_inner_texts()
        assert sum(word.startswith("sea") for word in chips[:6]) >= 5, chips  # a neighbor may be in view
        page.keyboard.press("Escape")
        page.keyboard.press("0")
        label = page.evaluate("joseMap.about.labels.find((l) => l.text.includes('bread'))")
        script = """([x, y]) => {
            const far = (i) => Math.hypot(joseMap.position(i)[0] - x, joseMap.position(i)[1] - y);
            return joseMap.toScreen([...Array(joseMap.n).keys()].reduce((a, b) => (far(a) < far(b) ? a : b)));
        }"""
        page.wait_for_timeout(300)
        x, y = page.evaluate(script, [label["x"] / 65535, label["y"] / 65535])
        page.wait_for_timeout(200)
        page.locator("#select").click()
        page.mouse.move(x - 30, y - 30)
        page.mouse.down()
        page.mouse.move(x, y, steps=3)
        page.mouse.move(x + 30, y + 30, steps=3)
        assert page.locator("#box").is_visible()
        page.mouse.up()
        page.locator("#content .hit").first.wait_for()
        assert heading(visit) == "Selected documents"
        assert page.locator(".chip").first.inner_text().startswith("bread")
        visit.picture("map-region")


def test_colours_and_legend(browser: Any, file: Path) -> None:
    with visited(browser, file.as_uri()) as visit:
        ready(visit)
        page = visit.page
        before = read_pixels(visit, "#stage")
        page.locator("#keys .key").first.click()
        count = int(page.locator("#keys .key i").first.inner_text().replace(",", ""))
        assert page.evaluate("joseMap.state.filter((s) => s === 1).length") == count
        page.locator("#keys .key").first.click()
        assert page.evaluate("joseMap.state.every((s) => s === 1)")
        page.locator("#by").select_option("theme")
        assert set(THEMES) <= set(page.locator("#keys .key span[dir]").all_inner_texts())
        page.locator("#by").select_option("year")
        page.locator(".ramp").wait_for()
        assert page.locator(".ends span").all_inner_texts() == ["1990", "2019"]
        page.wait_for_timeout(200)
        assert (read_pixels(visit, "#stage") != before).any(axis=2).mean() > 0.005
        page.locator("#colours").click()
        assert page.locator("#legend").is_hidden()
        page.locator("#theme").click()
        page.wait_for_timeout(200)
        assert read_pixels(visit, "#stage").mean() < 80


def test_every_key(browser: Any, file: Path) -> None:
    with visited(browser, file.as_uri()) as visit:
        ready(visit)
        page = visit.page
        page.locator("#stage").focus()
        view = "[joseMap.view.x, joseMap.view.y, joseMap.view.zoom]"
        start = page.evaluate(view)
        for key, at, sign in (
            ("ArrowRight", 0, 1),
            ("ArrowLeft", 0, -1),
            ("ArrowDown", 1, 1),
            ("ArrowUp", 1, -1),
            ("+", 2, 1),
            ("-", 2, -1),
        ):
            before = page.evaluate(view)
            page.keyboard.press(key)
            page.wait_for_timeout(60)
            assert (page.evaluate(view)[at] - before[at]) * sign > 0, key
        page.keyboard.press("+")
        page.keyboard.press("0")
        assert page.evaluate(view) == start
        page.keyboard.press("Enter")
        page.locator("#content .hit").first.wait_for()
        page.keyboard.press("n")
        assert page.evaluate("document.activeElement.className") == "hit"
        first = page.evaluate("document.activeElement.querySelector('b').textContent")
        page.keyboard.press("Enter")
        until(visit, "document.querySelector('#heading').textContent", first)
        page.keyboard.press("Escape")
        assert page.evaluate("document.activeElement.id") == "stage"
        page.keyboard.press("d")
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        page.keyboard.press("c")
        assert page.locator("#by").input_value() == "theme"
        page.keyboard.press("b")
        assert page.locator("#select").get_attribute("aria-pressed") == "true"
        page.keyboard.press("Escape")
        assert page.locator("#select").get_attribute("aria-pressed") == "false"
        page.keyboard.press("?")
        page.locator("#card").wait_for()
        text = page.locator("#cardtext").inner_text()
        assert "recall@10" in text
        assert "dimension" in text
        page.keyboard.press("Escape")
        assert page.locator("#card").is_hidden()
        for name in ("in", "out", "all"):
            page.locator(f"#{name}").click()
        reached = set()
        for _ in range(30):  # everything can be reached by Tab
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
        assert {
            "stage",
            "query",
            "words",
            "select",
            "colours",
            "theme",
            "about",
            "by",
            "key",
            "in",
            "out",
            "all",
        } <= reached


def test_pointer_moves_and_zooms(browser: Any, file: Path) -> None:
    with visited(browser, file.as_uri()) as visit:
        ready(visit)
        page = visit.page
        x, zoom = page.evaluate("[joseMap.view.x, joseMap.view.zoom]")
        page.mouse.move(700, 500)
        page.mouse.down()
        page.mouse.move(600, 500, steps=4)
        page.mouse.up()
        assert page.evaluate("joseMap.view.x") > x
        page.mouse.wheel(0, -400)
        page.wait_for_timeout(150)
        assert page.evaluate("joseMap.view.zoom") > 1.5 * zoom


def test_a_phone(browser: Any, file: Path) -> None:
    with visited(browser, file.as_uri(), size=PHONE, touch=True) as visit:
        ready(visit)
        page = visit.page
        point = point_of(visit, "sea-300")
        page.touchscreen.tap(*move_to(visit, point))
        page.locator("#content .hit").first.wait_for()
        assert heading(visit) == "sea-300"
        widths_fit(visit)
        visit.picture("map-phone-document")
        page.locator("#close").tap()
        page.locator("#colours").tap()
        assert page.locator("#legend").is_visible()
        page.locator("#keys .key").nth(1).tap()
        widths_fit(visit)
        visit.picture("map-phone-colours")
        page.locator("#colours").tap()
        page.locator("#query").fill("needle9")
        page.locator("#content .hit").first.wait_for()
        page.locator("#words").tap()
        page.locator("#about").tap()
        page.locator("#card").wait_for()
        widths_fit(visit)
        page.locator("#cardclose").tap()
        page.locator("#theme").tap()


@pytest.mark.parametrize("size", SIZES)
def test_hostile_texts_are_shown_and_do_nothing(browser: Any, file: Path, size: str) -> None:
    with visited(browser, file.as_uri(), size=SIZES[size]) as visit:
        ready(visit)
        page = visit.page
        if size == "phone":
            page.locator("#colours").click()
        page.locator("#by").select_option("theme")
        page.locator("#query").fill("hostile")
        page.locator("#content h3", has_text="In the texts").wait_for()
        hits = page.locator("#content > div").nth(1).locator(".hit")
        assert hits.count() == len(HOSTILE)
        widths_fit(visit)
        visit.picture(f"map-hostile-{size}")
        for i in range(len(HOSTILE)):
            page.locator("#query").fill("hostile")
            until(visit, "document.querySelectorAll('#content > div .hit').length >= 8")
            page.locator("#content > div").nth(1).locator(".hit").nth(i).click()
            page.locator("#content .text").wait_for()
            text = page.locator("#content .text").evaluate("(node) => node.textContent")
            assert any(text == f"{one} hostile" for one in HOSTILE)
            widths_fit(visit)
        assert page.evaluate("window.attacked") is None
        assert page.locator("#panel img, #panel script, #panel b b").count() == 0


def test_without_webgl_it_says_so(browser: Any, file: Path) -> None:
    with visited(browser, "about:blank", allowed=file.as_uri()) as visit:
        visit.page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
        visit.page.goto(file.as_uri())
        visit.page.locator("#wait", has_text="no WebGL 2").wait_for()


def test_one_draw_call_a_frame_and_little_script(browser: Any, tmp_path: Path) -> None:
    """100,000 points; the time is printed, not asserted, and stated in the evidence."""
    file = large_map(tmp_path / "large.html", 100_000)
    assert file.stat().st_size < 1_000_000 + 40 * 100_000 + 20 * 100_000  # with the ids, which are texts
    with visited(browser, file.as_uri()) as visit:
        ready(visit, 200)
        page = visit.page
        page.evaluate("joseMap.stats.script.length = 0; joseMap.stats.calls = joseMap.stats.frames = 0")
        for step in range(12):
            page.evaluate("(step) => joseMap.show(.5 + step / 100, .5, 1 + step / 5)", step)
            page.wait_for_timeout(250)
        stats = page.evaluate("joseMap.stats")
        assert stats["frames"] >= 4
        assert stats["calls"] <= stats["frames"]
        script = np.sort(stats["script"])
        print(f"100,000 points: script median {np.median(script):.2f} ms, most {script[-1]:.2f} ms a frame")


@pytest.mark.skipif("JOSE_MILLION" not in os.environ, reason="JOSE_MILLION=1 opens a million points")
def test_a_million_points(browser: Any, tmp_path: Path) -> None:
    file = large_map(tmp_path / "million.html", 1_000_000)
    with visited(browser, file.as_uri()) as visit:
        until(visit, "window.joseMap && joseMap.stats.drawn > 0", timeout=200)
        opened = visit.page.evaluate("joseMap.stats.ready") / 1000
        visit.page.evaluate("joseMap.show(.5, .5, 1.3)")
        visit.page.wait_for_timeout(100)
        thinned = visit.page.evaluate("joseMap.stats.drawn")
        ready(visit, 200)
        print(
            f"a million points: {file.stat().st_size:,} bytes, open in {opened:.1f} s, {thinned:,} drawn while moving"
        )
        assert thinned < 1_000_000
        visit.picture("map-million")

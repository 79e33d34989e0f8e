"""The page for people: its files, its policies, its switch, and the map that it shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import READ_KEY, ROOT, WRITE_KEY, Served, Starter, run_cli, start

from jose_embed.model.embeddings import Embeddings

FILES = ROOT / "service" / "page"
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
MAP = '<!doctype html><meta name="jose-model" content="{}"><title>map</title><script>document.title = "drawn"</script>'


@pytest.fixture(scope="module")
def locked(model_a: tuple[Path, Embeddings], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Path]]:
    """A service with keys, and the path of its map, where there is none yet."""
    folder = tmp_path_factory.mktemp("locked")
    environment = {"JOSE_READ_KEY": READ_KEY, "JOSE_WRITE_KEY": WRITE_KEY, "JOSE_MODEL": str(folder / "x.jose")}
    (folder / "x.jose").symlink_to(model_a[0])
    running = start(folder / "x.jose", environment=environment)
    yield running, folder / "x.html"
    assert running.stop() == 0


def test_a_browser_gets_the_page(served: Served) -> None:
    page = served.get("/", headers=BROWSER)
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.content == (FILES / "index.html").read_bytes()
    for name, kind in (("page.css", "text/css"), ("page.js", "text/javascript"), ("icon.svg", "image/svg+xml")):
        found = served.get(f"/page/{name}")
        assert found.headers["content-type"].startswith(kind)
        assert found.headers["x-content-type-options"] == "nosniff"
        assert found.content == (FILES / name).read_bytes()
    for name in ("index.html", "nothing.js", "..%2Fopenapi.json", "%2e%2e/app.py"):
        assert served.get(f"/page/{name}").status_code == 404


def test_every_file_that_the_page_names_is_relative_and_there(served: Served) -> None:
    named = re.findall(r"(?:src|href)=\"([^\"#]+)\"", (FILES / "index.html").read_text(encoding="utf-8"))
    assert {"page/page.js", "page/page.css", "page/icon.svg"} <= set(named)
    for path in named:
        assert not re.match(r"[a-z]+:|/", path), "a path before the service's own would be lost"
        assert served.get(f"/{path}").status_code == 200


def test_the_policy_lets_run_the_files_of_the_page_only(served: Served) -> None:
    policy = served.get("/").headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "require-trusted-types-for 'script'" in policy
    assert "unsafe" not in policy
    html = (FILES / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<script(?! src=)|<style|\sstyle=|\son\w+=", html) == []
    script = (FILES / "page.js").read_text(encoding="utf-8")
    assert (
        re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|localStorage|cookie", script) == []
    )
    assert re.findall(r"https?://", script + html + (FILES / "page.css").read_text(encoding="utf-8")) == []


def luminance(color: str) -> float:
    """The relative luminance of a colour, as WCAG defines it."""
    digits = color.removeprefix("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("palette", [0, 1], ids=["light", "dark"])
def test_text_can_be_read(palette: int) -> None:
    """WCAG AA: a contrast of 4.5 or more."""
    blocks = re.findall(r":root \{(.*?)\}", (FILES / "page.css").read_text(encoding="utf-8"), re.DOTALL)
    colors = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{3,6});", blocks[palette]))
    pairs = [(text, back) for text in ("text", "muted", "accent") for back in ("back", "surface")]
    pairs += [
        ("accent-text", "accent"),
        ("accent", "soft"),
        ("mark-text", "mark"),
        ("muted", "sunk"),
        ("bad", "surface"),
    ]
    pairs += [("text", "bad-soft"), ("bad", "bad-soft")]
    for text, back in pairs:
        light, dark = sorted((luminance(colors[text]), luminance(colors[back])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, f"{text} on {back}"


def test_a_program_that_wants_json_gets_it(served: Served) -> None:
    answer = served.get("/", headers={"Accept": "application/json"})
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems#unknown-path")


def test_the_page_can_be_switched_off(model_a: tuple[Path, Embeddings], tmp_path: Path, starter: Starter) -> None:
    (tmp_path / "map.html").write_text(MAP.format(model_a[1].id), encoding="utf-8")
    arguments = ("--documents", str(tmp_path / "d.sqlite3"), "--map", str(tmp_path / "map.html"))
    running = starter(model_a[0], *arguments, environment={"JOSE_PAGE": "false"})
    for path in ("/", "/page/page.js", "/map"):
        assert running.get(path, headers=BROWSER).status_code == 404
    assert running.get("/info").json()["map"] is False
    assert "page for people" not in "".join(running.lines)


def test_a_map_needs_the_key_that_texts_need(locked: tuple[Served, Path], model_a: tuple[Path, Embeddings]) -> None:
    service, path = locked
    key = {"X-API-Key": READ_KEY}
    assert service.get("/map", headers=key).json()["detail"] == "there is no map x.html; make it with: jose map"
    assert service.get("/info").json()["map"] is False
    for other in ("", "no map", MAP.format("0" * 64)):
        path.write_text(other, encoding="utf-8")
        assert "is of another model" in service.get("/map", headers=key).json()["detail"]
        shown = service.get("/info").json()
        assert (shown["map"], shown["map_of_another_model"]) == (False, True)
    drawn = MAP.format(model_a[1].id)
    path.write_text(drawn, encoding="utf-8")
    shown = service.get("/info").json()
    assert (shown["map"], shown["map_of_another_model"]) == (True, False)
    assert service.get("/map").status_code == 401
    assert service.client.post("/map", data={"key": "wrong"}).status_code == 401
    assert service.client.post("/map", data={}).status_code == 401
    assert service.client.post("/map", data={"key": "x" * 9_000}).status_code == 413
    for answer in (
        service.get("/map", headers=key),
        service.client.post("/map", data={"key": READ_KEY}),
        service.client.post("/map", data={"key": WRITE_KEY}),
    ):
        assert answer.text == drawn
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'unsafe-inline'" in policy
        assert policy.endswith("sandbox allow-scripts allow-downloads"), "an origin of its own, which reads no key"


def test_what_the_page_asks_without_a_key_says_which_keys_are_needed(
    locked: tuple[Served, Path], served: Served
) -> None:
    assert locked[0].get("/", headers=BROWSER).status_code == 200
    assert locked[0].get("/info").json()["access"] == {"read_key": True, "write_key": True}
    assert served.get("/info").json()["access"] == {"read_key": False, "write_key": False}


def test_a_map_that_is_not_there_is_refused_at_the_start(model_a: tuple[Path, Embeddings]) -> None:
    done = run_cli(str(model_a[0]), "--map", "nowhere.html")
    assert done.returncode == 2
    assert done.stderr == "jose-serve: JOSE_MAP is 'nowhere.html', which is not a file; make it with jose map\n"


def test_the_card_is_that_of_jose_info(served: Served, model_a: tuple[Path, Embeddings]) -> None:
    card = served.get("/card").json()
    assert card["lines"][0] == card["name"] == "a"
    assert f"  id             {model_a[1].id}" in card["lines"]
    assert any(line.split()[:2] == ["most", "frequent"] and "king, queen" in line for line in card["lines"])

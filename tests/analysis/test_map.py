"""The map: its layout, its codes, what the file holds, hostile texts, pictures, the command."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from maps import HOSTILE, THEMES, planted_model

import jose_embed
from jose_embed.analysis.columns import ColumnBuilder
from jose_embed.analysis.layout import layout, neighbors_kept
from jose_embed.analysis.map import _STATIC
from jose_embed.analysis.pictures import COLOURS, loss_picture
from jose_embed.analysis.product_codes import ProductCodes
from jose_embed.cli.program import main
from jose_embed.errors import ConfigError, ModelError

ROOT = Path(__file__).parents[2]


def part(page: str, name: str) -> bytes:
    """The bytes of a part of a map."""
    found = re.search(rf'<script type="text/plain" id="part-{name}"( data-packed)?>([A-Za-z0-9+/=]*)</script>', page)
    assert found, name
    data = base64.b64decode(found[2])
    return gzip.decompress(data) if found[1] else data


@pytest.fixture(scope="module")
def drawn() -> jose_embed.DocumentMap:
    return jose_embed.map(planted_model(hostile=True), n_topics=3)


@pytest.fixture(scope="module")
def page(drawn: jose_embed.DocumentMap) -> str:
    return b"".join(drawn.pieces()).decode()


def test_the_head_names_the_model(drawn: jose_embed.DocumentMap, page: str) -> None:
    assert f'<meta name="jose-model" content="{drawn.model.id}">' in page[:4_000]


def test_themes_are_apart_and_labelled(drawn: jose_embed.DocumentMap) -> None:
    themes = drawn.rows % 3
    assert len(drawn.rows) == 594
    assert np.ptp(drawn.positions, axis=0).max() == pytest.approx(1)
    distances = np.linalg.norm(drawn.positions[:, None] - drawn.positions[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (themes[distances.argmin(1)] == themes).mean() > 0.97
    assert drawn.kept > 0.15
    for label in drawn.labels:
        theme = re.match("[a-z]+", label.text)[0]
        at = np.linalg.norm(drawn.positions - (label.x, label.y), axis=1).argmin()
        assert THEMES[themes[at]] == theme


def test_few_documents_have_a_map() -> None:
    for n in (1, 3, 50):
        made = jose_embed.map(planted_model(n, texts=False), n_topics=1)
        assert np.isfinite(made.positions).all()
        assert made.positions.shape == (n, 2)
        assert 0 <= made.recall <= 1
        b"".join(made.pieces())


def test_equal_documents_have_a_map() -> None:
    vectors = np.tile(np.float32([[1, 0, 0]]), (80, 1))
    assert np.isfinite(layout(vectors).positions).all()
    assert np.isfinite(layout(vectors[:10]).positions).all()


def test_documents_beyond_the_laid_out_are_placed_among_them(monkeypatch: pytest.MonkeyPatch) -> None:
    model = planted_model(900, texts=False)
    monkeypatch.setattr("jose_embed.analysis.layout.LAID_OUT", 300)
    vectors = np.ascontiguousarray(model.doc_vectors)
    made = layout(vectors)
    assert made.n_laid_out == 300
    distances = np.linalg.norm(made.positions[:, None] - made.positions[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert ((distances.argmin(1) % 3) == np.arange(900) % 3).mean() > 0.97
    assert made.kept == neighbors_kept(vectors, made.positions)


def test_same_bytes_with_any_number_of_threads(tmp_path: Path) -> None:
    """In processes of their own, because the number is read once."""
    planted_model(400, texts=False).save(tmp_path / "a.jose")
    code = (
        "import hashlib, sys, jose_embed, jose_embed.analysis.layout as l; l._SHARED = l._FEW_FOR_A_GRID = 0; "
        "made = jose_embed.map(jose_embed.load(sys.argv[1]), n_topics=3); "
        "print(hashlib.sha256(b''.join(made.pieces())).hexdigest())"
    )
    hashes = set()
    for threads in ("1", "3"):
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        command = ["env", *(f"{name}={threads}" for name in names), sys.executable, "-c", code]
        done = subprocess.run(
            [*command, str(tmp_path / "a.jose")],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[2],
        )
        hashes.add(done.stdout.split()[-1])
    assert len(hashes) == 1


def test_the_policy_allows_what_is_in_the_file_and_nothing_else(page: str) -> None:
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    for rule, text in (("style-src", style), ("script-src", script)):
        assert rules[rule] == f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
    without = re.sub(r"<script type=\"text/plain\"[^>]*>[A-Za-z0-9+/=]*</script>", "", page)
    asks = r"https?://|\bsrc=|@import|url\(|innerHTML|insertAdjacent|document\.write"
    assert not re.search(asks, without)
    assert page.index("Content-Security-Policy") < page.index("<style>")


def test_hostile_texts_are_in_no_markup(page: str) -> None:
    assert "attacked" not in page
    texts = json.loads(part(page, "texts-0"))
    assert {f"{text} hostile" for text in HOSTILE} <= {entry[1] for entry in texts}
    about = json.loads(part(page, "about"))
    assert about["fields"] == ["theme", "year", "title"]


def test_columns_are_those_that_colours_can_tell(page: str) -> None:
    columns = json.loads(part(page, "about"))["columns"]
    assert [column["name"] for column in columns] == ["topic", "theme", "year"]  # a title is different for each
    assert set(THEMES) < set(columns[1]["values"])
    assert (columns[2]["least"], columns[2]["most"]) == ("1990", "2019")


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([True, False, None], ["false", "true"]),
        (["a", "", "a"], ["a", ""]),
        ([1, "1", 1.5], ["1", "1", "1.5"]),
        ([["x"], {"y": 1}, None], ['["x"]', '{"y": 1}']),
    ],
)
def test_values_of_any_kind_are_categories(values: list[Any], shown: list[str]) -> None:
    builder = ColumnBuilder("field", len(values))
    for value in values:
        builder.add(value)
    assert sorted(builder.column().facts["values"]) == sorted(shown)


def test_dates_are_in_order() -> None:
    days = [f"2026-{month:02}-{day:02}" for month in range(1, 13) for day in (1, 15)]
    builder = ColumnBuilder("day", len(days))
    for day in days:
        builder.add(day)
    column = builder.column()
    assert (np.diff(column.codes.astype(int)) >= 0).all()
    assert (column.codes[0], column.codes[-1]) == (0, 254)
    assert column.facts["least"].endswith("2026-01-01")


def test_words_and_codes_give_the_model_s_answers(drawn: jose_embed.DocumentMap, page: str) -> None:
    """What the script computes, computed here from the parts: cosines of a word and of a document."""
    about = json.loads(part(page, "about"))
    n, dim = about["n"], len(about["mean"])
    codes = np.frombuffer(part(page, "codes"), np.uint8).reshape(n, 16)
    book = np.frombuffer(part(page, "codebook"), "<f4").reshape(16, 256, -1)
    decoded = np.concatenate([book[s, codes[:, s]] for s in range(16)], axis=1) + np.float32(about["mean"])
    words = np.frombuffer(part(page, "words"), np.int8).reshape(-1, dim).astype(float)
    words *= np.frombuffer(base64.b64decode(about["word_scales"]), "<f4")[:, None]
    model = drawn.model
    word = "music3"
    vector = words[about["words"].index(word)]
    order = np.random.default_rng(0).permutation(n)
    exact = model.doc_vectors[drawn.rows[order]] @ model.encoder.word_as_document(model.index_of(word))
    cosines = decoded @ vector / np.linalg.norm(decoded, axis=1)
    assert np.corrcoef(cosines, exact)[0, 1] > 0.95
    assert np.abs(np.linalg.norm(words, axis=1) - 1).max() < 0.02


def test_codes_of_few_vectors_are_exact() -> None:
    model = planted_model(90, texts=False)
    codes = ProductCodes(model.doc_vectors, model.word_directions.mean)
    assert codes.recall(model.doc_vectors) > 0.98
    assert codes.codes.shape == (90, 16)


def test_size() -> None:
    """At most 1 MB and 40 bytes a point besides the texts."""
    model = planted_model(2_000, texts=False)
    numbered = jose_embed.Embeddings.from_arrays(
        words=model.words,
        counts=model.counts,
        center_vectors=model.center_vectors,
        context_vectors=model.context_vectors,
        doc_ids=[str(i + 1) for i in range(2_000)],
        doc_vectors=model.doc_vectors,
        doc_token_counts=model.doc_token_counts,
    )
    page = b"".join(jose_embed.map(numbered, n_topics=3).pieces())
    assert len(page) < 1_000_000 + 40 * 1_980
    assert len(part(page.decode(), "rows")) == 4 * 1_980


def test_text_length(drawn: jose_embed.DocumentMap) -> None:
    short = b"".join(drawn.pieces(text_length=10)).decode()
    assert max(len(entry[1]) for entry in json.loads(part(short, "texts-0"))) == 14
    none = b"".join(drawn.pieces(text_length=0)).decode()
    assert {entry[1] for entry in json.loads(part(none, "texts-0"))} == {None}
    with pytest.raises(ConfigError, match="text_length is -1"):
        drawn.save("x.html", text_length=-1)
    assert not Path("x.html").exists()


def test_what_does_not_fit_is_refused(drawn: jose_embed.DocumentMap, tmp_path: Path) -> None:
    model = planted_model(60, texts=False)
    with pytest.raises(ConfigError, match=r"fields\['a'\] has 2 values for 60 documents"):
        jose_embed.map(model, fields={"a": [1, 2]})
    with pytest.raises(ConfigError, match="n_topics is 251; it must be a whole number from 1 to 250"):
        jose_embed.map(model, n_topics=251)
    with pytest.raises(ConfigError, match="ending of a picture"):
        drawn.picture(tmp_path / "map.gif")
    drawn.save(tmp_path / "map.html")
    with pytest.raises(ModelError, match="already exists"):
        drawn.save(tmp_path / "map.html")


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_pictures(drawn: jose_embed.DocumentMap, tmp_path: Path, ending: str) -> None:
    first = drawn.picture(tmp_path / f"a.{ending}", title="100 $ a_b^{", dpi=60).read_bytes()
    assert first == drawn.picture(tmp_path / f"b.{ending}", title="100 $ a_b^{", dpi=60).read_bytes()
    assert len(first) > 3_000


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    planted_model(80).save("small.jose")
    Path("labels.txt").write_text("".join(f"label {i % 4}\n" for i in range(80)), encoding="utf-8")
    assert main(["map", "small.jose", "--labels", "labels.txt", "--png", "small.png", "-k", "3"]) == 0
    out = capsys.readouterr().out
    assert "small.html: 80 documents, 3 topics" in out
    about = json.loads(part(Path("small.html").read_text("utf-8"), "about"))
    assert about["title"] == "small"
    assert about["columns"][1]["values"] == [f"label {i}" for i in range(4)]
    assert Path("small.png").read_bytes()[:4] == b"\x89PNG"
    for arguments, says in (
        (["map", "small.jose"], "small.html: already exists; choose another name, or replace it with --overwrite"),
        (["map", "small.jose", "-o", "b.html", "--png", "b.gif"], "b.gif: the ending of a picture is one of"),
        (["map", "small.jose", "-o", "b.html", "--text-length", "-3"], "--text-length is -3"),
        (["map", "small.jose", "-o", "b.html", "-k", "251"], "is 251; it must be a whole number from 1 to 250"),
        (["map", "small.jose", "-o", "small.jose/b.html"], "is in small.jose, which is read"),
        (["map", "small.jose", "-o", "b.html", "--labels", "small.html"], "for 80 documents"),
        (["map", "none.jose"], "none.jose"),
        (["info", "small.jose", "--plot", "loss.png"], "no losses of epochs"),
    ):
        assert main(arguments) == 2, arguments
        said = capsys.readouterr().err.splitlines()[-1]
        assert says in said, said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.txt", "small.html", "small.jose", "small.png"]


def test_a_model_without_documents(tmp_path: Path) -> None:
    model = jose_embed.train(["a b c d"] * 30, doc_vectors="none", min_count=1, dim=8, epochs=1, workers=1)
    with pytest.raises(ConfigError, match="document"):
        jose_embed.map(model)


def test_the_loss_curve(tmp_path: Path) -> None:
    manifest = {"training": {"epochs": [{"epoch": i, "loss": 1 / i} for i in range(1, 6)]}}
    assert loss_picture(manifest, tmp_path / "loss.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ModelError, match="already exists"):
        loss_picture(manifest, tmp_path / "loss.png")
    for broken in ({}, {"training": []}, {"training": {"epochs": [{"epoch": 1, "loss": float("nan")}, 3]}}):
        with pytest.raises(ConfigError, match="no losses"):
            loss_picture(broken, tmp_path / "other.png")


# ---- colours for colour-blind eyes --------------------------------------------------------------------------------

# Viénot, Brettel and Mollon 1999 (protan, deutan) and Machado et al. 2009 (tritan), on linear RGB.
EYES = {
    "all": np.eye(3),
    "protan": np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]),
    "deutan": np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]),
    "tritan": np.array([[1.25553, -0.07675, -0.17878], [-0.07841, 0.93081, 0.1476], [0.00473, 0.69137, 0.3039]]),
}


def lab(colours: list[str], eye: str) -> np.ndarray:
    """CIELAB of colours as an eye sees them."""
    rgb = np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ EYES[eye].T
    xyz = linear.clip(0, 1) @ np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]).T
    f = np.cbrt(xyz / [0.9505, 1, 1.089])
    f = np.where(xyz / [0.9505, 1, 1.089] > 0.008856, f, 7.787 * xyz / [0.9505, 1, 1.089] + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


@pytest.mark.parametrize("eye", EYES)
@pytest.mark.parametrize("name", ["LIGHT", "DARK"])
def test_colours_differ_for_every_eye(name: str, eye: str) -> None:
    script = (_STATIC / "map.js").read_text("utf-8")
    colours = re.findall("#[0-9a-f]{6}", re.search(rf"const {name} = \[(.*?)\]", script)[1])
    assert len(colours) == 10
    if name == "LIGHT":
        assert tuple(colours) == COLOURS
    seen = lab([*colours, "#fbfaf8" if name == "LIGHT" else "#14161a"], eye)
    distances = np.linalg.norm(seen[:, None] - seen[None], axis=2)[np.triu_indices(11, 1)]
    assert distances.min() > 11, (np.array(np.triu_indices(11, 1)).T[distances.argmin()], distances.min())

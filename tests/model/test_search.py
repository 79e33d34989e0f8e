"""Search by meaning, exact words and both: any text is a question, filters leave k answers, passages show why."""

from __future__ import annotations

import json
import pickle
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jose_embed
from jose_embed.cli.program import main
from jose_embed.errors import ConfigError, ModelError
from jose_embed.model.embeddings import Embeddings
from jose_embed.model.filters import Filter
from jose_embed.model.inflections import LEAST_COMMON, LEAST_COSINE, MOST_OTHER, Inflections
from jose_embed.model.nearest import products
from jose_embed.text.texts import TEXTS_NAME
from jose_embed.text.tokenizers import get_tokenizer
from jose_embed.text.word_index import K1, B, SortedWords, WordIndex
from service.search.texts import ServedEmbeddings

TOPICS = ("wing flutter speed shock flow", "library book reader index catalogue")
QUESTIONS = [
    "",
    " \t\n",
    '"',
    "'",
    "a AND (b OR NOT c",
    "foo-bar:baz* ^2 NEAR/3",
    "flutter\0\ud800",
    "don't",
    "%_\\",
    "*",
]


def _common(a: str, b: str) -> int:
    return next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _lines() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    lines = []
    for number in range(120):
        words = rng.choice(TOPICS[number % 2].split(), 12).tolist()
        text = " ".join([*words, f"code{number}", "zeppelin" if number == 7 else "plain"])
        lines.append(
            {"id": f"d{number}", "text": text, "date": f"20{20 + number % 5}-01-02", "stars": number % 3 or None}
        )
    return lines


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Embeddings:
    place = tmp_path_factory.mktemp("search")
    path = place / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, _lines())))
    options: dict[str, Any] = {"id_field": "id", "keep_text": True, "keep_fields": ["date", "stars"]}
    trained = jose_embed.train(str(path), dim=8, epochs=5, min_count=2, workers=1, **options)
    trained.save(place / "a.jose")
    return jose_embed.load(place / "a.jose")


def test_exact_words_are_found_that_the_vocabulary_lacks(model: Embeddings) -> None:
    assert "zeppelin" not in model
    for mode in ("words", "hybrid", None):
        assert model.search("the Zeppelin!", k=1, mode=mode)[0].doc_id == "d7"  # type: ignore[arg-type]
    assert model.search("zeppelin", mode="vector") == []
    assert [one.doc_id for one in model.search("code41 code12", mode="words")] == ["d12", "d41"]


def test_meaning_is_found_without_the_word(model: Embeddings) -> None:
    found = model.search("catalogue", k=60, mode="vector")
    assert {int(one.doc_id[1:]) % 2 for one in found} == {1}
    assert found[0].score <= 1
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


@pytest.mark.parametrize("mode", ["hybrid", "vector", "words"])
@pytest.mark.parametrize("question", QUESTIONS)
def test_any_text_is_a_question(model: Embeddings, question: str, mode: Any) -> None:
    found = model.search(question, k=3, mode=mode, passage_words=5)
    assert len(found) <= 3
    assert all(np.isfinite(one.score) for one in found)


@given(st.text(max_size=60))
def test_no_text_is_an_error(model: Embeddings, question: str) -> None:
    for one in model.search(question, k=2, passage_words=3):
        assert one.text is not None
        assert one.passage is not None
        assert one.passage.text == one.text[one.passage.start : one.passage.end]


def test_search_without_the_matrix_is_the_cosine_of_unshrunk_sums(model: Embeddings) -> None:
    """The numbers beside the vectors give what a second table of vectors would."""
    search, encoder = model.document_search, model.encoder
    assert len(encoder.matrix)
    inverse = np.linalg.inv(encoder.matrix)
    documents = model.doc_vectors.astype(np.float64) @ inverse
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    vector = search.question("wing flow").vector
    assert vector is not None
    query = vector.astype(np.float64) @ inverse
    expected = documents @ (query / np.linalg.norm(query))
    assert search.cosines(vector) == pytest.approx(expected, abs=1e-4)
    found = model.search("wing flow", k=5, mode="vector")
    assert [one.index for one in found] == np.lexsort((np.arange(120), -expected))[:5].tolist()


def test_words_are_scored_by_bm25() -> None:
    texts = ["a red fox", "a dog", "red red", ""]
    index = WordIndex.of_texts(texts, get_tokenizer("words"))
    lengths, tf = np.array([3, 2, 2, 0]), np.array([1, 0, 2, 0])
    idf = np.log(1 + (4 - 2 + 0.5) / (2 + 0.5))
    expected = 3 * idf * tf * (K1 + 1) / (tf + K1 * (1 - B + B * lengths / lengths.mean()))
    assert index.scores([(("red",), 3)]) == pytest.approx(expected, rel=1e-5)
    together = index.scores([(("dog", "fox"), 1)])
    assert together[0] > 0
    assert together[1] > together[0]
    assert list(index.words) == ["a", "dog", "fox", "red"]


def test_parts_of_an_index_are_one_index(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"w{number % 7} w{number % 3} x" for number in range(50)]
    whole = WordIndex.of_texts(texts, get_tokenizer("words"))
    monkeypatch.setattr("jose_embed.text.word_index._PART_TOKENS", 20)
    monkeypatch.setattr("jose_embed.text.word_index._BATCH_CHARACTERS", 30)
    parts = WordIndex.of_texts(texts, get_tokenizer("words"))
    for words in (("w0",), ("w2", "w6"), ("x",), ("y",), ("w6", "x", "y")):
        assert parts.scores([(words, 1)]).tolist() == whole.scores([(words, 1)]).tolist()


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), max_size=6), min_size=1, max_size=40))
def test_scores_are_those_of_the_formula(documents: list[list[str]]) -> None:
    """Frequent and rare words, alone and together: the compiled sums are those of plain loops."""
    index = WordIndex.of_texts([" ".join(words) for words in documents], get_tokenizer("words"))
    terms = [(("a",), 1), (("b", "c"), 2), (("a", "d", "x"), 1), (("x",), 1)]
    lengths = np.array([len(words) for words in documents])
    expected = np.zeros(len(documents))
    for spellings, weight in terms:
        tf = np.array([sum(word in spellings for word in words) for words in documents])
        n = np.count_nonzero(tf)
        idf = np.log1p((len(documents) - n + 0.5) / (n + 0.5))
        expected += weight * idf * tf * (K1 + 1) / (tf + K1 * (1 - B + B * lengths / max(1, lengths.mean())))
        assert index.rarity(spellings) == pytest.approx(idf)
    assert index.scores(terms) == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 10])
def test_the_product_of_a_row_does_not_depend_on_its_place(n: int) -> None:
    rng = np.random.default_rng(n)
    query = rng.standard_normal(50).astype(np.float32)
    matrix = np.tile(rng.standard_normal(50).astype(np.float32), (n, 1))
    factors = np.full(n, 0.5, np.float32)
    expected = 0.5 * float(matrix[0].astype(np.float64) @ query)
    for rows in (None, np.arange(n), np.array([n - 1])):
        found = products(matrix, query, rows, factors=factors)
        assert len(found) == (n if rows is None else len(rows))
        assert found == pytest.approx(expected, abs=1e-4)
        assert len({*found.tolist(), *products(matrix, query, factors=factors).tolist()}) == 1
    mixed = rng.standard_normal((n, 50)).astype(np.float32)
    rows = np.flatnonzero(rng.random(n) < 0.6)
    assert products(mixed, query, rows).tolist() == products(mixed, query)[rows].tolist()
    assert products(mixed, query) == pytest.approx(mixed @ query, abs=1e-4)


def test_words_that_were_not_asked_for_lately_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Postings are kept up to a bound; answers are the same whether they are kept or not, and after several threads."""
    texts = [f"w{number % 7} w{number % 3} x" for number in range(50)]
    questions = [[((f"w{a}", f"w{b}"), 1.0), (("x",), 2.0)] for a in range(7) for b in range(7)]
    expected = [WordIndex.of_texts(texts, get_tokenizer("words")).scores(one).tolist() for one in questions]
    monkeypatch.setattr("jose_embed.text.word_index._KEPT_POSTINGS", 60)
    monkeypatch.setattr("jose_embed.text.word_index._KEPT_OF_A_DOCUMENT", 0)
    index = WordIndex.of_texts(texts, get_tokenizer("words"))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(index.scores, questions * 5))
    assert [one.tolist() for one in found] == expected * 5
    assert 0 < sum(len(rows) for rows, _ in index._kept.values()) == index._n_kept <= 60


@given(st.sets(st.text("ab\u00e9\U0001f600", min_size=1, max_size=12)), st.text("ab\u00e9", min_size=2, max_size=12))
def test_words_that_begin_alike(words: set[str], word: str) -> None:
    ordered = SortedWords.of(words)
    assert list(ordered) == sorted(words)
    assert [ordered.position(one) for one in sorted(words)] == list(range(len(words)))
    assert ordered.position("zz") is None
    first, common = ordered.alike(word, 2)
    expected = {one: _common(word, one) for one in sorted(words) if one[:2] == word[:2]}
    assert dict(zip([ordered[first + i] for i in range(len(common))], common.tolist(), strict=True)) == expected


def test_a_word_of_many_letters_is_no_inflection(model: Embeddings) -> None:
    """Lengths of words are kept in two bytes."""
    assert model.search("a" * 70_000, mode="vector") == []


def test_inflections_are_those_of_the_rule(model: Embeddings) -> None:
    """The vectors and a rule of letters decide, whatever finds the candidates."""
    search = model.document_search
    texts = "wings wing winged wingspan wind winds windmill code1 codes code coded library libraries librarian"
    words = SortedWords.of([*texts.split(), *model.words])
    inflections = Inflections(model.encoder.lookup, model.center_vectors, words)
    for word in texts.split():
        expected = {word}
        for other in words:
            n_common = _common(word, other)
            n_other = max(len(word), len(other)) - n_common
            if n_common < LEAST_COMMON or not (word.isalpha() and other.isalpha()) or n_other > MOST_OTHER:
                continue
            known = word in model and other in model
            if model.similarity(word, other) >= LEAST_COSINE if known else n_common > LEAST_COMMON and n_other <= 2:
                expected.add(other)
        assert inflections.of(word) == tuple(sorted(expected))
    assert search.inflections.of("wing")[0] == "wing"


def test_the_index_of_words_is_kept_with_the_texts(model: Embeddings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loaded model reads its index; one without an index, as older versions wrote it, makes the same one."""
    first = model.search("the Zeppelin flow code5", k=20)
    texts = model.texts
    assert texts is not None
    made = WordIndex.of_texts(texts.every_text(), model.encoder.lookup.tokenizer)
    kept = model.document_search.words
    terms = [((word,), 1) for word in made.words]
    assert list(kept.words) == list(made.words)
    assert kept.scores(terms).tolist() == made.scores(terms).tolist()
    with monkeypatch.context() as patch:
        patch.setattr(WordIndex, "of_texts", None)
        assert jose_embed.load(model.path).search("the Zeppelin flow code5", k=20) == first
        served = ServedEmbeddings.load(model.path)
        assert [one.doc_id for one in served.search("the Zeppelin flow code5", k=20)] == [one.doc_id for one in first]
    other = get_tokenizer("whitespace")
    assert "zeppelin" in texts.word_index(other).words
    monkeypatch.setattr(texts, "_split_by", None)
    assert list(texts.word_index(other).words) == list(made.words)


def test_texts_given_as_tokens_are_split_as_questions_are() -> None:
    documents = [["Red", "fox"], ["red", "New/York"]] * 3
    model = jose_embed.train(documents=documents, keep_text=True, dim=4, epochs=1, min_count=1, workers=1)
    assert [one.doc_id for one in model.search("New/York", k=9, mode="words")] == ["2", "4", "6"]


def test_filters_leave_k_answers(model: Embeddings) -> None:
    lines = _lines()
    for mode in ("hybrid", "vector"):
        found = model.search("book", k=4, mode=mode, filter="date >= 2024-01-01 and stars is missing")  # type: ignore[arg-type]
        assert len(found) == 4
        assert all(one.fields["date"] >= "2024" and one.fields["stars"] is None for one in found)
    everything = [one.doc_id for one in model.search("book", k=120, mode="vector")]
    chosen = {line["id"] for line in lines if line["stars"] in (1, 2)}
    among = model.search("book", k=120, mode="vector", filter="stars in [1, 2]")
    assert [one.doc_id for one in among] == [id for id in everything if id in chosen]
    neighbors = model.similar_documents("d1", k=120, filter=Filter.parse('date = "2021-01-02"'))
    assert {n.doc_id for n in neighbors} == {line["id"] for line in lines if line["date"][:4] == "2021"} - {"d1"}
    assert model.search("book", filter="stars = 9") == []


@pytest.mark.parametrize("question", ["wing code41", "book code7 code12", "zeppelin speed"])
def test_a_filtered_hybrid_score_is_that_of_the_formula(model: Embeddings, question: str) -> None:
    """Words by the largest of all documents, cosines by the mean of all and the largest that fits."""
    search = model.document_search
    asked = search.question(question)
    assert asked.vector is not None
    words, cosines = search.words.scores(asked.terms).astype(np.float64), search.cosines(asked.vector)
    for filter in ("stars = 1", "date >= 2021-01-01", "date < 2030-01-01"):
        fit = np.flatnonzero(Filter.parse(filter).fitting(search.fields))
        spread = max(float(cosines[fit].max() - cosines.mean()), 0.1)
        expected = 0.75 * words[fit] / words.max() + 0.25 * (cosines[fit] - cosines.mean()) / spread
        best = np.argsort(-expected, kind="stable")[:5]
        found = model.search(question, k=5, filter=filter)
        assert [one.score for one in found] == pytest.approx(expected[best].tolist(), abs=1e-5)
        assert {one.index for one in found} <= {*fit.tolist()}
    unfiltered = [one.score for one in model.search(question, k=5)]
    assert [one.score for one in model.search(question, k=5, filter="date < 2030-01-01")] == unfiltered


def test_facets(model: Embeddings) -> None:
    assert dict(model.facets("stars")) == {None: 40, 1: 40, 2: 40}
    assert model.facets("date", filter="date < 2021-01-01") == [("2020-01-02", 24)]
    with pytest.raises(ConfigError, match="there is no field 'starz'; kept are date, stars"):
        model.facets("starz")


def test_passages_show_the_words(tmp_path: Path) -> None:
    filler = " ".join(["plain words of no interest here"] * 30)
    texts = {"long": f"{filler} The zeppelin, silver, flew over Berlin. {filler}", "other": filler}
    model = jose_embed.train(texts, keep_text=True, dim=4, epochs=2, min_count=2, workers=1)
    (found,) = model.search("Zeppelin over Berlin", k=1, passage_words=8)
    assert found.passage is not None
    shown = found.passage.text
    assert "zeppelin" in shown
    assert len(shown.split()) <= 9
    assert "zeppelin" in [shown[a:b] for a, b in found.passage.highlights]


def test_words_of_scripts_without_spaces(tmp_path: Path) -> None:
    pytest.importorskip("jieba")
    texts = ["今天天气很好我们去公园", "图书馆里有很多书", "飞机的机翼在高速下颤振"] * 4
    model = jose_embed.train(
        documents=texts, keep_text=True, tokenizer="jieba", dim=4, epochs=2, min_count=2, workers=1
    )
    assert {int(one.doc_id) % 3 for one in model.search("图书馆", k=9, mode="words")} == {2}


def test_wrong_arguments(model: Embeddings) -> None:
    with pytest.raises(ConfigError, match="mode is 'both'; it must be one of hybrid, vector, words"):
        model.search("x", mode="both")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="there is no field 'x'; kept are date, stars"):
        model.search("x", filter="x = 1")
    with pytest.raises(ConfigError, match="k is 0"):
        model.search("x", k=0)
    with pytest.raises(TypeError, match="has no argument topn"):
        model.search("x", topn=3)  # type: ignore[call-arg]
    bare = model.without_texts()
    assert bare.search("book", k=1)[0].text is None
    for options in ({"mode": "words"}, {"passage_words": 3}):
        with pytest.raises(ConfigError, match="keep_text=True"):
            bare.search("book", **options)


def test_models_that_have_searched_are_pickled(model: Embeddings) -> None:
    first = model.search("book", k=3)
    assert pickle.loads(pickle.dumps(model)).search("book", k=3) == first


def test_the_command(model: Embeddings, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(model.path)
    assert main(["search", path, "Zeppelin", "-k", "1"]) == 0
    titles, row = capsys.readouterr().out.splitlines()
    assert titles.split() == ["score", "document", "date", "stars", "passage"]
    assert "*zeppelin*" in row
    assert main(["search", path, "book", "--json", "--filter", "stars = 1", "--facets", "stars", "-k", "2"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [one["fields"]["stars"] for one in shown["results"]] == [1, 1]
    assert shown["facets"] == {"stars": [{"value": 1, "count": 40}]}
    assert main(["search", path, "--facets", "stars", "-k", "1"]) == 0  # -k is the number of answers
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["count", "stars"], ["40", "(missing)"], ["40", "1"], ["40", "2"],
    ]  # fmt: skip
    assert main(["documents", path, "d1", "--filter", "stars = 1", "--json"]) == 0
    assert {one["fields"]["stars"] for one in json.loads(capsys.readouterr().out)} == {1}
    assert main(["search", path, '"', "-k", "1"]) == 0
    assert capsys.readouterr().err == "Nothing was found: no word of the question is known.\n"
    assert main(["search", path, '"', "--filter", "stars = 9"]) == 0
    assert "no document fits the filter" in capsys.readouterr().err
    assert main(["search", path]) == 2
    assert "the question is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("DELETE FROM documents WHERE row = 3", "documents are missing"),
        ("DELETE FROM lengths", "has 0 documents where there are 120"),
        ("DELETE FROM words", "its words are missing"),
        ("UPDATE words SET numbers = x'00000000'", "it numbers 1 of"),
        ("UPDATE words SET common = x'00'", "words, not 1"),
        ("UPDATE words SET words = 5", "its words are missing"),
        ("UPDATE postings SET counts = x'0100'", "damaged at the word 'book'"),
        ("UPDATE postings SET documents = x'FFFFFF7F'", "damaged at the word 'book'"),
        ("UPDATE postings SET documents = 'x'", "not a list of numbers"),
    ],
)
def test_damage_is_named(model: Embeddings, tmp_path: Path, damage: str, message: str) -> None:
    model.save(tmp_path / "b.jose")
    place = tmp_path / "b.jose" / TEXTS_NAME
    connection = sqlite3.connect(place)
    size = place.stat().st_size
    connection.execute(damage)
    connection.commit()
    connection.close()
    assert place.stat().st_size == size
    damaged = jose_embed.load(tmp_path / "b.jose")
    assert damaged.texts is not None
    with pytest.raises(ModelError, match=message):
        damaged.search("book", mode="words") if "documents W" not in damage else list(damaged.texts.every_text())

"""The exchange with gensim, and the page for those who come from there."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
from gensim.models import Doc2Vec, FastText, KeyedVectors, Word2Vec
from gensim.models.doc2vec import TaggedDocument

import jose_embed
from jose_embed import ConfigError, Embeddings, ModelError
from jose_embed.adapters.gensim import from_gensim, to_gensim

TEXTS, TOPICS = planted.corpus(120)
TOKENS = [text.split() for text in TEXTS]
PAGE = Path(__file__).parents[2] / "jose_embed" / "adapters" / "README.md"


@pytest.fixture(scope="module")
def model() -> Embeddings:
    ids = [f"doc{row}" for row in range(len(TEXTS))]
    return jose_embed.train(documents=TEXTS, ids=ids, dim=8, epochs=3, workers=1, progress=False)


@pytest.mark.parametrize("table", ["center", "context", "documents"])
def test_keyed_vectors_of_a_model(model: Embeddings, table: str) -> None:
    keyed = to_gensim(model, table)
    names, vectors, counts = {
        "center": (model.words, model.center_vectors, model.counts),
        "context": (model.words, model.context_vectors, model.counts),
        "documents": (model.doc_ids, model.doc_vectors, model.doc_token_counts),
    }[table]
    assert keyed.index_to_key == list(names)
    for name, vector, count in zip(names, vectors, counts, strict=True):
        assert keyed[name].tobytes() == vector.tobytes()
        assert keyed.get_vecattr(name, "count") == count


def test_gensim_finds_the_same_neighbors(model: Embeddings) -> None:
    word = model.words[20]
    theirs = to_gensim(model).most_similar(word, topn=5)
    ours = model.most_similar(word, k=5)
    assert [name for name, _ in theirs] == [neighbor.word for neighbor in ours]
    np.testing.assert_allclose([score for _, score in theirs], [neighbor.score for neighbor in ours], atol=1e-6)
    near = to_gensim(model, "documents").most_similar("doc7", topn=5)
    assert [name for name, _ in near] == [found.doc_id for found in model.similar_documents("doc7", k=5)]


def test_documents_without_a_known_word_are_left_out() -> None:
    model = jose_embed.train(documents=["zzz", *TEXTS, ""], dim=8, epochs=1, workers=1, progress=False)
    keyed = to_gensim(model, "documents")
    assert keyed.index_to_key == list(model.doc_ids)[1:-1]
    assert keyed["2"].tobytes() == model.doc_vectors[1].tobytes()
    assert keyed.get_vecattr("2", "count") == model.doc_token_counts[1] > 0


def test_keyed_vectors_saved_by_gensim(model: Embeddings, tmp_path: Path) -> None:
    to_gensim(model).save(str(tmp_path / "vectors.kv"))
    again = from_gensim(KeyedVectors.load(str(tmp_path / "vectors.kv"), mmap="r"), tokenizer="words")
    assert list(again.words) == list(model.words)
    assert again.counts.tolist() == model.counts.tolist()
    np.testing.assert_allclose(again.center_vectors, model.center_vectors, atol=1e-7)
    assert again.save(tmp_path / "again.jose").is_dir()


def test_keyed_vectors_are_copies(model: Embeddings) -> None:
    keyed = to_gensim(model)
    before = model.center_vectors.tobytes()
    keyed.vectors[:] = 0
    assert model.center_vectors.tobytes() == before


@pytest.mark.parametrize("kind", [Word2Vec, FastText])
def test_word_models(kind: Any, tmp_path: Path) -> None:
    theirs = kind(TOKENS, vector_size=8, min_count=1, epochs=2, workers=1, seed=1)
    ours = from_gensim(theirs)
    assert ours.counts.tolist() == sorted(ours.counts.tolist(), reverse=True)
    word = theirs.wv.index_to_key[3]
    assert ours.counts[ours.index_of(word)] == theirs.wv.get_vecattr(word, "count")
    np.testing.assert_allclose(ours[word], theirs.wv.get_vector(word, norm=True), atol=1e-6)
    row = theirs.syn1neg[theirs.wv.key_to_index[word]]
    np.testing.assert_allclose(ours.context_vectors[ours.index_of(word)], row / np.linalg.norm(row), atol=1e-6)
    ours.save(tmp_path / "model.jose")
    assert jose_embed.load(tmp_path / "model.jose", verify=True).n_words == len(theirs.wv)


def test_documents_by_tag() -> None:
    tagged = [TaggedDocument(tokens, [f"doc{row}"]) for row, tokens in enumerate(TOKENS)]
    theirs = Doc2Vec(tagged, vector_size=8, min_count=1, dm=0, dbow_words=1, epochs=3, workers=1, seed=1)
    ours = from_gensim(theirs)
    assert list(ours.doc_ids) == theirs.dv.index_to_key
    np.testing.assert_allclose(ours.doc_vectors[5], theirs.dv.get_vector("doc5", norm=True), atol=1e-6)
    near = [name for name, _ in theirs.dv.most_similar("doc5", topn=5)]
    assert [found.doc_id for found in ours.similar_documents("doc5", k=5)] == near
    numbered = Doc2Vec([TaggedDocument(tokens, [row]) for row, tokens in enumerate(TOKENS)], vector_size=8, epochs=1)
    assert from_gensim(numbered).doc_ids[119] == "119"


def test_counts_are_sorted_and_invented_from_the_order_if_missing() -> None:
    keyed = KeyedVectors(2)
    keyed.add_vectors(["a", "b"], np.float32([[3, 0], [0, 2]]))
    assert (list(from_gensim(keyed).words), from_gensim(keyed).counts.tolist()) == (["a", "b"], [2, 1])
    keyed.set_vecattr("b", "count", 9)
    assert (list(from_gensim(keyed).words), from_gensim(keyed).counts.tolist()) == (["b", "a"], [9, 1])
    assert from_gensim(keyed)["a"].tolist() == [1, 0]


def with_ghost(tmp_path: Path) -> Any:
    """What gensim reads from a file with a word twice: a row without a key."""
    (tmp_path / "twice.vec").write_text("3 2\na 1 0\na 0 1\nb 1 1\n")
    return KeyedVectors.load_word2vec_format(str(tmp_path / "twice.vec"))


def test_unusable_vectors(tmp_path: Path, model: Embeddings) -> None:
    with pytest.raises(ModelError, match="the key None is not a word"):
        from_gensim(with_ghost(tmp_path))
    keyed = KeyedVectors(2)
    with pytest.raises(ModelError, match="the key None is not a word"):
        from_gensim(keyed)
    keyed.add_vectors(["a", "b"], np.float32([[1, 0], [0, 0]]))
    with pytest.raises(ModelError, match="the vector of 'b' is zero or not finite"):
        from_gensim(keyed)
    with pytest.raises(ConfigError, match="dict is not of gensim"):
        from_gensim({})
    with pytest.raises(ConfigError, match="table is 'words'; it must be one of center"):
        to_gensim(model, "words")
    doubled = Embeddings.from_arrays(
        words=["a"], counts=[1], center_vectors=np.float32([[1, 0]]), context_vectors=np.float32([[1, 0]]),
        doc_ids=["x", "x"], doc_vectors=np.float32([[1, 0], [1, 0]]),
    )  # fmt: skip
    with pytest.raises(ModelError, match="the id 'x' occurs twice"):
        to_gensim(doubled, "documents")


# ---- the page -------------------------------------------------------------------------------------------------------


def names_on_the_page() -> list[tuple[str, str]]:
    """The rows of the tables: gensim's names, ours."""
    section = PAGE.read_text(encoding="utf-8").split("## Coming from gensim")[1].split("\n## ")[0]
    return re.findall(r"^\| (.+?) \| (.+?) \|$", section, re.MULTILINE)


def test_the_page_has_every_name_of_gensim() -> None:
    named = {name for theirs, _ in names_on_the_page() for name in re.findall(r"\w+", theirs)}
    parameters = {name for kind in (Word2Vec, Doc2Vec) for name in inspect.signature(kind.__init__).parameters}
    methods = {
        name
        for kind in (Word2Vec, Doc2Vec, KeyedVectors)
        for name, value in vars(kind).items()
        if not name.startswith("_") and (callable(value) or isinstance(value, (property, classmethod)))
    }
    gone = {"index2word", "index2entity", "vectors_norm", "vocab", "docvecs", "init_sims"}  # they raise or warn
    assert (parameters | methods) - {"self", "kwargs"} - gone - named == set()


def test_our_names_on_the_page_exist() -> None:
    code = {span for _, ours in names_on_the_page() for span in re.findall(r"`([^`]+)`", ours)}
    config = set(jose_embed.TrainConfig().to_dict())
    train = set(inspect.signature(jose_embed.train).parameters)
    queries = set(inspect.signature(Embeddings.most_similar).parameters)
    for span in code:
        name = re.match(r"[\w.]+", span)[0]
        if name.startswith("model."):
            assert hasattr(Embeddings, name.split(".")[1]) or name.split(".")[1] in Embeddings.__doc__, span
        elif name.startswith("jose_embed."):
            assert hasattr(jose_embed, name.split(".")[1]) or name.startswith("jose_embed.adapters"), span
        elif not name.startswith(("jose", "from_gensim", "to_gensim")):
            assert name in config | train | queries, span

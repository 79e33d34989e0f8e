"""Scores of vectors whose answer is known."""

from __future__ import annotations

import gzip
import math
import sys
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from jose_embed.analysis.gold_sets import (
    AnalogyQuestion,
    ScoredPair,
    SearchQuery,
    read_analogies,
    read_labels,
    read_scored_pairs,
    read_search_queries,
)
from jose_embed.analysis.measures import (
    Spread,
    analogy,
    classify,
    cluster,
    clustering_measures,
    search,
    spherical_kmeans,
    sts,
    unit_rows,
    word_similarity,
)
from jose_embed.errors import ConfigError, CorpusError, MissingExtraError

sklearn = pytest.importorskip("sklearn")


def blobs(
    n_classes: int = 4, per_class: int = 50, dim: int = 16, spread: float = 0.05
) -> tuple[np.ndarray, np.ndarray]:
    """Rows around orthogonal directions, of many lengths, shuffled."""
    rng = np.random.default_rng(5)
    labels = rng.permutation(np.repeat(np.arange(n_classes), per_class))
    rows = np.eye(dim)[labels] + spread * rng.standard_normal((len(labels), dim))
    return (rows * rng.uniform(0.1, 10, (len(labels), 1))).astype(np.float32), labels


# ---- word similarity and sentence similarity ----------------------------------------------------------------------


def on_circle(degrees: Iterable[float]) -> np.ndarray:
    angles = np.deg2rad(np.array(list(degrees), float))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_word_similarity_is_spearman_of_cosines() -> None:
    words = ["a", "b", "c", "d", "e"]
    vectors = on_circle([0, 10, 30, 60, 100]) * np.array([[1], [7], [0.1], [3], [1]])
    # Cosines with a fall from b to e; the scores' ranks are 4, 2, 3, 1, so the squared rank differences sum to 2.
    pairs = [ScoredPair("a", other, score) for other, score in zip("bcde", [9.0, 3.0, 5.0, 1.0], strict=True)]
    score = word_similarity(words, vectors, pairs)
    assert score.spearman == pytest.approx(1 - 6 * 2 / (4 * (16 - 1)))
    assert (score.n_scored, score.n_pairs, score.coverage) == (4, 4, 1.0)


def test_ties_in_the_scores_share_their_rank() -> None:
    vectors = on_circle([0, 10, 30, 60])
    pairs = [ScoredPair("a", "b", 5.0), ScoredPair("a", "c", 5.0), ScoredPair("a", "d", 1.0)]
    # Ranks of the scores 2.5, 2.5, 1 against 3, 2, 1: Pearson's correlation of the two.
    expected = np.corrcoef([2.5, 2.5, 1], [3, 2, 1])[0, 1]
    assert word_similarity(list("abcd"), vectors, pairs).spearman == pytest.approx(expected)


def test_words_are_found_lower_cased_and_missing_ones_are_counted() -> None:
    vectors = on_circle([0, 10, 30])
    pairs = [
        ScoredPair("Berlin", "paris", 8.0),
        ScoredPair("paris", "rome", 2.0),
        ScoredPair("paris", "zebra", 5.0),
    ]
    score = word_similarity(["berlin", "paris", "rome"], vectors, pairs)
    assert (score.n_scored, score.n_pairs) == (2, 3)
    assert score.spearman == pytest.approx(1.0)
    # As written comes first: a vocabulary may hold both.
    cased = word_similarity(["berlin", "paris", "rome", "Berlin"], on_circle([0, 10, 30, 90]), pairs)
    assert cased.spearman == pytest.approx(-1.0)


def test_a_correlation_of_fewer_than_two_pairs_is_not_a_number() -> None:
    score = word_similarity(["a", "b"], np.eye(2), [ScoredPair("a", "b", 1.0)])
    assert math.isnan(score.spearman)
    assert score.n_scored == 1
    assert word_similarity(["a"], np.ones((1, 2)), [ScoredPair("x", "y", 1.0)]).coverage == 0.0


def test_sentences_without_a_vector_are_left_out() -> None:
    first = on_circle([0, 0, 0, 0, 0])
    second = on_circle([10, 20, 30, 40, 50])
    second[2] = 0
    second[3] = np.nan
    score = sts(first, second, [5.0, 4.0, 0.0, 9.0, 1.0])
    assert (score.n_scored, score.n_pairs) == (3, 5)
    assert score.spearman == pytest.approx(1.0)


def test_rows_must_fit_their_names() -> None:
    with pytest.raises(ConfigError, match=r"shape \(3, 2\) for 2 words"):
        word_similarity(["a", "b"], np.zeros((3, 2)), [])
    with pytest.raises(ConfigError, match=r"for 1 pairs"):
        sts(np.zeros((2, 2)), np.zeros((2, 2)), [1.0])


# ---- search -------------------------------------------------------------------------------------------------------


def test_search_scores_the_order_of_the_documents() -> None:
    documents = on_circle([0, 10, 20, 30, 90])
    first, last = search(on_circle([0]), documents, [[0, 2]]), search(on_circle([0]), documents, [[4]])
    assert (first.average_precision, last.average_precision) == (pytest.approx((1 + 2 / 3) / 2), pytest.approx(0.2))
    # Gains are 1 / log2(rank + 1).
    assert first.ndcg == pytest.approx((1 + 1 / 2) / (1 + 1 / np.log2(3)))
    assert last.ndcg == pytest.approx(1 / np.log2(6))
    both = search(3 * on_circle([0, 0]), 0.1 * documents, [[0, 2], [4]])
    assert both.average_precision == pytest.approx((first.average_precision + 0.2) / 2)
    assert str(both) == ".517, nDCG@10 .653 (2 of 2 queries)"


def test_only_the_first_ten_count_for_the_gain() -> None:
    documents = on_circle(range(12))
    assert search(on_circle([0]), documents, [[9]]).ndcg > 0
    assert search(on_circle([0]), documents, [[10]]).ndcg == 0


def test_search_without_vectors() -> None:
    documents = on_circle([0, 10, 20])
    documents[1], queries = np.nan, on_circle([20, 0, 0])
    queries[1], queries[2] = 0, np.nan
    score = search(queries, documents, [[1], [0], [0]])  # a document without a vector is the last
    assert (score.n_scored, score.n_queries, score.coverage) == (1, 3, pytest.approx(1 / 3))
    assert score.average_precision == pytest.approx(1 / 3)
    nothing = search(np.zeros((1, 2)), documents, [[0]])
    assert math.isnan(nothing.average_precision)
    assert nothing.coverage == 0.0


@pytest.mark.parametrize("rows", [[], [3], [-1], [0, 3]])
def test_relevant_documents_must_be_there(rows: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"query 2: relevant rows .* of 0 to 2"):
        search(on_circle([0, 0]), on_circle([0, 10, 20]), [[0], rows])


# ---- analogies ----------------------------------------------------------------------------------------------------


def test_analogies_are_solved_by_3cosadd_and_counted_by_section() -> None:
    words = ["man", "woman", "king", "queen", "boy", "girl", "stone"]
    male, female, royal, young, other = np.eye(5)
    vectors = np.array([male, female, male + royal, female + royal, male + young, female + young, other])
    questions = [
        AnalogyQuestion("royal", "man", "woman", "king", "queen"),
        AnalogyQuestion("royal", "man", "woman", "king", "stone"),
        AnalogyQuestion("age", "woman", "man", "girl", "boy"),
        AnalogyQuestion("age", "woman", "man", "girl", "unicorn"),
    ]
    scores = analogy(words, vectors, questions)
    assert scores["royal"].accuracy == 0.5
    assert (scores["age"].n_correct, scores["age"].n_scored, scores["age"].n_questions) == (1, 1, 2)
    assert (scores["total"].n_correct, scores["total"].n_scored, scores["total"].n_questions) == (2, 3, 4)
    # The block only bounds the memory.
    assert analogy(words, vectors, questions, block=1) == scores


def test_the_three_words_of_a_question_are_never_its_answer() -> None:
    # b - a + c is nearest to c itself; the answer has to be the next one.
    vectors = on_circle([0, 1, 90, 100])
    scores = analogy(["a", "b", "c", "d"], vectors, [AnalogyQuestion("s", "a", "b", "c", "d")])
    assert scores["total"].n_correct == 1


# ---- classification -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["knn", "logistic"])
def test_separable_classes_are_classified_without_a_mistake(method: str) -> None:
    vectors, labels = blobs()
    by_folds = classify(vectors, labels, method=method)  # type: ignore[arg-type]
    assert by_folds.accuracy.mean == 1.0
    assert len(by_folds.accuracy.values) == 10
    by_split = classify(vectors, labels, n_train=150, method=method)  # type: ignore[arg-type]
    assert by_split.accuracy.values == (1.0,)
    assert by_split.macro_f1.values == (1.0,)


def test_neighbours_are_those_of_the_largest_cosine() -> None:
    # By Euclidean distance the long test row is nearest to class 1; by cosine to class 0.
    vectors = np.array([[1, 0.1], [1, 0], [1, -0.1], [10, 8], [10, 9], [10, 10], [12, 1]], dtype=float)
    score = classify(vectors, [0, 0, 0, 1, 1, 1, 0], n_train=6)
    assert score.accuracy.mean == 1.0


def test_accuracy_of_one_mistake_and_its_macro_f1() -> None:
    vectors = on_circle([0, 1, 2, 90, 91, 92, 3, 93, 4])
    # Two of class 0 and one of class 1 lie in the test part; the last row lies among class 0 and is called 1.
    score = classify(vectors, [0, 0, 0, 1, 1, 1, 0, 1, 1], n_train=6)
    assert score.accuracy.mean == pytest.approx(2 / 3)
    assert score.macro_f1.mean == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_folds_depend_on_the_seed_alone() -> None:
    vectors, labels = blobs(spread=0.6)
    first = classify(vectors, labels)
    assert classify(vectors, labels) == first
    assert classify(vectors, labels, seed=1) != first


@pytest.mark.parametrize("n_train", [0, 4])
def test_a_split_needs_two_parts(n_train: int) -> None:
    with pytest.raises(ConfigError, match=f"training part has {n_train} rows; it must be from 1 to 3"):
        classify(np.eye(4), [0, 1, 0, 1], n_train=n_train)


def test_more_folds_than_rows_in_a_class() -> None:
    with pytest.raises(ConfigError, match="10 folds; the smallest class has 2 rows, so take from 2 to 2"):
        classify(np.eye(4), [0, 1, 0, 1])
    with pytest.raises(ConfigError, match=r"the smallest class has 1 row;"):
        classify(np.eye(4), [0, 0, 0, 1], folds=2)


def test_a_method_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match="method is 'svm'; it must be knn or logistic"):
        classify(np.eye(4), [0, 1, 0, 1], n_train=2, method="svm")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="method is 'dbscan'; it must be kmeans or spherical"):
        cluster(np.eye(4), [0, 1, 0, 1], method="dbscan")  # type: ignore[arg-type]


# ---- clustering ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["kmeans", "spherical"])
def test_separable_classes_are_found(method: str) -> None:
    vectors, labels = blobs()
    score = cluster(vectors, labels, method=method, n_init=10)  # type: ignore[arg-type]
    assert score.nmi.values == pytest.approx([1.0] * 3)
    assert score.ari.values == pytest.approx([1.0] * 3)
    assert score.purity.values == pytest.approx([1.0] * 3)
    assert score.mi.values == pytest.approx([math.log(4)] * 3)


def test_measures_of_a_small_table() -> None:
    # Contingency table [[2, 0], [1, 1]]: worked out by hand.
    measures = clustering_measures([0, 0, 1, 1], [0, 0, 0, 1])
    mutual = 0.5 * math.log(0.5 / (0.5 * 0.75)) + 0.25 * math.log(0.25 / (0.5 * 0.75)) + 0.25 * math.log(0.25 / 0.125)
    entropies = math.log(2) - 0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    assert measures["mi"] == pytest.approx(mutual)
    assert measures["nmi"] == pytest.approx(mutual / (entropies / 2))
    assert measures["purity"] == pytest.approx(3 / 4)
    assert measures["ari"] == pytest.approx(0.0)


def test_one_cluster_tells_nothing() -> None:
    vectors, labels = blobs()
    score = cluster(vectors, labels, n_clusters=1)
    assert score.nmi.mean == 0.0
    assert score.purity.mean == pytest.approx(0.25)


def test_spherical_kmeans_improves_its_objective_and_repeats() -> None:
    rng = np.random.default_rng(0)
    unit = unit_rows(rng.standard_normal((300, 8)).astype(np.float32))

    def objective(clusters: np.ndarray) -> float:
        return sum(float(np.linalg.norm(unit[clusters == c].sum(axis=0))) for c in range(6))

    by_steps = [objective(spherical_kmeans(unit, 6, seed=3, max_steps=steps)) for steps in (1, 2, 4, 8, 100)]
    assert all(later >= earlier - 1e-4 for earlier, later in pairwise(by_steps))
    assert by_steps[-1] > by_steps[0]
    assert np.array_equal(spherical_kmeans(unit, 6, seed=3), spherical_kmeans(unit, 6, seed=3))
    several = objective(spherical_kmeans(unit, 6, seed=3, n_init=8))
    assert several >= objective(spherical_kmeans(unit, 6, seed=3)) - 1e-4


def test_spherical_kmeans_leaves_no_cluster_empty() -> None:
    # Two places, five clusters: rows that lie together must still be spread over all of them.
    unit = np.repeat(np.eye(2, dtype=np.float32), 5, axis=0)
    assert len(np.unique(spherical_kmeans(unit, 5))) == 5
    assert sorted(spherical_kmeans(np.eye(4, dtype=np.float32), 4)) == [0, 1, 2, 3]


def test_impossible_clusterings() -> None:
    with pytest.raises(ConfigError, match="5 clusters of 4 rows; take from 1 to 4"):
        cluster(np.eye(4), [0, 1, 0, 1], n_clusters=5)
    with pytest.raises(ConfigError, match="no seed"):
        cluster(np.eye(4), [0, 1, 0, 1], seeds=())


def test_spread_and_its_text() -> None:
    spread = Spread((0.5, 0.6, 0.7))
    assert spread.mean == pytest.approx(0.6)
    assert spread.deviation == pytest.approx(0.1)
    assert str(spread) == ".600 ± .100"
    assert str(Spread((1.0,))) == "1.000"
    assert str(Spread((-0.25,))) == "-.250"
    assert str(Spread((10.05,))) == "10.050"
    assert str(Spread((0.9996,))) == "1.000"


def test_unit_rows_keep_zeros_and_the_type() -> None:
    rows = unit_rows(np.array([[3, 4], [0, 0]], dtype=np.float32))
    assert rows.dtype == np.float32
    assert rows == pytest.approx(np.array([[0.6, 0.8], [0, 0]]))
    assert unit_rows(np.array([[3, 4]])).dtype == np.float64


def test_without_its_packages_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(MissingExtraError, match=r'pip install "jose-embed\[eval\]"'):
        sts(np.eye(3), np.eye(3)[::-1] + 0.1 * np.arange(3)[:, None], [1, 2, 3])
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    with pytest.raises(MissingExtraError, match="classification needs packages"):
        classify(np.eye(4), [0, 1, 0, 1], n_train=2)


# ---- files --------------------------------------------------------------------------------------------------------


def test_scored_pairs_are_read(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("\ufeff# word, word, score\ntiger\tcat\t7.35\n\na b\tc d\t0\textra\r\n", encoding="utf-8")
    assert read_scored_pairs(path) == [ScoredPair("tiger", "cat", 7.35), ScoredPair("a b", "c d", 0.0)]
    packed = tmp_path / "pairs.tsv.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_scored_pairs(packed) == read_scored_pairs(path)


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (read_scored_pairs, "a\tb\n", r"set.tsv:1: 2 column\(s\); a pair is text<TAB>text<TAB>score"),
        (read_scored_pairs, "a\tb\t1\na\tb\tmuch\n", "set.tsv:2: the score is 'much'; it must be a number"),
        (read_scored_pairs, "a\tb\tnan\n", "the score is 'nan'"),
        (read_scored_pairs, "# nothing\n", "has no pair"),
        (read_search_queries, "where 17\n", r"set.tsv:1: 'where 17'; a question is text<TAB>id id"),
        (read_search_queries, "where\t1\nwho\t\n", r"set.tsv:2: 'who"),
        (read_search_queries, "\t17\n", r"set.tsv:1"),
        (read_search_queries, "# nothing\n", "no question in it"),
    ],
)
def test_lines_that_are_no_pairs_or_questions(
    tmp_path: Path, read: Callable[[Path], object], text: str, message: str
) -> None:
    path = tmp_path / "set.tsv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CorpusError, match=message):
        read(path)


def test_analogies_are_read_by_section(tmp_path: Path) -> None:
    path = tmp_path / "questions.txt"
    path.write_text("a b c d\n: capitals\nAthens Greece Oslo Norway\n", encoding="utf-8")
    assert read_analogies(path) == [
        AnalogyQuestion("all", "a", "b", "c", "d"),
        AnalogyQuestion("capitals", "Athens", "Greece", "Oslo", "Norway"),
    ]
    path.write_text("a b c\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"questions.txt:1: 3 word\(s\)"):
        read_analogies(path)
    path.write_text(": capitals\n", encoding="utf-8")
    with pytest.raises(CorpusError, match="no question in it"):
        read_analogies(path)


def test_search_queries_are_read_with_their_documents(tmp_path: Path) -> None:
    path = tmp_path / "questions.tsv"
    path.write_text("# questions\nwhere is it ?\t17 4  17\n\nwho\tb/1\n", encoding="utf-8")
    assert read_search_queries(path) == [SearchQuery("where is it ?", ("17", "4")), SearchQuery("who", ("b/1",))]


def test_labels_become_class_numbers(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("10\n2\n10\n", encoding="utf-8")
    assert read_labels(path).tolist() == [1, 0, 1]
    path.write_text("sport\n#1\nsport\n", encoding="utf-8")
    assert read_labels(path).tolist() == [1, 0, 1]
    path.write_text("sport\n\nart\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"labels.txt:2: an empty line"):
        read_labels(path)
    path.write_text("", encoding="utf-8")
    with pytest.raises(CorpusError, match="no label in it"):
        read_labels(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"missing.tsv: there is no such file or directory"):
        read_scored_pairs(tmp_path / "missing.tsv")
    latin = tmp_path / "latin.tsv"
    latin.write_bytes("é\tè\t1\n".encode("latin-1"))
    with pytest.raises(CorpusError, match=r"is not UTF-8 text \(line 1\)"):
        read_scored_pairs(latin)
    broken = tmp_path / "broken.tsv.gz"
    broken.write_bytes(gzip.compress(b"a\tb\t1\n" * 100)[:-10])
    with pytest.raises(CorpusError, match="the gzip data is cut off in the middle"):
        read_scored_pairs(broken)
    damaged = bytearray(gzip.compress(b"a\tb\t1\n" * 100))
    damaged[15:25] = bytes(10)
    broken.write_bytes(damaged)
    with pytest.raises(CorpusError, match="the gzip data cannot be decompressed"):
        read_scored_pairs(broken)
    fake = tmp_path / "fake.tsv.gz"
    fake.write_bytes(b"a\tb\t1\n")
    assert len(read_scored_pairs(fake)) == 1  # contents tell the format, not names


# ---- the development corpora: the rules are the ones their figures were measured by -------------------------------


@pytest.mark.slow
@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "n_train", "neighbors", "nmi"),
    [("moviereview", None, 0.750, 0.080), ("bbc", None, 0.967, 0.838), ("r8", 5485, 0.959, 0.485)],
)
def test_published_rows_are_reproduced(
    shared_data: Path, name: str, n_train: int | None, neighbors: float, nmi: float
) -> None:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    with gzip.open(shared_data / f"{name}.txt.gz", "rt", encoding="utf-8") as file:
        texts = file.read().splitlines()
    labels = read_labels(shared_data / f"{name}.label.txt")
    weigher = TfidfVectorizer(token_pattern=r"\S+", lowercase=False, sublinear_tf=True, min_df=5, max_df=0.5)
    vectors = TruncatedSVD(100, random_state=0).fit_transform(weigher.fit_transform(texts))
    assert classify(vectors, labels, n_train=n_train).accuracy.mean == pytest.approx(neighbors, abs=0.004)
    score = cluster(vectors, labels)
    assert score.nmi.mean == pytest.approx(nmi, abs=2 * score.nmi.deviation + 0.001)

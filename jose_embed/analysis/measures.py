"""Quality measures of vectors: word similarity, analogies, classification, clustering, sentence similarity, search.

Every function takes plain arrays, so that the vectors of any program can be scored by the same rule, and normalises the
rows, because scores compare directions. Statistics and learners come from SciPy and scikit-learn (the extra ``eval``).

The rules are fixed so that figures of two runs compare:

* neighbours: the 3 nearest training rows by cosine, majority vote, ties give the smallest class number;
* k-fold: 10 stratified folds, shuffled with seed 0; the figure is the mean over the folds;
* clusters: as many as there are classes, k-means++ starts, **one** start per seed and seeds 0, 1, 2: the figure is what
  one run of k-means gives on average, not the best of several. (The best of ten starts scores .05 higher on some
  corpora; ``n_init`` sets it.)
* search: all documents in the order of their cosines with the query; average precision over the whole order, and the
  normalised discounted cumulative gain of the first ten;
* everything runs in one thread, so that the labels do not depend on the machine.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from jose_embed.analysis.gold_sets import AnalogyQuestion, ScoredPair
from jose_embed.errors import ConfigError, MissingExtraError

Matrix = npt.NDArray[Any]
Labels = npt.NDArray[np.int64]
ClusterMethod = Literal["kmeans", "spherical"]
ClassifyMethod = Literal["knn", "logistic"]

_SEEDS = (0, 1, 2)


@dataclass(frozen=True, slots=True)
class Spread:
    """Several values of one figure.

    Args:
        values: One figure per seed or fold, at least one.

    Example:
        >>> print(Spread((0.70, 0.72, 0.74)))
        .720 ± .020
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The arithmetic mean."""
        return float(np.mean(self.values))

    @property
    def deviation(self) -> float:
        """The sample standard deviation (n - 1); 0 for a single value."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else 0.0

    def __str__(self) -> str:
        text = _short(self.mean)
        return f"{text} ± {_short(self.deviation)}" if len(self.values) > 1 else text


@dataclass(frozen=True, slots=True)
class SimilarityScore:
    """How well cosines follow people's judgement.

    Args:
        spearman: Rank correlation of cosine and score over the pairs that have vectors; NaN if fewer than two have.
        n_scored: Pairs of which both sides have a vector.
        n_pairs: All pairs.
    """

    spearman: float
    n_scored: int
    n_pairs: int

    @property
    def coverage(self) -> float:
        """The share of the pairs that could be scored, 0 to 1."""
        return self.n_scored / self.n_pairs if self.n_pairs else 0.0

    def __str__(self) -> str:
        return f"{_short(self.spearman)} ({self.n_scored} of {self.n_pairs} pairs)"


@dataclass(frozen=True, slots=True)
class AnalogyScore:
    """Answers to analogy questions.

    Args:
        n_correct: Questions whose first answer is the expected word.
        n_scored: Questions of which all four words have a vector.
        n_questions: All questions.
    """

    n_correct: int
    n_scored: int
    n_questions: int

    @property
    def accuracy(self) -> float:
        """Share of correct answers among the scored questions; NaN if none was scored."""
        return self.n_correct / self.n_scored if self.n_scored else float("nan")

    def __str__(self) -> str:
        return f"{_short(self.accuracy)} ({self.n_scored} of {self.n_questions} questions)"


@dataclass(frozen=True, slots=True)
class ClassificationScore:
    """Accuracy and macro F1, one value per fold (a given split is one fold)."""

    accuracy: Spread
    macro_f1: Spread

    def __str__(self) -> str:
        return f"{_short(self.accuracy.mean)} (macro F1 {_short(self.macro_f1.mean)})"


@dataclass(frozen=True, slots=True)
class ClusterScore:
    """Agreement of clusters and classes, one value per seed.

    Args:
        mi: Mutual information in nats.
        nmi: The same divided by the mean of the two entropies, 0 to 1.
        ari: Adjusted Rand index, about 0 for chance, 1 for the same partition.
        purity: Share of the rows whose class is the most frequent one of their cluster.
    """

    mi: Spread
    nmi: Spread
    ari: Spread
    purity: Spread

    def __str__(self) -> str:
        return f"NMI {self.nmi}, ARI {self.ari}, purity {self.purity}, MI {self.mi}"


@dataclass(frozen=True, slots=True)
class SearchScore:
    """How early relevant documents are found.

    Args:
        average_precision: Mean over the scored queries of the average precision (MAP), 0 to 1; NaN without any.
        ndcg: The same of the normalised discounted cumulative gain of the first ten documents (nDCG@10).
        n_scored: Queries that have a vector.
        n_queries: All queries.
    """

    average_precision: float
    ndcg: float
    n_scored: int
    n_queries: int

    @property
    def coverage(self) -> float:
        """The share of the queries that could be scored, 0 to 1."""
        return self.n_scored / self.n_queries if self.n_queries else 0.0

    def __str__(self) -> str:
        found = f"{_short(self.average_precision)}, nDCG@10 {_short(self.ndcg)}"
        return f"{found} ({self.n_scored} of {self.n_queries} queries)"


def word_similarity(words: Sequence[str], vectors: Matrix, pairs: Iterable[ScoredPair]) -> SimilarityScore:
    """Spearman's rank correlation between cosines of word vectors and people's scores.

    A word is looked up as written, else lower-cased. Pairs with a word that has no vector are left out and counted.

    Args:
        words: The words of the rows.
        vectors: Float (n_words, dim), any norms.
        pairs: Word pairs with scores.

    Raises:
        ConfigError: the rows are not as many as the words.
        MissingExtraError: SciPy is not installed.

    Example:
        >>> pairs = [ScoredPair("a", "b", 9.0), ScoredPair("a", "c", 5.0), ScoredPair("a", "zebra", 1.0)]
        >>> print(word_similarity(["a", "b", "c"], np.array([[1, 0], [1, 0.1], [0, 1]]), pairs))
        1.000 (2 of 3 pairs)
    """
    vectors = _matrix(vectors, len(words), "word")
    lookup = _lookup(words)
    pairs = list(pairs)
    rows = [(lookup(pair.first), lookup(pair.second), pair.score) for pair in pairs]
    known = [(first, second, score) for first, second, score in rows if first is not None and second is not None]
    if not known:
        return SimilarityScore(float("nan"), 0, len(pairs))
    first_rows, second_rows, scores = (np.array(column) for column in zip(*known, strict=True))
    return _similarity(vectors[first_rows.astype(np.intp)], vectors[second_rows.astype(np.intp)], scores, len(pairs))


def sts(first: Matrix, second: Matrix, scores: Sequence[float] | Matrix) -> SimilarityScore:
    """Spearman's rank correlation between cosines of sentence vectors and people's scores.

    Args:
        first: Float (n_pairs, dim), the vectors of the first sentences. A row that is all zero or not finite is
            a sentence without a vector; its pair is left out and counted.
        second: Float (n_pairs, dim), those of the second sentences.
        scores: Float (n_pairs,).

    Raises:
        ConfigError: the three differ in length.
        MissingExtraError: SciPy is not installed.
    """
    wanted = np.asarray(scores, dtype=np.float64)
    return _similarity(_matrix(first, len(wanted), "pair"), _matrix(second, len(wanted), "pair"), wanted, len(wanted))


def search(queries: Matrix, documents: Matrix, relevant: Sequence[Sequence[int]]) -> SearchScore:
    """Ranks of the relevant documents among all, ordered by their cosine with a query: MAP and nDCG@10.

    Args:
        queries: Float (n_queries, dim). A row that is all zero or not finite is a query without a vector, which is
            left out and counted.
        documents: Float (n_documents, dim). Documents without a vector come last.
        relevant: For each query the rows of its relevant documents, at least one.

    Raises:
        ConfigError: not one list per query, or a list that is empty or has a row number out of range.
        MissingExtraError: scikit-learn is not installed.

    Example:
        >>> print(search([[1.0, 0.1]], [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [[0, 1]]))
        .833, nDCG@10 .920 (1 of 1 queries)
    """
    queries, documents = _matrix(queries, len(relevant), "query"), np.asarray(documents)
    for number, rows in enumerate(relevant, 1):
        if not len(rows) or min(rows) < 0 or max(rows) >= len(documents):
            raise ConfigError(
                f"query {number}: relevant rows {list(rows)[:5]}; name one or more of 0 to {len(documents) - 1}"
            )
    known, has_vector = _has_vector(documents), _has_vector(queries)
    unit_documents = unit_rows(np.where(known[:, None], documents, 0))
    unit_queries = unit_rows(np.where(has_vector[:, None], queries, 0))
    cosines = (
        np.where(known, unit_documents @ unit_queries[row], -2.0) if has_vector[row] else None
        for row in range(len(relevant))
    )
    return ranking(cosines, relevant)


def ranking(scores: Iterable[npt.NDArray[Any] | None], relevant: Sequence[Sequence[int]]) -> SearchScore:
    """The same of any scores of all documents.

    Args:
        scores: For each query a number for each document, higher if it fits better; minus infinity if it
            must not be an answer. None for a query that cannot be asked, which is left out and counted.
        relevant: For each query the rows of its relevant documents, at least one.

    Raises:
        MissingExtraError: scikit-learn is not installed.

    Example:
        >>> print(ranking([np.array([3.0, 1.0, 2.0]), None], [[0], [1]]))
        1.000, nDCG@10 1.000 (1 of 2 queries)
    """
    metrics = _library("search", "sklearn.metrics")
    precisions, gains = [], []
    with _one_thread():
        for found, rows in zip(scores, relevant, strict=True):
            if found is None:
                continue
            wanted = np.zeros(len(found), bool)
            wanted[list(rows)] = True
            some = np.isfinite(found)
            least = float(found[some].min()) - 1 if some.any() else 0.0
            order = np.where(some, found, least).astype(np.float64)
            precisions.append(float(metrics.average_precision_score(wanted, order)))
            gains.append(float(metrics.ndcg_score(wanted[None], order[None], k=10)))
    if not precisions:
        return SearchScore(float("nan"), float("nan"), 0, len(relevant))
    return SearchScore(float(np.mean(precisions)), float(np.mean(gains)), len(precisions), len(relevant))


def analogy(
    words: Sequence[str], vectors: Matrix, questions: Iterable[AnalogyQuestion], *, block: int = 256
) -> dict[str, AnalogyScore]:
    """Analogies by 3CosAdd, per section and, under the key ``"total"``, altogether.

    The answer to *a : b = c : ?* is the word, none of the three, whose unit vector x maximises ``x . (b - a + c)`` over
    unit vectors a, b, c. Questions with a word that has no vector are left out and counted.

    Args:
        words: The words of the rows.
        vectors: Float (n_words, dim), any norms.
        questions: The questions, in any order of sections.
        block: Questions scored at a time; sets the working memory (block x n_words floats).

    Raises:
        ConfigError: the rows are not as many as the words.

    Source: Mikolov et al., Linguistic Regularities in Continuous Space Word Representations, NAACL 2013.
    """
    unit = unit_rows(_matrix(vectors, len(words), "word"))
    lookup = _lookup(words)
    asked: dict[str, int] = {}
    scored: dict[str, int] = {}
    correct: dict[str, int] = {}
    known: list[tuple[str, list[int]]] = []
    for question in questions:
        asked[question.section] = asked.get(question.section, 0) + 1
        rows = [lookup(word) for word in question[1:]]
        present = [row for row in rows if row is not None]
        if len(present) == 4:
            known.append((question.section, present))
    for start in range(0, len(known), block):
        part = known[start : start + block]
        index = np.array([rows for _, rows in part])
        a, b, c = (unit[index[:, column]] for column in range(3))
        similarity = (b - a + c) @ unit.T
        np.put_along_axis(similarity, index[:, :3], -np.inf, axis=1)
        hits = similarity.argmax(axis=1) == index[:, 3]
        for (section, _), hit in zip(part, hits, strict=True):
            scored[section] = scored.get(section, 0) + 1
            correct[section] = correct.get(section, 0) + int(hit)
    scores = {name: AnalogyScore(correct.get(name, 0), scored.get(name, 0), count) for name, count in asked.items()}
    scores["total"] = AnalogyScore(sum(correct.values()), len(known), sum(asked.values()))
    return scores


def classify(
    vectors: Matrix,
    labels: Sequence[int] | Labels,
    *,
    n_train: int | None = None,
    folds: int = 10,
    seed: int = 0,
    method: ClassifyMethod = "knn",
    neighbors: int = 3,
    regularization: float = 10.0,
) -> ClassificationScore:
    """Accuracy and macro F1 of a classifier on normalised rows.

    ``knn`` lets the ``neighbors`` training rows of the largest cosine vote, as the paper does; ``logistic`` is
    multinomial logistic regression with an L2 penalty.

    Args:
        vectors: Float (n_documents, dim), any norms.
        labels: Int (n_documents,), the classes.
        n_train: The first ``n_train`` rows are the training part and the others the test part; None takes folds.
        folds: Stratified folds, shuffled with ``seed``; the score is the mean over them.
        seed: Seed of the folds.
        method: ``"knn"`` or ``"logistic"``.
        neighbors: Neighbours that vote.
        regularization: Inverse strength C of the penalty of ``logistic``.

    Raises:
        ConfigError: lengths differ, a split that leaves no test part, more folds than rows in the smallest class.
        MissingExtraError: scikit-learn is not installed.

    Source: Meng et al. 2019, section 5.3 (k = 3, Euclidean distance between unit vectors, which orders as cosine does).
    """
    labels = np.asarray(labels, dtype=np.int64)
    unit = unit_rows(_matrix(vectors, len(labels), "document"))
    metrics = _library("classification", "sklearn.metrics")
    splits: Iterable[tuple[Any, Any]]
    if n_train is not None:
        if not 0 < n_train < len(labels):
            raise ConfigError(f"the training part has {n_train} rows; it must be from 1 to {len(labels) - 1}")
        splits = [(np.arange(n_train), np.arange(n_train, len(labels)))]
    else:
        smallest = int(np.unique(labels, return_counts=True)[1].min())
        if smallest < 2:
            raise ConfigError("the smallest class has 1 row; folds need 2 or more: drop the class or give a split")
        if not 2 <= folds <= smallest:
            raise ConfigError(f"{folds} folds; the smallest class has {smallest} rows, so take from 2 to {smallest}")
        selection = _library("classification", "sklearn.model_selection")
        splits = selection.StratifiedKFold(folds, shuffle=True, random_state=seed).split(unit, labels)
    accuracy, macro_f1 = [], []
    with _one_thread():
        for train, test in splits:
            if method == "knn":
                library = _library("classification", "sklearn.neighbors")
                learner = library.KNeighborsClassifier(neighbors, algorithm="brute")
            elif method == "logistic":
                library = _library("classification", "sklearn.linear_model")
                learner = library.LogisticRegression(C=regularization, max_iter=2000)
            else:
                raise ConfigError(f"method is {method!r}; it must be knn or logistic")
            predicted = learner.fit(unit[train], labels[train]).predict(unit[test])
            accuracy.append(float(np.mean(predicted == labels[test])))
            macro_f1.append(float(metrics.f1_score(labels[test], predicted, average="macro", zero_division=0.0)))
    return ClassificationScore(Spread(tuple(accuracy)), Spread(tuple(macro_f1)))


def cluster(
    vectors: Matrix,
    labels: Sequence[int] | Labels,
    *,
    method: ClusterMethod = "kmeans",
    n_clusters: int | None = None,
    seeds: Sequence[int] = _SEEDS,
    n_init: int = 1,
) -> ClusterScore:
    """Agreement of k-means clusters of the normalised rows with the classes.

    Args:
        vectors: Float (n_documents, dim), any norms.
        labels: Int (n_documents,), the classes.
        method: ``"kmeans"`` (scikit-learn, k-means++ starts, Lloyd) or ``"spherical"`` (:func:`spherical_kmeans`).
        n_clusters: Clusters; None takes the number of classes.
        seeds: One clustering per seed.
        n_init: Starts per seed, of which the one of the smallest distortion counts.

    Raises:
        ConfigError: lengths differ, more clusters than rows, no seed.
        MissingExtraError: scikit-learn is not installed.
    """
    labels = np.asarray(labels, dtype=np.int64)
    unit = unit_rows(_matrix(vectors, len(labels), "document"))
    n_clusters = len(np.unique(labels)) if n_clusters is None else n_clusters
    if not 1 <= n_clusters <= len(unit):
        raise ConfigError(f"{n_clusters} clusters of {len(unit)} rows; take from 1 to {len(unit)}")
    if not seeds:
        raise ConfigError("no seed to cluster with; give at least one")
    assign: Callable[[int], Labels]
    if method == "kmeans":
        sklearn_cluster = _library("clustering", "sklearn.cluster")

        def assign(seed: int) -> Labels:
            found = sklearn_cluster.KMeans(n_clusters, n_init=n_init, random_state=seed).fit(unit).labels_
            return np.asarray(found, dtype=np.int64)

    elif method == "spherical":

        def assign(seed: int) -> Labels:
            return spherical_kmeans(unit, n_clusters, seed=seed, n_init=n_init)

    else:
        raise ConfigError(f"method is {method!r}; it must be kmeans or spherical")
    with _one_thread():
        rows = [clustering_measures(labels, assign(seed)) for seed in seeds]
    return ClusterScore(**{name: Spread(tuple(row[name] for row in rows)) for name in ("mi", "nmi", "ari", "purity")})


def clustering_measures(labels: Sequence[int] | Labels, clusters: Sequence[int] | Labels) -> Mapping[str, float]:
    """MI (nats), NMI, ARI and purity of one clustering.

    Args:
        labels: Int (n,), the classes.
        clusters: Int (n,), the clusters found.

    Raises:
        MissingExtraError: scikit-learn is not installed.

    Example:
        >>> clustering_measures([0, 0, 1, 1], [1, 1, 0, 0])["nmi"]
        1.0
    """
    metrics = _library("clustering", "sklearn.metrics")
    table = _library("clustering", "sklearn.metrics.cluster").contingency_matrix(labels, clusters)
    return {
        "mi": float(metrics.mutual_info_score(labels, clusters)),
        "nmi": float(metrics.normalized_mutual_info_score(labels, clusters)),
        "ari": float(metrics.adjusted_rand_score(labels, clusters)),
        "purity": float(table.max(axis=0).sum() / table.sum()),
    }


def spherical_kmeans(
    unit: Matrix, n_clusters: int, *, seed: int = 0, n_init: int = 1, max_steps: int = 300
) -> npt.NDArray[np.int64]:
    """Clusters that maximise the sum of cosines between each row and its cluster's mean direction.

    Starts as k-means++ does (rows drawn in proportion to their cosine distance from the chosen ones); then rows go to
    the nearest mean direction and mean directions to their rows until a step raises the mean cosine by less than 1e-6.
    An empty cluster takes the row that is farthest from its mean direction.

    Args:
        unit: Float (n, dim), rows of norm 1.
        n_clusters: 1 to n.
        seed: Seed of the starts.
        n_init: Starts, of which the best counts.
        max_steps: Steps after which a start is cut short.

    Returns:
        int64 (n,), cluster numbers.

    Source: Dhillon and Modha, Concept Decompositions for Large Sparse Text Data using Clustering, 2001.
    """
    rng = np.random.default_rng(seed)
    best: tuple[float, Labels] | None = None
    for _ in range(n_init):
        centers = unit[_spread_out_rows(unit, n_clusters, rng)]
        clusters = np.zeros(len(unit), dtype=np.int64)
        total = -np.inf
        for _ in range(max_steps):
            cosines = unit @ centers.T
            nearest = cosines.argmax(axis=1)
            closeness = np.take_along_axis(cosines, nearest[:, None], axis=1)[:, 0]
            before, total = total, float(closeness.sum(dtype=np.float64))
            empty = np.setdiff1d(np.arange(n_clusters), nearest)
            nearest[np.argsort(closeness, kind="stable")[: len(empty)]] = empty
            clusters = nearest
            if total - before < 1e-6 * len(unit):
                break
            sums = np.zeros((n_clusters, unit.shape[1]), dtype=np.float64)
            order = np.argsort(clusters, kind="stable")
            members, starts = np.unique(clusters[order], return_index=True)
            sums[members] = np.add.reduceat(unit[order].astype(np.float64), starts, axis=0)
            centers = unit_rows(sums).astype(unit.dtype)
        if best is None or total > best[0]:
            best = (total, clusters)
    assert best is not None
    return best[1]


def unit_rows(vectors: Matrix) -> Matrix:
    """The rows divided by their norms; rows of norm 0 are unchanged.

    Args:
        vectors: Float (n, dim).

    Returns:
        A new array of the same shape; float32 stays float32, everything else becomes float64.
    """
    vectors = np.asarray(vectors)
    if vectors.dtype != np.float32:
        vectors = vectors.astype(np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
    return vectors / np.where(norms > 0, norms, 1)


def _spread_out_rows(unit: Matrix, count: int, rng: np.random.Generator) -> list[int]:
    """Row numbers for the start of spherical k-means."""
    chosen = [int(rng.integers(len(unit)))]
    distance = np.maximum(1.0 - (unit @ unit[chosen[0]]).astype(np.float64), 0.0)
    while len(chosen) < count:
        total = distance.sum()
        if total > 0:
            row = int(np.searchsorted(np.cumsum(distance), rng.random() * total, side="right"))
        else:  # fewer different rows than clusters
            row = int(rng.integers(len(unit)))
        row = min(row, len(unit) - 1)
        chosen.append(row)
        distance = np.minimum(distance, np.maximum(1.0 - (unit @ unit[row]).astype(np.float64), 0.0))
    return chosen


def _similarity(first: Matrix, second: Matrix, scores: Matrix, n_pairs: int) -> SimilarityScore:
    valid = _has_vector(first) & _has_vector(second)
    first, second, scores = unit_rows(first[valid]), unit_rows(second[valid]), scores[valid]
    n_scored = len(scores)
    cosines = np.einsum("ij,ij->i", first, second)
    if n_scored < 2 or np.ptp(cosines) == 0 or np.ptp(scores) == 0:
        return SimilarityScore(float("nan"), n_scored, n_pairs)
    stats = _library("rank correlation", "scipy.stats")
    return SimilarityScore(float(stats.spearmanr(cosines, scores).statistic), n_scored, n_pairs)


def _has_vector(rows: Matrix) -> npt.NDArray[np.bool_]:
    return np.asarray(np.isfinite(rows).all(axis=1) & rows.any(axis=1))


def _lookup(words: Sequence[str]) -> Callable[[str], int | None]:
    index = {word: row for row, word in enumerate(words)}

    def row_of(word: str) -> int | None:
        row = index.get(word)
        return index.get(word.lower()) if row is None else row

    return row_of


def _matrix(vectors: Matrix, n_rows: int, noun: str) -> Matrix:
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or len(vectors) != n_rows:
        raise ConfigError(f"vectors of shape {vectors.shape} for {n_rows} {noun}s; there must be one row per {noun}")
    return vectors


def _short(value: float) -> str:
    """Three decimals, without the zero before the point."""
    return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 0.9995 else f"{value:.3f}"


def _library(feature: str, name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(feature, "eval") from error


def _one_thread() -> Any:
    """A context in which BLAS and OpenMP use one thread (threadpoolctl comes with scikit-learn)."""
    return _library("evaluation", "threadpoolctl").threadpool_limits(limits=1)

"""Topics of a model's documents: a mixture of von Mises-Fisher distributions, described by words and documents.

Documents are compared without the mean direction m that all of them share, as words are in model/words_of.py: a
document is the direction of v - m. A topic is one distribution of a mixture over these directions (vmf.py). The fit
begins at the best of many seeded runs of spherical k-means, so the result does not depend on one draw and has the same
bytes every time.

The number of topics, if it is not given, is the elbow of the logarithmic distortion. With

    D(k) = 1 - mean cosine between a document and the nearest of k centres,

documents without clusters have a constant slope of -log D(k) over log k, which depends on their effective dimension
alone. Up to the number of clusters the slope is steeper. The number found is the k from 3 to 50 for which the slope
from k / 1.4 to k is the largest multiple of the slope from k to 1.4 k. -log D is the mean over four samples of 8,000
documents; in each, the centres of k are those of k + 1 with two joined (vmf.py), because the best of some independent
runs for each k left noise in the slopes that moved the elbow from sample to sample (evidence/40).

Words are scored by cos(z(w) - m, topic) r(w) n / (n + 100), with the direction z and the reliability r of
model/words_of.py without its shrinkage, and n occurrences of the word. A topic's words are those that rank higher in it
than in any other one, so no word describes two topics. By the highest score instead, a topic of mixed documents, whose
words are all nearer to some other one, was left with rare words that never meet (evidence/40).

A topic's words come in the order of the same score, with the mean of z(w) - m of its ten leading words in the place of
its own direction: a topic is wide, and words that are near its middle, but far from each other, seldom meet.

Source: Banerjee, Dhillon, Ghosh and Sra, JMLR 2005, for the mixture; Sugar and James, Finding the number of clusters in
a dataset, JASA 2003, for the distortion of data without clusters as a power of k.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from jose_embed.analysis.vmf import Mixture, fit_mixture, joined_cosines, refined_means, spherical_starts
from jose_embed.compute.sphere import normalized
from jose_embed.errors import ConfigError, whole_number
from jose_embed.progress import Reporter, SilentReporter, reporting

if TYPE_CHECKING:
    from jose_embed.model.embeddings import Embeddings
    from jose_embed.model.words_of import WordDirections

Vectors = npt.NDArray[np.float32]

MOST_TOPICS: Final = 50  # that are looked for
WORD_SHRINKAGE: Final = 100.0  # a topic is described by more common words than a document: rare ones seldom meet

_LEADING: Final = 10  # words whose mean direction orders the words of a topic
_WINDOW: Final = 1.4
_SAMPLES, _SAMPLED = 4, 8_000  # samples for the number of topics, and the documents of one
_SAMPLED_FOR_STARTS: Final = 20_000
_STARTS, _FINALISTS = 20, 5
_BLOCK: Final = 1 << 13


class Assigned(NamedTuple):
    """The topics of texts.

    Attributes:
        topics: int64 (n,), the number of the most probable topic; -1 for a text without a known word.
        probabilities: float64 (n, n_topics); rows sum to 1, and are 0 for a text without a known word.
    """

    topics: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Topic:
    """One topic.

    Attributes:
        number: From 0, the topic with the largest share first.
        share: Share of the documents, by their memberships; all shares sum to 1.
        concentration: kappa of the distribution: the higher, the nearer its documents lie to its direction.
        n_documents: Documents whose most probable topic it is.
        words: Its words, best first.
        scores: The score of each word, at most 1.
        doc_ids: The ids of its most typical documents, those nearest to its direction.
        doc_rows: Their rows.
    """

    number: int
    share: float
    concentration: float
    n_documents: int
    words: tuple[str, ...]
    scores: tuple[float, ...]
    doc_ids: tuple[str, ...]
    doc_rows: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.number}  {self.share:6.1%}  {' '.join(self.words)}"


class Topics(Sequence[Topic]):
    """The topics of a model, a sequence of :class:`Topic`, and what assigns texts to them.

    Attributes:
        mixture: The fitted mixture over centered directions.
        doc_topics: int64 (n_docs,), the topic of each document of the model; -1 for one without a known word.
    """

    def __init__(self, model: Embeddings, found: Sequence[Topic], mixture: Mixture, doc_topics: npt.NDArray[np.int64]):
        self._model = model
        self._topics = tuple(found)
        self.mixture = mixture
        self.doc_topics = doc_topics

    def __len__(self) -> int:
        return len(self._topics)

    def __getitem__(self, number: int) -> Topic:  # type: ignore[override]  # topics are asked one by one
        return self._topics[number]

    def __repr__(self) -> str:
        return "\n".join(map(str, self._topics))

    def assign(self, texts: Iterable[str | Sequence[str]]) -> Assigned:
        """The topics of new texts.

        Args:
            texts: As for :func:`jose_embed.infer`; a text without a known word is not an error.
        """
        vectors, known = self._model.infer_flagged(texts)
        probabilities = self.mixture.memberships(self._model.word_directions.centered(vectors))
        probabilities[~known] = 0
        return Assigned(np.where(known, probabilities.argmax(1), -1), probabilities)

    def memberships(self) -> npt.NDArray[np.float64]:
        """float64 (n_docs, n_topics): the probability of each topic for each document; 0 without a known word."""
        model, out = self._model, np.zeros((self._model.n_docs, len(self)))
        for start in range(0, len(out), _BLOCK):
            rows = start + np.flatnonzero(model.doc_token_counts[start : start + _BLOCK])
            out[rows] = self.mixture.memberships(model.word_directions.centered(model.doc_vectors[rows]))
        return out


def topics(
    model: Embeddings,
    n_topics: int | None = None,
    *,
    n_words: int = 10,
    n_documents: int = 3,
    among: Collection[str] | None = None,
    seed: int = 0,
    reporter: Reporter | None = None,
    progress: bool | None = None,
) -> Topics:
    """The topics of a model's documents.

    Args:
        model: A model with document vectors.
        n_topics: How many; None finds the number.
        n_words: Words of each topic.
        n_documents: Typical documents of each topic.
        among: Only these words describe topics, such as a vocabulary without stop words; None for all.
        seed: Of the starts. The same model and seed give the same bytes.
        reporter: Receives the phases "number" (if it is to be found), "starts", "mixture" and "assigning"; None
            shows them as ``progress`` says.
        progress: Whether to show progress; None shows it in notebooks and interactive sessions.

    Returns:
        The topics, largest first; fewer than ``n_topics`` if the mixture empties some.

    Raises:
        ConfigError: a model without documents, a number of topics below 1 or above that of the documents.

    Example::

        for topic in jose_embed.topics(model):
            print(topic)
    """
    model.require_documents()
    rows = np.flatnonzero(model.doc_token_counts)
    n_words, n_documents = whole_number("n_words", n_words, 0), whole_number("n_documents", n_documents, 0)
    seed = whole_number("seed", seed, 0)
    if not len(rows):
        raise ConfigError("the model has no document with a known word; topics need documents")
    if n_topics is not None and whole_number("n_topics", n_topics, 1) > len(rows):
        raise ConfigError(f"n_topics is {n_topics}; there are {len(rows):,} documents with known words")
    # One thread: the same bytes on any machine, and small products are faster so.
    with threadpool_limits(1), reporting(reporter, progress) as shown:
        return _topics(model, rows, n_topics, n_words, n_documents, among, seed, shown)


def _topics(
    model: Embeddings,
    rows: npt.NDArray[np.int64],
    n_topics: int | None,
    n_words: int,
    n_documents: int,
    among: Collection[str] | None,
    seed: int,
    reporter: Reporter,
) -> Topics:
    directions = model.word_directions
    vectors = np.empty((len(rows), model.dim), np.float32)
    for start in range(0, len(rows), _BLOCK):
        vectors[start : start + _BLOCK] = directions.centered(model.doc_vectors[rows[start : start + _BLOCK]])
    k = number_of_topics(vectors, seed=seed, reporter=reporter) if n_topics is None else n_topics
    mixture = _fit(vectors, k, seed, reporter)
    of_documents = np.empty(len(rows), np.int64)
    cosines = np.empty((len(rows), len(mixture)), np.float32)
    reporter.start("assigning", len(rows), "documents")
    for start in range(0, len(rows), _BLOCK):
        block = slice(start, start + _BLOCK)
        of_documents[block] = mixture.log_densities(vectors[block]).argmax(1)
        cosines[block] = vectors[block] @ mixture.means.T.astype(np.float32)
        reporter.advance(len(of_documents[block]))
    reporter.finish()
    doc_topics = np.full(model.n_docs, -1, np.int64)
    doc_topics[rows] = of_documents
    words = _words(model, directions, mixture, n_words, among)
    found = []
    for number in range(len(mixture)):
        own = np.flatnonzero(of_documents == number)
        typical = rows[own[np.lexsort((own, -cosines[own, number]))[:n_documents]]].tolist()
        best, scores = words[number]
        found.append(
            Topic(
                number,
                float(mixture.shares[number]),
                float(mixture.kappas[number]),
                len(own),
                tuple(model.words[row] for row in best.tolist()),
                tuple(scores.tolist()),
                tuple(model.doc_ids[row] for row in typical),
                tuple(typical),
            )
        )
    return Topics(model, found, mixture, doc_topics)


def number_of_topics(
    vectors: Vectors, *, seed: int = 0, most: int = MOST_TOPICS, reporter: Reporter | None = None
) -> int:
    """The elbow of the logarithmic distortion, from 3 to ``most``; see the head of this file.

    Args:
        vectors: float32 (n, dim), centered directions of norm 1; of more than 8,000 seeded samples are used.
        seed: Of the starts and the samples.
        most: The largest number looked for; no more than one topic for 14 documents is.
        reporter: Receives the phase "number", in samples.

    Returns:
        The number; for fewer than 50 documents it is 3, or 1 if there are fewer than 3.

    Example:
        >>> random = np.random.default_rng(0)
        >>> centres = np.repeat(np.eye(8), 100, axis=0)
        >>> vectors = centres + 0.2 * random.standard_normal(centres.shape)
        >>> vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        >>> number_of_topics(vectors.astype(np.float32))
        8
    """
    largest = min(math.ceil(most * _WINDOW), len(vectors) // 10, _SAMPLED // 10)
    if largest / _WINDOW < 3:
        return 3 if len(vectors) >= 3 else 1
    reporter = reporter or SilentReporter()
    reporter.start("number", _SAMPLES, "samples")
    first = math.ceil(largest * _WINDOW)  # the first joins have not settled; they looked like an elbow at the end
    total = np.zeros(largest + 1)
    for number in range(_SAMPLES):
        random = np.random.default_rng([seed, number])
        cosines = joined_cosines(_sampled(vectors, _SAMPLED, random), first, random)[: largest + 1]
        total -= np.log(np.maximum(1 - cosines, 1e-12))
        reporter.advance(1)
    reporter.finish()
    numbers = np.arange(2, largest + 1)
    gains = total[2:] / _SAMPLES
    x, window = np.log(numbers), math.log(_WINDOW)

    def gain(at: float) -> float:
        return float(np.interp(at, x, gains))

    best, found = -math.inf, 3
    for k, at in zip(numbers.tolist(), x.tolist(), strict=True):
        if k >= 3 and at + window <= x[-1] + 1e-9:
            before = min(window, at - x[0])
            slope = (gain(at) - gain(at - before)) / before
            ratio = slope / max((gain(at + window) - gain(at)) / window, 1e-3)
            if ratio > best:
                best, found = ratio, k
    return found


def _fit(vectors: Vectors, k: int, seed: int, reporter: Reporter) -> Mixture:
    """The mixture of the best of many starts, largest topic first."""
    sample = _sampled(vectors, max(_SAMPLED_FOR_STARTS, k), np.random.default_rng(seed))
    random = np.random.default_rng([seed, k])
    reporter.start("starts", _STARTS, "starts")
    starts = []
    for _ in range(_STARTS):
        starts.append(spherical_starts(sample, k, random))
        reporter.advance(1)
    reporter.finish()
    reporter.start("mixture", 1, "step")
    starts.sort(key=lambda means: -_mean_cosine(sample, means))
    finalists = [refined_means(sample, means, 50) for means in starts[:_FINALISTS]]
    mixture = fit_mixture(sample, max(finalists, key=lambda means: _mean_cosine(sample, means)))
    if len(sample) < len(vectors):
        mixture = fit_mixture(vectors, dataclasses.replace(mixture, log_likelihood=-math.inf), iterations=5)
    reporter.advance(1)
    reporter.finish()
    order = np.argsort(-mixture.shares, kind="stable")
    return Mixture(mixture.means[order], mixture.kappas[order], mixture.shares[order], mixture.log_likelihood)


def _sampled(vectors: Vectors, n: int, random: np.random.Generator) -> Vectors:
    if len(vectors) <= n:
        return vectors
    return vectors[np.sort(random.choice(len(vectors), n, replace=False))]


def _mean_cosine(vectors: Vectors, means: npt.NDArray[np.float64]) -> float:
    return float((vectors @ means.T.astype(np.float32)).max(1).mean(dtype=np.float64))


def _words(
    model: Embeddings, directions: WordDirections, mixture: Mixture, n_words: int, among: Collection[str] | None
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]]:
    """Rows and scores of the words of each topic."""
    allowed = np.arange(model.n_words)
    if among is not None:
        allowed = np.unique(model.rows_of(among))
        allowed = allowed[allowed >= 0]
    rows, counts = directions.rows[allowed], model.counts[allowed]
    factors = directions.reliability(0.0)[allowed] * (counts / (counts + WORD_SHRINKAGE))
    scores = (rows @ mixture.means.T.astype(np.float32)) * factors[:, None]
    orders = [np.argsort(-column, kind="stable") for column in scores.T]
    ranks = np.empty(scores.shape, np.int32)
    for number, order in enumerate(orders):
        ranks[order, number] = np.arange(len(order))
    own = ranks.argmin(1)
    found = []
    for number, order in enumerate(orders):
        words = order[own[order] == number]
        again = rows[words] @ normalized(rows[words[:_LEADING]].sum(0)) * factors[words]
        best = np.lexsort((words, -again))[:n_words]
        found.append((allowed[words[best]], again[best]))
    return found

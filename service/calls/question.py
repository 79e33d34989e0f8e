"""Searches with a mode, a filter, facets or passages, over trained and added documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
from starlette.requests import Request
from starlette.responses import Response

from jose_embed.errors import ConfigError, ModelError
from jose_embed.model.filters import Filter
from jose_embed.model.nearest import at_least_best, kth_largest, nearest_among
from jose_embed.model.search import WORDS_SHARE, Question, Scales, SearchMode, best_of, chosen_mode, joined, spread
from service.calls.embed import within_limit
from service.calls.kept import damaged_texts, found_json
from service.engine.serving import Engine
from service.engine.store import Store
from service.problems import Problem
from service.search.added import AddedDocuments
from service.search.index import HYBRID, QUESTION, Reach
from service.search.queries import Found, Snapshot, angles
from service.web.route import answer, engine_of
from service.web.schemas import SearchRequest

_SCORED: Final = 0.25  # of the documents: if more are candidates, all are scored, which is faster
_ROUNDING: Final = 1e-4  # of a joined score
_LEAST_K: Final = 10  # that candidates of a hybrid question are sought for: fewer answers get the same scores


async def answer_to_question(request: Request, wanted: SearchRequest) -> Response:
    """Answers a search by a text with a mode, a filter, facets or passages.

    Raises:
        Problem: ``invalid-request``, ``invalid-filter``, ``text-too-long``, ``storage-unavailable``, ``saturated``.
    """
    engine = engine_of(request)
    snapshot = engine.snapshot
    assert wanted.text is not None
    text, _ = within_limit(wanted.text, engine.settings.max_text_characters)
    # What may go through the texts or fields of all documents must not hold up the questions that do not.
    ask = (
        engine.question
        if engine.has_words(snapshot) and wanted.filter is None and not wanted.facets
        else engine.long_work
    )
    content = await ask(partial(_answered, snapshot, engine.store, wanted, text))
    if wanted.include:
        content["neighbors"] = await found_json(request, snapshot, content["neighbors"], wanted.include)
    return answer(await engine.work(partial(orjson.dumps, content)))


def is_hybrid(engine: Engine, snapshot: Snapshot, wanted: SearchRequest) -> bool:
    """Whether a request that names no mode is compared by words, too: a text with documents of a model that keeps
    texts, as soon as the words are read."""
    is_text = wanted.text is not None and wanted.target == "documents"
    return is_text and _mode(wanted, snapshot) == "hybrid" and engine.has_words(snapshot)


def _mode(wanted: SearchRequest, snapshot: Snapshot) -> SearchMode:
    """How a text is compared with documents; a bound without a mode is one of cosines.

    Raises:
        ConfigError: a mode that needs texts where none are kept.
    """
    asked = "vector" if wanted.mode is None and wanted.min_score is not None else wanted.mode
    return chosen_mode(asked, snapshot.served.embeddings.document_search.has_texts)


def filtered_neighbors(
    snapshot: Snapshot,
    store: Store,
    wanted: SearchRequest,
    vector: npt.NDArray[np.float32],
    excluded: tuple[str, str] | None,
) -> Found:
    """The documents nearest to a direction among those that fit a filter.

    Args:
        snapshot: The state of things.
        store: The added documents.
        wanted: The request.
        vector: float32 (dim,), norm 1.
        excluded: The source and id that must not be an answer.

    Raises:
        Problem: ``invalid-filter``, ``storage-unavailable``.
    """
    documents = Documents.of(snapshot, store, wanted)
    k = wanted.k + (excluded is not None)
    ranked = documents.nearest(vector, k)
    found = documents.found(ranked, vector, k, wanted.min_score)
    return [one for one in found if (one["source"], one["id"]) != excluded][: wanted.k]


class Documents(NamedTuple):
    """The documents of a request: the trained ones by row, behind them the added ones.

    Attributes:
        snapshot: The state of things.
        added: The added documents; None without any.
        trained: bool: which trained documents may be answers.
        of_added: bool: which added ones.
    """

    snapshot: Snapshot
    added: AddedDocuments | None
    trained: npt.NDArray[np.bool_]
    of_added: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, snapshot: Snapshot, store: Store, wanted: SearchRequest) -> Documents:
        served, library = snapshot
        added = served.added.of(library, store) if wanted.source != "trained" and len(library) else None
        elsewhere = None if added is None else added.known_fields
        try:
            chosen = None if wanted.filter is None else Filter.parse(wanted.filter)
            trained = served.embeddings.known_documents
            if wanted.source == "added":
                trained = np.zeros_like(trained)
            if chosen is not None:
                trained = trained & chosen.fitting(served.embeddings.document_search.fields, elsewhere=elsewhere)
            fit = np.empty(0, np.bool_) if added is None else added.fitting(chosen)
        except ConfigError as error:
            raise Problem("invalid-filter", str(error)) from None
        except ModelError as error:
            raise damaged_texts(error) from None
        return cls(snapshot, added, trained, fit)

    def facets(self, name: str) -> list[dict[str, Any]]:
        """The values of a field and how many documents have each, most frequent first.

        Raises:
            ConfigError: no such field.
        """
        table = self.snapshot.served.embeddings.document_search.fields
        n_trained = int(np.count_nonzero(self.trained))
        if self.added is None or name not in self.added.known_fields or name in table.names:
            counted = [(value, n) for value, n in table.facets(name, self.trained)]
        else:
            counted = [(None, n_trained)] if n_trained else []
        if self.added is not None:
            of_added = [fields.get(name) for fields in self.added.fields(np.flatnonzero(self.of_added))]
            values = {_key(value): value for value in [*(value for value, _ in counted), *of_added]}
            both = Counter({_key(value): n for value, n in counted}) + Counter(map(_key, of_added))
            counted = [(values[key], n) for key, n in both.most_common()]
        return [{"value": value, "count": count} for value, count in counted]

    def nearest(self, vector: npt.NDArray[np.float32], k: int) -> list[tuple[int, float]]:
        """The ``k`` nearest trained and the ``k`` nearest added documents to a direction, and their cosines."""
        served = self.snapshot.served
        rows = served.candidates(vector, k, self.trained)
        rows = np.flatnonzero(self.trained) if rows is None else rows
        rows, cosines = nearest_among(served.embeddings.doc_vectors, vector, k, rows)
        ranked = [*zip(rows.tolist(), np.clip(cosines, -1, 1).tolist(), strict=True)]
        if self.added is not None:
            at, scores = self.added.nearest(vector, k, self.of_added, as_question=False)
            ranked += zip((len(self.trained) + place for place in at), scores, strict=True)
        return ranked

    def best(self, question: Question, k: int, mode: SearchMode) -> list[tuple[int, float]]:
        """The best documents by a question in words, best first, and their scores."""
        search = self.snapshot.served.embeddings.document_search
        added = self.added
        if added is None and self.snapshot.served.documents.index.kind != "ivf":
            # Without rows the library finds documents without a known word, too, by their words.
            chosen = None if self.trained.all() else np.flatnonzero(self.trained)
            return _ranked(*search.best(question, k, mode, chosen), mode)
        if mode == "vector":
            if question.vector is None:
                return []
            rows = self._nearest_trained(question.vector, k)
            rows = np.flatnonzero(self.trained) if rows is None else rows
            ranked = _ranked(*search.best(question, k, mode, rows), mode)
            if added is not None:
                at, scores = added.nearest(question.vector, k, self.of_added, as_question=True)
                ranked += zip((len(self.trained) + place for place in at), scores, strict=True)
            return ranked
        may = self.trained if added is None else np.concatenate([self.trained, self.of_added])
        vector = None if mode == "words" else question.vector
        wide = max(k, _LEAST_K)
        near = None
        by_words = search.words.scores(question.terms)
        if added is not None:
            by_words = np.concatenate([by_words, added.by_words(question)])
        largest = float(by_words.max(initial=0))
        scales, cosines = Scales(largest, 0.0, 0.0), None
        if vector is not None:
            if largest <= 0:
                return self.best(question, k, "vector")
            n = search.n_known + (0 if added is None else len(added))
            total = search.sum_of_cosines(vector) + (0.0 if added is None else added.sum_of_cosines(vector))
            scales = scales._replace(mean=total / max(1, n))
            near = self._nearest(vector, wide, may)
        if near is None or vector is None:
            places = np.flatnonzero(may)
        else:
            places = self._candidates(near, by_words, vector, wide, may, scales)
        if vector is not None:
            cosines = self._cosines(vector, places)
            scales = scales._replace(cosine=float(cosines.max(initial=-1)))
        found, best = best_of(joined(by_words[places], cosines, None, scales), k)
        return _ranked(places[found], best, mode)

    def _cosines(self, vector: npt.NDArray[np.float32], places: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """The cosines of a question and some documents, in rising order: float32."""
        first = int(np.searchsorted(places, len(self.trained)))
        made = self.snapshot.served.embeddings.document_search.cosines(vector, places[:first])
        if self.added is None:
            return made
        return np.concatenate([made, self.added.cosines(vector, places[first:] - len(self.trained))])

    def _candidates(
        self,
        near: npt.NDArray[np.int64],
        by_words: npt.NDArray[np.float32],
        vector: npt.NDArray[np.float32],
        k: int,
        may: npt.NDArray[np.bool_],
        scales: Scales,
    ) -> npt.NDArray[np.int64]:
        """Places, rising, among which are the best by words and meaning, where documents are searched by codes.

        The best by words, and the nearest by codes, give ``k`` scores. Any other document has at most the cosine of the
        ``k``-th nearest; if it also has too few of the words, it is no better.
        """
        if not may.all():
            by_words = np.where(may, by_words, np.float32(0))
        best, least = at_least_best(by_words, k, above=0), 0.0
        of_near, of_best = self._cosines(vector, near), self._cosines(vector, best)
        # The codes may miss the nearest, and it may be among the best by words.
        scales = scales._replace(cosine=float(max(of_near.max(), of_best.max(initial=-1))))
        for places, cosines in ((near, of_near), (best, of_best)):
            if len(places) >= k:
                scores = joined(by_words[places], cosines, None, scales)
                least = max(least, float(kth_largest(scores, k)) - _ROUNDING)
        rest = (1 - WORDS_SHARE) * (float(kth_largest(of_near, k)) - scales.mean) / spread(scales)
        words = np.float32(scales.words * (least - rest) / WORDS_SHARE)
        enough = np.flatnonzero(by_words >= max(words, np.finfo(np.float32).tiny))
        return np.union1d(np.union1d(near, best), enough)

    def _nearest_trained(
        self, vector: npt.NDArray[np.float32], k: int, reach: Reach = QUESTION
    ) -> npt.NDArray[np.int64] | None:
        """Rows, rising, among which are the ``k`` trained documents nearest to a question; None if all must be
        scored."""
        query, _ = self.snapshot.served.embeddings.document_search.query_of(vector)
        return self.snapshot.served.candidates(query, k, self.trained, reach)

    def _nearest(
        self, vector: npt.NDArray[np.float32], k: int, may: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.int64] | None:
        """Places, rising, among which are most of the ``k`` nearest to a question, at least ``k``; None if so many
        would have to be scored that all should."""
        rows, n = self._nearest_trained(vector, k, HYBRID), len(self.trained)
        if rows is None and (self.added is None or not self.added.by_codes):
            return None
        near = np.flatnonzero(self.trained) if rows is None else rows
        if self.added is not None:
            query, _ = self.snapshot.served.embeddings.document_search.query_of(vector)
            near = np.concatenate([near, n + self.added.candidates(query, k, may[n:], HYBRID)[0]])
        return near if k <= len(near) <= _SCORED * np.count_nonzero(may) else None

    def found(
        self, ranked: Sequence[tuple[int, float]], vector: npt.NDArray[np.float32] | None, k: int, least: float | None
    ) -> Found:
        """Documents as an answer shows them, best first, of equal ones the added first."""
        model, n = self.snapshot.served.embeddings, len(self.trained)
        best = sorted(ranked, key=lambda pair: (-pair[1], pair[0] < n, pair[0]))[:k]
        best = [(place, score) for place, score in best if least is None or score >= least]
        vectors = np.empty((len(best), model.dim))
        for i, (place, _) in enumerate(best):
            vectors[i] = model.doc_vectors[place] if place < n else self._added_vector(place - n)
        degrees = np.full(len(best), 90.0)
        if vector is not None:
            degrees = angles(vector, vectors, np.clip((vectors * vector).sum(axis=1), -1, 1))
        return [
            {
                "id": self._id(place),
                "source": "trained" if place < n else "added",
                "score": round(min(1.0, max(-1.0, score)), 7),
                "angle_deg": round(angle, 5),
            }
            for (place, score), angle in zip(best, degrees.tolist(), strict=True)
        ]

    def _added_vector(self, at: int) -> npt.NDArray[np.float32]:
        assert self.added is not None
        vector: npt.NDArray[np.float32] = self.added.vectors([at])[0]
        return vector

    def _id(self, place: int) -> str:
        if place < len(self.trained):
            return self.snapshot.served.embeddings.doc_ids[place]
        assert self.added is not None
        return self.added.id(place - len(self.trained))


def _ranked(
    places: npt.NDArray[np.int64], scores: npt.NDArray[np.float64], mode: SearchMode
) -> list[tuple[int, float]]:
    """Documents, best first, and their scores; those by words as a share of the best one's."""
    if mode == "words" and len(scores):
        scores = scores / max(float(scores[0]), 1e-9)
    return [*zip(places.tolist(), scores.tolist(), strict=True)]


def _key(value: Any) -> bytes:
    """A value of a field, to be compared; whatever orjson does not take has a text of its own."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return orjson.dumps(repr(value))


def _answered(snapshot: Snapshot, store: Store, wanted: SearchRequest, text: str) -> dict[str, Any]:
    """The answer, without what the request includes of the documents."""
    served = snapshot.served
    search = served.embeddings.document_search
    try:
        mode = _mode(wanted, snapshot)
        if wanted.passage_words is not None and not search.has_texts:
            raise ConfigError("passages need texts, which the model does not keep; train with --keep-text")
    except ConfigError as error:
        raise Problem("invalid-request", str(error), errors=[]) from None
    documents = Documents.of(snapshot, store, wanted)
    try:
        facets = {name: documents.facets(name) for name in wanted.facets}
        question = search.question(text)
        ranked = documents.best(question, wanted.k, mode)
        neighbors = documents.found(ranked, question.vector, wanted.k, wanted.min_score)
        if wanted.passage_words is not None:
            for neighbor, whole in zip(neighbors, _texts(snapshot, store, neighbors), strict=True):
                neighbor["passage"] = search.passage(question, whole, wanted.passage_words)._asdict()
    except ConfigError as error:
        raise Problem("invalid-filter", str(error)) from None
    except ModelError as error:
        raise damaged_texts(error) from None
    content: dict[str, Any] = {"target": "documents", "mode": mode, "neighbors": neighbors}
    content |= {"composed": True} if question.composed and mode != "words" else {}
    return content | ({"facets": facets} if facets else {}) | {"model": served.reference}


def _texts(snapshot: Snapshot, store: Store, neighbors: Sequence[Mapping[str, Any]]) -> list[str]:
    """The texts of found documents; empty for one that was deleted after the search."""
    added = store.get_many([one["id"] for one in neighbors if one["source"] == "added"])
    texts: list[str] = []
    for one in neighbors:
        if one["source"] == "added":
            texts.append(added[one["id"]].text if one["id"] in added else "")
        else:
            kept = snapshot.served.kept_document(one["id"])
            texts.append((kept[0] if kept is not None else None) or "")
    return texts

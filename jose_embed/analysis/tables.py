"""A model's figures as tables: for people in Markdown, for programs as plain values.

Each ``*_table`` function scores one model by :mod:`jose_embed.analysis.measures`; :func:`report` makes all of
them that it is given data for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from jose_embed.analysis import measures as evaluation
from jose_embed.analysis.gold_sets import (
    AnalogyQuestion,
    read_analogies,
    read_labels,
    read_scored_pairs,
    read_search_queries,
)
from jose_embed.analysis.measures import Spread
from jose_embed.errors import ConfigError, CorpusError
from jose_embed.model.search import SearchMode, chosen_mode

if TYPE_CHECKING:
    from jose_embed.model.embeddings import Embeddings

Cell: TypeAlias = str | int | float | Spread
PathLike: TypeAlias = str | Path


@dataclass(frozen=True)
class Table:
    """A table of results; its ``repr`` is the table.

    Args:
        title: The title.
        columns: The names of the columns; the first column is text.
        rows: One cell for each column. Floats are shares or correlations.
        note: A sentence below the table.

    Example:
        >>> Table("Words", ("set", "Spearman"), [("ws353", 0.6432)])
        ### Words
        <BLANKLINE>
        | set | Spearman |
        |:---|---:|
        | ws353 | .643 |
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""

    def __repr__(self) -> str:
        return self.to_markdown()

    def _repr_markdown_(self) -> str:
        """The table as a notebook shows it."""
        return self.to_markdown()

    def to_markdown(self) -> str:
        """The table with its title, without a line end at its end."""
        lines = [f"### {self.title}", "", _line(self.columns), "|:---|" + "---:|" * (len(self.columns) - 1)]
        lines += [_line([_text(cell) for cell in row]) for row in self.rows]
        return "\n".join([*lines, "", self.note] if self.note else lines)

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON values; a figure with a spread becomes its mean, deviation and values."""
        rows = [dict(zip(self.columns, (_value(cell) for cell in row), strict=True)) for row in self.rows]
        return {"title": self.title, "rows": rows} | ({"note": self.note} if self.note else {})


@dataclass(frozen=True)
class LabelledRows:
    """Document vectors with their classes.

    A document without a known word has no direction of its own. The vector in its place would be a neighbour of many
    documents for no reason, so it is left out.

    Args:
        vectors: float32 (n, dim).
        labels: int64 (n,).
        origin: Where the vectors are from, for titles.
        left_out: int64, the documents without a known word, by their numbers from 0 among all.
    """

    vectors: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    origin: str
    left_out: npt.NDArray[np.int64]

    @property
    def note(self) -> str:
        """A note about documents that are not among the rows; empty if all are."""
        n = len(self.left_out)
        return f"{n:,} documents without a known word are left out." if n else ""


def labelled_rows(model: Embeddings, labels: PathLike, texts: Sequence[str] | None = None) -> LabelledRows:
    """The model's trained document vectors, or inferred ones of given texts, with the classes of a file.

    Args:
        model: A trained model.
        labels: A file with one label per line, in the order of the documents, also of those that are left out.
        texts: Documents to infer; the trained vectors if omitted.

    Raises:
        ConfigError: as many labels as documents there must be, and documents that the model keeps.
        CorpusError: the file cannot be used.
    """
    if texts is None:
        model.require_documents()
    classes = read_labels(labels)
    n_documents = model.n_docs if texts is None else len(texts)
    if len(classes) != n_documents:
        whose = "the model has" if texts is None else "there are"
        raise ConfigError(
            f"{labels}: {len(classes):,} labels, but {whose} {n_documents:,} documents; one line for each"
        )
    if texts is None:
        vectors, known, origin = model.doc_vectors, model.known_documents, "trained vectors"
    else:
        (vectors, known), origin = model.infer_flagged(texts), "inferred vectors"
    return LabelledRows(vectors[known], classes[known], origin, np.flatnonzero(~known))


def word_similarity_table(model: Embeddings, files: Sequence[PathLike]) -> Table:
    """Word similarity, one row per file of scored pairs.

    Raises:
        CorpusError: a file that cannot be used.
        MissingExtraError: SciPy is not installed.
    """
    rows = []
    for file in files:
        pairs = [
            pair._replace(first=_spelled(model, pair.first), second=_spelled(model, pair.second))
            for pair in read_scored_pairs(file)
        ]
        words, vectors = model.words, model.center_vectors
        if model.subwords is not None:  # all pairs count: unknown words are composed
            words = [word for word in dict.fromkeys(w for pair in pairs for w in pair[:2]) if model.has_vector(word)]
            vectors = np.array([model.vector_of(word) for word in words], np.float32).reshape(-1, model.dim)
        score = evaluation.word_similarity(words, vectors, pairs)
        rows.append((Path(file).name, score.spearman, score.n_pairs, score.coverage))
    return Table("Word similarity", ("set", "Spearman", "pairs", "coverage"), rows)


def analogy_table(model: Embeddings, files: Sequence[PathLike], *, max_rank: int | None = None) -> Table:
    """Analogies by 3CosAdd, one row per section and one for all of a file.

    Args:
        model: A trained model.
        files: Files of questions.
        max_rank: Only the most frequent words ask and answer; None takes the whole vocabulary.

    Raises:
        CorpusError: a file that cannot be used.
    """
    words, vectors = model.words[:max_rank], model.center_vectors[:max_rank]
    rows = []
    for file in files:
        questions = [
            AnalogyQuestion(question.section, *(_spelled(model, word) for word in question[1:]))
            for question in read_analogies(file)
        ]
        scores = evaluation.analogy(words, vectors, questions)
        prefix = f"{Path(file).name}: " if len(files) > 1 else ""
        rows += [
            (prefix + section, score.accuracy, score.n_questions, score.n_scored / score.n_questions)
            for section, score in scores.items()
        ]
    return Table("Analogies, 3CosAdd", ("section", "accuracy", "questions", "coverage"), rows)


def _spelled(model: Embeddings, word: str) -> str:
    """A word of a gold set in the spelling of the vocabulary."""
    return model.matched_word(word) or word


def sentence_table(model: Embeddings, files: Sequence[PathLike]) -> Table:
    """Sentence similarity of inferred vectors, one row per file of scored pairs.

    Raises:
        CorpusError: a file that cannot be used.
        MissingExtraError: SciPy is not installed.
    """
    rows = []
    for file in files:
        pairs = read_scored_pairs(file)
        first = _inferred(model, [pair.first for pair in pairs])
        second = _inferred(model, [pair.second for pair in pairs])
        score = evaluation.sts(first, second, [pair.score for pair in pairs])
        rows.append((Path(file).name, score.spearman, score.n_pairs, score.coverage))
    return Table("Sentence similarity, inferred vectors", ("set", "Spearman", "pairs", "coverage"), rows)


def search_table(model: Embeddings, files: Sequence[PathLike], *, mode: SearchMode | None = None) -> Table:
    """Search among the trained documents by questions, one row for each file of these and each way to search.

    Args:
        model: The model.
        files: Files of questions.
        mode: The way to search; by default all that the model has, which are more where texts are kept.

    Raises:
        ConfigError: the model keeps no document vectors, or no texts that the mode needs.
        CorpusError: a file that cannot be used, or names a document that the model does not have.
        MissingExtraError: scikit-learn is not installed.
    """
    model.require_documents()
    search = model.document_search
    modes = ("hybrid", "vector", "words") if mode is None and search.has_texts else (mode or "vector",)
    rows = []
    for file in files:
        queries = read_search_queries(file)
        relevant = [[_document(model, file, id) for id in query.relevant] for query in queries]
        questions = [search.question(query.text) for query in queries]
        for way in modes:
            chosen = chosen_mode(way, search.has_texts)
            asked = (
                None if chosen == "vector" and one.vector is None else search.scores(one, chosen) for one in questions
            )
            score = evaluation.ranking(asked, relevant)
            rows.append((Path(file).name, way, score.average_precision, score.ndcg, score.n_queries, score.coverage))
    return Table("Search", ("set", "mode", "average precision", "nDCG@10", "queries", "coverage"), rows)


def classification_table(
    documents: LabelledRows,
    *,
    methods: Sequence[evaluation.ClassifyMethod] = ("knn", "logistic"),
    n_train: int | None = None,
    folds: int = 10,
) -> Table:
    """Accuracy and macro F1, one row per method; arguments as in :func:`jose_embed.analysis.measures.classify`.

    ``n_train`` counts all documents, including those that were left out, so the split is that of the file.

    Raises:
        ConfigError: a split or folds that the rows do not allow.
        MissingExtraError: scikit-learn is not installed.
    """
    titles = {"knn": "3 nearest neighbours", "logistic": "logistic regression"}
    n_rows = None if n_train is None else n_train - int(np.count_nonzero(documents.left_out < n_train))
    rows = []
    for method in methods:
        score = evaluation.classify(documents.vectors, documents.labels, n_train=n_rows, folds=folds, method=method)
        rows.append((titles[method], score.accuracy, score.macro_f1))
    split = f"{folds} folds, mean ± deviation over them"
    if n_train is not None:
        split = f"first {n_train:,} documents train"
    title = f"Classification of {len(documents.labels):,} documents, {documents.origin}, {split}"
    return Table(title, ("method", "accuracy", "macro F1"), rows, documents.note)


def clustering_table(
    documents: LabelledRows,
    *,
    methods: Sequence[evaluation.ClusterMethod] = ("kmeans", "spherical"),
    n_clusters: int | None = None,
    n_seeds: int = 3,
) -> Table:
    """Agreement of clusters and classes, one row per method, see :func:`~jose_embed.analysis.measures.cluster`.

    Raises:
        ConfigError: more clusters than rows.
        MissingExtraError: scikit-learn is not installed.
    """
    titles = {"kmeans": "k-means", "spherical": "spherical k-means"}
    rows = []
    for method in methods:
        score = evaluation.cluster(
            documents.vectors, documents.labels, method=method, n_clusters=n_clusters, seeds=range(n_seeds)
        )
        rows.append((titles[method], score.nmi, score.ari, score.purity, score.mi))
    n_classes = len(np.unique(documents.labels))
    title = (
        f"Clusters of {len(documents.labels):,} documents, {documents.origin}: {n_clusters or n_classes} clusters, "
        f"{n_classes} classes, mean ± deviation over {n_seeds} seeds"
    )
    return Table(title, ("method", "NMI", "ARI", "purity", "MI (nats)"), rows, documents.note)


def report(
    model: Embeddings,
    *,
    word_pairs: Sequence[PathLike] = (),
    analogies: Sequence[PathLike] = (),
    sentence_pairs: Sequence[PathLike] = (),
    queries: Sequence[PathLike] = (),
    labels: PathLike | None = None,
    texts: Sequence[str] | None = None,
    n_train: int | None = None,
    folds: int = 10,
    n_seeds: int = 3,
) -> list[Table]:
    """Every table there is data for.

    Args:
        model: A trained model.
        word_pairs: Files of scored word pairs.
        analogies: Files of analogy questions.
        sentence_pairs: Files of scored sentence pairs.
        queries: Files of questions to the trained documents.
        labels: A file with the documents' classes.
        texts: Documents to infer and label instead of the trained ones.
        n_train: The first documents that train the classifiers; None takes folds.
        folds: How many folds.
        n_seeds: Seeds of the clusterings.

    Raises:
        ConfigError: no data at all, or settings that the data do not allow.
        CorpusError: a file that cannot be used.
        MissingExtraError: SciPy or scikit-learn is not installed.
    """
    tables = []
    if word_pairs:
        tables.append(word_similarity_table(model, word_pairs))
    if analogies:
        tables.append(analogy_table(model, analogies))
    if labels is not None:
        documents = labelled_rows(model, labels, texts)
        tables.append(classification_table(documents, n_train=n_train, folds=folds))
        tables.append(clustering_table(documents, n_seeds=n_seeds))
    if sentence_pairs:
        tables.append(sentence_table(model, sentence_pairs))
    if queries:
        tables.append(search_table(model, queries))
    if not tables:
        raise ConfigError("nothing to report on; give word pairs, analogies, sentence pairs, questions or labels")
    return tables


def _inferred(model: Embeddings, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    return _where_known(*model.infer_flagged(texts))


def _where_known(vectors: npt.NDArray[np.float32], known: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """The vectors, with rows of NaN for texts without a known word."""
    return np.where(known[:, None], vectors, np.float32(np.nan))


def _document(model: Embeddings, file: PathLike, id: str) -> int:
    row = model.document_index(id)
    if row is None:
        raise CorpusError(
            f"{file}: there is no document {id[:100]!r} among the model's {model.n_docs:,}; ids are the numbers of its "
            "lines, from 1, unless it was given others"
        )
    return row


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _text(cell: Cell) -> str:
    if isinstance(cell, float):
        return "—" if math.isnan(cell) else str(Spread((cell,)))
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def _value(cell: Cell) -> Any:
    if isinstance(cell, Spread):
        return {"mean": cell.mean, "deviation": cell.deviation, "values": list(cell.values)}
    if isinstance(cell, float) and math.isnan(cell):
        return None
    return cell

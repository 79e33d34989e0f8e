"""Readers of gold sets: word pairs, analogies, sentence pairs, questions to documents, labels.

Every reader takes UTF-8 text, plain or compressed, and returns plain tuples or arrays for
:mod:`jose_embed.analysis.measures`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jose_embed.errors import CorpusError
from jose_embed.text.reader import BlockReader
from jose_embed.text.records import TextOptions
from jose_embed.text.sources import find_sources

_LINES = TextOptions(format="text")  # whatever the name of the file


class ScoredPair(NamedTuple):
    """Two words or two sentences, and the similarity that people gave them (any scale; only the order counts)."""

    first: str
    second: str
    score: float


class AnalogyQuestion(NamedTuple):
    """``a`` is to ``b`` as ``c`` is to ``expected``, in the section of that name."""

    section: str
    a: str
    b: str
    c: str
    expected: str


class SearchQuery(NamedTuple):
    """A query and the ids of the relevant documents."""

    text: str
    relevant: tuple[str, ...]


def read_scored_pairs(path: str | Path) -> list[ScoredPair]:
    """Word or sentence pairs with a score, one per line, separated by tabs.

    Lines that are empty or start with ``#`` are skipped; columns after the third are ignored.

    Raises:
        CorpusError: the file cannot be read, holds no pair, or a line is not ``text<TAB>text<TAB>number``.
    """
    pairs = []
    for number, line in _numbered_lines(path):
        fields = line.split("\t")
        if len(fields) < 3:
            raise CorpusError(
                f"{path}:{number}: {len(fields)} column(s); a pair is text<TAB>text<TAB>score, separated by tabs"
            )
        try:
            score = float(fields[2])
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            raise CorpusError(f"{path}:{number}: the score is {fields[2][:100]!r}; it must be a number")
        pairs.append(ScoredPair(fields[0].strip(), fields[1].strip(), score))
    if not pairs:
        raise CorpusError(f"{path}: has no pair; a pair is a line text<TAB>text<TAB>score")
    return pairs


def read_analogies(path: str | Path) -> list[AnalogyQuestion]:
    """Analogy questions: lines of four words, under section lines that start with a colon.

    Source: the format of ``questions-words.txt`` by Mikolov et al., 2013.

    Raises:
        CorpusError: the file cannot be read, holds no question, or a line has not four words.
    """
    section = "all"
    questions = []
    for number, line in _numbered_lines(path):
        if line.startswith(":"):
            section = line[1:].strip() or "all"
            continue
        words = line.split()
        if len(words) != 4:
            raise CorpusError(f"{path}:{number}: {len(words)} word(s); a question has four: a b c expected")
        questions.append(AnalogyQuestion(section, *words))
    if not questions:
        raise CorpusError(f"{path}: no question in it; a question is a line of four words")
    return questions


def read_search_queries(path: str | Path) -> list[SearchQuery]:
    """Questions to documents, one per line: the question, a tab, and the ids of all relevant documents.

    Ids are separated by spaces; those of a model are the numbers of its lines, from 1, unless it was given others.
    Lines that are empty or start with ``#`` are skipped; a repeated id counts once.

    Raises:
        CorpusError: the file cannot be read, holds no question, or a line is not ``text<TAB>id id ...``.
    """
    queries = []
    for number, line in _numbered_lines(path):
        text, tab, ids = line.partition("\t")
        relevant = tuple(dict.fromkeys(ids.split()))
        if not tab or not text.strip() or not relevant:
            raise CorpusError(
                f"{path}:{number}: {line[:100]!r}; a question is text<TAB>id id ..., the ids of all relevant documents"
            )
        queries.append(SearchQuery(text.strip(), relevant))
    if not queries:
        raise CorpusError(f"{path}: no question in it; a question is a line text<TAB>id id ...")
    return queries


def read_labels(path: str | Path) -> npt.NDArray[np.int64]:
    """One label per line, in the order of the documents, as class numbers 0, 1, ...

    Labels may be any text. Whole numbers are sorted as numbers, everything else as text.

    Returns:
        int64 (n_documents,).

    Raises:
        CorpusError: the file cannot be read, is empty, or a line in it is empty.
    """
    labels: list[str] = []
    for number, line in _numbered_lines(path, keep_all=True):
        if not line:
            raise CorpusError(f"{path}:{number}: an empty line; every document needs its label")
        labels.append(line)
    if not labels:
        raise CorpusError(f"{path}: no label in it; write one label per line, in the order of the documents")
    try:
        _, classes = np.unique(np.array([int(label) for label in labels], dtype=np.int64), return_inverse=True)
    except (ValueError, OverflowError):
        _, classes = np.unique(np.array(labels), return_inverse=True)
    return classes.astype(np.int64)


def _numbered_lines(path: str | Path, *, keep_all: bool = False) -> Iterator[tuple[int, str]]:
    """The stripped lines with their numbers from 1; empty ones and comments only with ``keep_all``."""
    n_lines = 0
    with BlockReader(find_sources(path), whole_lines=True, options=_LINES) as reader:
        for block in reader:
            for number, data in enumerate(block.data.split(b"\n")[:-1], start=n_lines + 1):
                line = data.decode().strip("\r\n ")
                if keep_all or (line and not line.startswith("#")):
                    yield number, line
                n_lines = number
            if reader.reports[-1].invalid_lines:
                raise CorpusError(
                    f"{path}: is not UTF-8 text (line {reader.reports[-1].first_invalid}); convert it first"
                )

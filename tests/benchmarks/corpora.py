"""The development corpora: texts, labels and gold sets, in the order in which everything is measured.

Three of the corpora are sorted by class in their files. A trainer that visits documents in file order then leaks the
class into the document vectors, so documents are shuffled once, with seed 0, before any program sees them, and their
vectors are put back into file order before they are scored. ``sorted_by_class`` asks for the file order on purpose.

The files are not part of the repository. They are looked for in ``../shared/data`` beside the checkout, or in the
directory that the environment variable ``JOSE_SHARED_DATA`` names.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jose_embed.analysis.gold_sets import ScoredPair, SearchQuery, read_labels, read_scored_pairs, read_search_queries

DATA = Path(os.environ.get("JOSE_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
CACHE = Path(os.environ.get("JOSE_BENCHMARK_CACHE", Path(__file__).resolve().parent / ".cache"))

ENGLISH_PAIRS = ("ws353", "men", "simlex999")


@dataclass(frozen=True)
class Description:
    """What is known of a corpus before it is read."""

    title: str
    n_train: int | None = None  # the first rows that are the training part; None means 10 folds
    epochs: int = 10
    pairs: tuple[str, ...] = ()
    labelled: bool = True
    sentences: bool = False  # whether sentence similarity is scored with the vectors trained on it
    searched: bool = False  # whether there are questions to its documents


KNOWN = {
    "20news": Description("20 Newsgroups", n_train=11_314),
    "moviereview": Description("movie reviews"),
    "bbc": Description("BBC news"),
    "r8": Description("Reuters R8", n_train=5_485),
    "zh": Description("Chinese shopping reviews, jieba tokens", pairs=("zh-wordsim240",)),
    "wiki": Description(
        "English Wikipedia, 27.6 M words", epochs=5, pairs=ENGLISH_PAIRS, labelled=False, sentences=True
    ),
}

# Parts of other corpora: the whole, and that every so many-th document of it is taken. Measured where they are named.
PARTS = {
    "wiki4": (
        "wiki",
        4,
        Description("English Wikipedia, a quarter of it", epochs=5, pairs=ENGLISH_PAIRS, labelled=False),
    ),
}

# Corpora on which nothing was chosen, of texts from eight words to 230; README.md says where they come from. They are
# looked for beside the others, and measured where they are named.
HELD_OUT = {
    "imdb": Description("IMDb reviews", n_train=25_000),
    "ohsumed": Description("Ohsumed, medical abstracts", n_train=3_357),
    "webkb": Description("WebKB, pages of universities, stemmed", n_train=2_803),
    "agnews": Description("AG news, test part"),
    "mr": Description("sentences of movie reviews", n_train=7_108),
    "stackoverflow": Description("StackOverflow, titles of questions"),
    "cranfield": Description("Cranfield, abstracts on aerodynamics", labelled=False, searched=True),
    "cisi": Description("CISI, abstracts on libraries", labelled=False, searched=True),
    "npl": Description("NPL, abstracts on physics", labelled=False, searched=True),
    "cacm": Description("CACM, titles and abstracts on computers", labelled=False, searched=True),
}


@dataclass(frozen=True, eq=False)
class Corpus:
    """One corpus as programs get it: tokens separated by single spaces, one document per line.

    Args:
        name: Key in :data:`KNOWN` or :data:`HELD_OUT`.
        description: What is known of it.
        texts: The documents in file order.
        labels: int64 (n,), classes in file order; None where the corpus has none.
        order: int64 (n,): line ``i`` of the written file is document ``order[i]``.
    """

    name: str
    description: Description
    texts: Sequence[str]
    labels: npt.NDArray[np.int64] | None
    order: npt.NDArray[np.int64]

    def lines(self) -> list[str]:
        """The documents in the order of the written file."""
        return [self.texts[row] for row in self.order]

    def write(self) -> Path:
        """A plain text file of :meth:`lines`, made once and kept in the cache folder."""
        digest = hashlib.sha256(self.order.tobytes() + str(len(self.texts)).encode()).hexdigest()[:8]
        path = cache_folder() / f"{self.name}.{digest}.txt"
        if not path.exists():
            partial = path.with_suffix(f".{os.getpid()}")
            partial.write_text("".join(line + "\n" for line in self.lines()), encoding="utf-8")
            partial.replace(path)
        return path

    def in_file_order(self, vectors: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Rows of the written file, (n, dim), put back into the order of ``texts`` and ``labels``."""
        restored = np.empty_like(vectors)
        restored[self.order] = vectors
        return restored

    def sorted_by_class(self) -> Corpus:
        """The same documents with the classes one after the other."""
        assert self.labels is not None
        return dataclasses.replace(self, order=np.argsort(self.labels, kind="stable"))

    def reordered(self, seed: int) -> Corpus:
        """The same documents in another order for every seed but 1; a file sorted by class stays sorted.

        For programs whose starting vectors and draws are the same in every run: another order is another draw for
        each word.
        """
        if seed == 1:
            return self
        order = np.random.default_rng(seed).permutation(self.order)
        if self.labels is not None and (np.diff(self.labels[self.order]) >= 0).all():
            order = order[np.argsort(self.labels[order], kind="stable")]
        return dataclasses.replace(self, order=order)

    def training_part(self) -> Corpus:
        """Only the documents of the training part, shuffled."""
        n_train = self.description.n_train
        assert n_train is not None
        assert self.labels is not None
        return dataclasses.replace(
            self, texts=self.texts[:n_train], labels=self.labels[:n_train], order=shuffled_order(n_train)
        )

    def every(self, step: int) -> Corpus:
        """Every ``step``-th document, without a training part."""
        labels = None if self.labels is None else self.labels[::step]
        texts = self.texts[::step]
        order = np.arange(len(texts)) if labels is None else shuffled_order(len(texts))
        description = dataclasses.replace(self.description, n_train=None)
        name = f"{self.name}.{step}"
        return dataclasses.replace(self, name=name, description=description, texts=texts, labels=labels, order=order)

    def search_queries(self) -> list[SearchQuery]:
        """Questions to the documents; ids are the lines of the file, from 1."""
        return read_search_queries(DATA / "search" / f"{self.name}.queries.tsv")

    def word_pairs(self) -> dict[str, list[ScoredPair]]:
        """The word similarity sets that belong to the corpus's language."""
        return {name: read_scored_pairs(DATA / "wordsim" / f"{name}.tsv") for name in self.description.pairs}


def shuffled_order(n_documents: int) -> npt.NDArray[np.int64]:
    """The one order in which everything is measured."""
    return np.random.default_rng(0).permutation(n_documents)


def load(name: str) -> Corpus:
    """Read one corpus; the Chinese one is cut into words by jieba and kept so in the cache folder."""
    if name in PARTS:
        whole, step, description = PARTS[name]
        return dataclasses.replace(load(whole).every(step), name=name, description=description)
    description = (KNOWN | HELD_OUT)[name]
    with gzip.open(DATA / f"{name}.txt.gz", "rt", encoding="utf-8", newline="\n") as file:
        texts = file.read().removesuffix("\n").split("\n")
    if name == "zh":
        texts = _cut_chinese(texts)
    labels = read_labels(DATA / f"{name}.label.txt") if description.labelled else None
    assert labels is None or len(labels) == len(texts)
    order = shuffled_order(len(texts)) if description.labelled else np.arange(len(texts))
    return Corpus(name, description, texts, labels, order)


def sentence_pairs() -> list[ScoredPair]:
    """The test part of the STS benchmark, tokenised as the corpora are."""
    return read_scored_pairs(DATA / "sts" / "sts-test.tok.tsv")


def cache_folder() -> Path:
    """The folder of everything that can be made again; git ignores it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    ignore = CACHE / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="utf-8")
    return CACHE


def _cut_chinese(texts: Sequence[str]) -> list[str]:
    kept = cache_folder() / "zh.jieba.txt"
    if not kept.exists():
        import jieba

        jieba.setLogLevel("ERROR")
        cut = [" ".join(word for word in jieba.lcut(text) if not word.isspace()) for text in texts]
        kept.write_text("".join(line + "\n" for line in cut), encoding="utf-8")
    return kept.read_text(encoding="utf-8").removesuffix("\n").split("\n")

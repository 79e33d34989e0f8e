"""The programs that are measured, ours among them, behind one shape: train on a written corpus, give vectors.

Every peer gets the same dimension, window, minimum count and epochs. What else it has stays at its own defaults, or at
what its makers advise for document vectors:

* ``reference``: the paper's own program. Nothing of it is here; ``JOSE_REFERENCE`` names an executable that its
  makefile built, ``JOSE_REFERENCE_OFAST`` one built with -Ofast. It takes no seed and begins every run alike, so each
  seed is another order of the file. It cannot infer: a new text is the mean of its words' vectors.
* ``doc2vec``: gensim's Doc2Vec with ``dm=0, dbow_words=1`` and 5 negatives.
* ``word2vec``: gensim's Word2Vec, skip-gram, 5 negatives; a document is the mean of its words' vectors.
* ``tfidf``: tf-idf with sublinear counts, words in at least 5 and at most half of the documents, truncated SVD.
* ``wordllama``: WordLlama, static vectors of 256 dimensions, distilled from language models, that come inside its
  package; nothing is trained. ``JOSE_WORDLLAMA`` names the Python of an environment that has the package.
* ``ours``: jose_embed with its default recipe; ``ours:NAME`` with the preset of that name, ``ours:name=value,...`` with
  other settings. ``ours:mode=hybrid`` (``vector``, ``words``) keeps the texts and searches as ``jose search --mode``
  does; ``ours:mode=okapi`` by BM25 of the words as they are written, without their inflections.
"""

from __future__ import annotations

import ast
import logging
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from corpora import Corpus

Vectors = npt.NDArray[np.float32]

TITLES = {
    "reference": "reference program",
    "reference-ofast": "reference program (-Ofast)",
    "doc2vec": "gensim Doc2Vec",
    "word2vec": "gensim Word2Vec, averaged",
    "tfidf": "tf-idf + SVD",
    "wordllama": "WordLlama, pretrained, 256 dimensions",
    "ours": "**jose-embed**",
}
REFERENCE_VARIABLES = {"reference": "JOSE_REFERENCE", "reference-ofast": "JOSE_REFERENCE_OFAST"}
VARIABLES = REFERENCE_VARIABLES | {"wordllama": "JOSE_WORDLLAMA"}

# Run by the other Python: texts in a file, a line each, become rows of a NumPy file. The package has its tokenizer in a
# folder of another name than it looks in, which is also that of its cache; so its own folder is the cache.
_WORDLLAMA = """
import logging, pathlib, sys
import numpy, wordllama
logging.disable(logging.CRITICAL)
model = wordllama.WordLlama.load(cache_dir=pathlib.Path(wordllama.__file__).parent, disable_download=True)
texts = pathlib.Path(sys.argv[1]).read_text(encoding="utf-8").split("\\n")
numpy.save(sys.argv[2], numpy.nan_to_num(model.embed(texts, batch_size=8)))
"""


@dataclass(frozen=True)
class Settings:
    """What all systems share."""

    dim: int = 100
    window: int = 5
    min_count: int = 5
    epochs: int = 10
    threads: int = 2
    seed: int = 1


@dataclass
class Clock:
    """Seconds on the wall and on all processors together."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0


@dataclass(frozen=True)
class Trained:
    """What a system made of a corpus.

    Args:
        doc_vectors: float32 (n_documents, dim), in the order of the written file; None where it makes none.
        words: The words of ``word_vectors``; empty where it makes none.
        word_vectors: float32 (n_words, dim).
        infer: Vectors float32 (n, dim) of new texts, all zero where a text has none.
        infers_like_training: Whether ``infer`` estimates what ``doc_vectors`` are, so that the two may be compared.
        clock: What the training took, reading the text included.
        scores: How well each document answers a question, float (n_documents,), in the order of the written file;
            None for a question that cannot be asked. None where vectors are compared.
    """

    doc_vectors: Vectors | None
    words: Sequence[str]
    word_vectors: Vectors
    infer: Callable[[Sequence[str]], Vectors]
    clock: Clock = field(default_factory=Clock)
    infers_like_training: bool = True
    scores: Callable[[str], npt.NDArray[Any] | None] | None = None


def title(system: str) -> str:
    """How a system is called in tables."""
    name, _, preset = system.partition(":")
    return f"{TITLES[name]} ({'' if '=' in preset else 'preset '}{preset})" if preset else TITLES[name]


def missing(system: str) -> str | None:
    """Why a system cannot run here, in one line; None where it can."""
    if system in VARIABLES:
        variable = VARIABLES[system]
        path = os.environ.get(variable)
        if not path:
            return f"{TITLES[system]} left out: {variable} does not name an executable"
        if not os.access(path, os.X_OK):
            return f"{TITLES[system]} left out: {variable} is {path}, which is no executable"
    return None


def present(systems: Iterable[str]) -> list[str]:
    """Those that can run here; a line is printed for each that cannot."""
    reasons = {system: missing(system) for system in systems}
    for reason in filter(None, reasons.values()):
        print(reason)
    return [system for system, reason in reasons.items() if reason is None]


def version(system: str) -> str:
    """The version that belongs beside a peer's figures."""
    if system in {"doc2vec", "word2vec"}:
        import gensim

        return f"gensim {gensim.__version__}"
    if system == "tfidf":
        import sklearn

        return f"scikit-learn {sklearn.__version__}"
    if system == "wordllama":
        code = "import importlib.metadata as m; print(m.version('wordllama'))"
        return subprocess.run(
            [os.environ["JOSE_WORDLLAMA"], "-c", code], check=True, capture_output=True, text=True
        ).stdout.strip()
    return "2020, an order of the file for each seed" if system in REFERENCE_VARIABLES else ""


def train(system: str, corpus: Corpus, settings: Settings, *, documents: bool = True) -> Trained:
    """Train one system on a corpus.

    Args:
        system: A name of :data:`TITLES`, or ``ours:PRESET``.
        corpus: What to train on; it is written to a file first, outside the measured time.
        settings: The shared settings.
        documents: Whether document vectors are wanted; the reference program writes them only then.
    """
    name, _, recipe = system.partition(":")
    path = corpus.write()
    if name in REFERENCE_VARIABLES:
        return _reference(os.environ[REFERENCE_VARIABLES[name]], path, settings, documents=documents)
    if name == "doc2vec":
        return _doc2vec(corpus, settings)
    if name == "word2vec":
        return _word2vec(corpus, settings)
    if name == "tfidf":
        return _tfidf(corpus, settings)
    if name == "wordllama":
        return _wordllama(os.environ["JOSE_WORDLLAMA"], corpus, documents=documents)
    if name == "ours":
        return _ours(path, settings, recipe)
    raise ValueError(f"no system is called {system!r}; known are {', '.join(TITLES)} and ours:PRESET")


def recipe_settings(recipe: str) -> dict[str, Any]:
    """What stands behind the colon of ``ours:...`` as keyword arguments; numbers become numbers.

    Example:
        >>> recipe_settings("words"), recipe_settings("doc_method=trained,margin=0.2"), recipe_settings("")
        ({'preset': 'words'}, {'doc_method': 'trained', 'margin': 0.2}, {})
    """
    if "=" not in recipe:
        return {"preset": recipe} if recipe else {}
    settings: dict[str, Any] = {}
    for part in recipe.split(","):
        name, _, text = part.partition("=")
        try:
            settings[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            settings[name] = text
    return settings


def _ours(path: Path, settings: Settings, recipe: str) -> Trained:
    import jose_embed

    options: dict[str, Any] = {"epochs": settings.epochs, "seed": settings.seed, "workers": settings.threads}
    options |= recipe_settings(recipe)
    mode = options.pop("mode", None)
    with measured() as clock:
        model = jose_embed.train(path, tokenizer="whitespace", keep_text=mode is not None, **options)
    if model.dim != settings.dim:
        raise ValueError(f"our default has {model.dim} dimensions, the peers have {settings.dim}; pass --dim")

    def infer(texts: Sequence[str]) -> Vectors:
        return model.infer_flagged(texts).vectors

    def scores(text: str) -> npt.NDArray[Any] | None:
        question = model.document_search.question(text, inflected=mode != "okapi")
        if mode == "vector" and question.vector is None:
            return None
        return model.document_search.scores(question, "words" if mode == "okapi" else mode)

    asked = None if mode is None else scores
    return Trained(model.doc_vectors, model.words, model.center_vectors, infer, clock, scores=asked)


def _reference(executable: str, path: Path, settings: Settings, *, documents: bool) -> Trained:
    # The program copies paths into 100 bytes without a check, so it runs where all names are short.
    with tempfile.TemporaryDirectory(prefix="jose-reference-") as folder:
        os.symlink(path, Path(folder) / "text")
        command = [executable, "-train", "text", "-word-output", "words"]
        command += ["-doc-output", "documents"] if documents else []
        command += ["-size", settings.dim, "-window", settings.window, "-min-count", settings.min_count]
        command += ["-iter", settings.epochs, "-threads", settings.threads, "-debug", 0]
        with measured() as clock:
            subprocess.run([str(part) for part in command], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        words, word_vectors = _read_text_vectors(Path(folder) / "words")
        doc_vectors = _read_text_vectors(Path(folder) / "documents")[1] if documents else None
    return Trained(doc_vectors, words, word_vectors, _averager(words, word_vectors), clock, infers_like_training=False)


def _wordllama(python: str, corpus: Corpus, *, documents: bool) -> Trained:
    def infer(texts: Sequence[str]) -> Vectors:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "texts.txt", Path(folder) / "vectors.npy"
            source.write_text("\n".join(texts), encoding="utf-8")
            subprocess.run([python, "-c", _WORDLLAMA, str(source), str(target)], check=True)
            rows = np.load(target).astype(np.float64)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        return np.asarray(rows / np.where(norms == 0, 1, norms), np.float32)

    with measured() as clock:
        vectors = infer(corpus.lines()) if documents else None
    return Trained(vectors, (), np.empty((0, 256), np.float32), infer, clock)


def _doc2vec(corpus: Corpus, settings: Settings) -> Trained:
    from gensim.models.doc2vec import Doc2Vec, TaggedDocument

    _quiet_gensim()
    lines = corpus.lines()
    with measured() as clock:
        tagged = [TaggedDocument(line.split(), [row]) for row, line in enumerate(lines)]
        model = Doc2Vec(
            tagged,
            dm=0,
            dbow_words=1,
            negative=5,
            vector_size=settings.dim,
            window=settings.window,
            min_count=settings.min_count,
            epochs=settings.epochs,
            workers=settings.threads,
            seed=settings.seed,
        )

    def infer(texts: Sequence[str]) -> Vectors:
        rows = [model.infer_vector(text.split(), epochs=settings.epochs) for text in texts]
        return np.asarray(rows, dtype=np.float32)

    return Trained(model.dv.vectors, model.wv.index_to_key, model.wv.vectors, infer, clock)


def _word2vec(corpus: Corpus, settings: Settings) -> Trained:
    from gensim.models import Word2Vec

    _quiet_gensim()
    path = corpus.write()
    with measured() as clock:
        model = Word2Vec(
            corpus_file=str(path),
            sg=1,
            negative=5,
            vector_size=settings.dim,
            window=settings.window,
            min_count=settings.min_count,
            epochs=settings.epochs,
            workers=settings.threads,
            seed=settings.seed,
        )
    words, vectors = model.wv.index_to_key, model.wv.vectors
    average = _averager(words, vectors)
    doc_vectors = average(corpus.lines()) if corpus.description.labelled else None
    return Trained(doc_vectors, words, vectors, average, clock)


def _tfidf(corpus: Corpus, settings: Settings) -> Trained:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    lines = corpus.lines()
    with measured() as clock:
        weigher = TfidfVectorizer(
            token_pattern=r"\S+", lowercase=False, sublinear_tf=True, min_df=settings.min_count, max_df=0.5
        )
        weighted = weigher.fit_transform(lines)
        projector = TruncatedSVD(settings.dim, random_state=settings.seed)
        vectors = projector.fit_transform(weighted).astype(np.float32)

    def infer(texts: Sequence[str]) -> Vectors:
        return np.asarray(projector.transform(weigher.transform(texts)), dtype=np.float32)

    words = list(weigher.get_feature_names_out())
    return Trained(vectors, words, projector.components_.T.astype(np.float32), infer, clock)


def _averager(words: Sequence[str], vectors: Vectors) -> Callable[[Sequence[str]], Vectors]:
    """Means of word vectors; all zero for a text without a known word."""
    index = {word: row for row, word in enumerate(words)}

    def average(texts: Sequence[str]) -> Vectors:
        means = np.zeros((len(texts), vectors.shape[1]), dtype=np.float32)
        for row, text in enumerate(texts):
            known = [index[word] for word in text.split() if word in index]
            if known:
                means[row] = vectors[known].mean(axis=0)
        return means

    return average


def _read_text_vectors(path: Path) -> tuple[list[str], Vectors]:
    with open(path, encoding="utf-8", errors="replace") as file:
        n_rows, dim = (int(number) for number in file.readline().split())
        names = []
        vectors = np.empty((n_rows, dim), dtype=np.float32)
        for row, line in enumerate(file):
            name, *numbers = line.rstrip("\n ").split(" ")
            names.append(name)
            vectors[row] = numbers
    return names, vectors


def _quiet_gensim() -> None:
    logging.getLogger("gensim").setLevel(logging.ERROR)


@contextmanager
def measured() -> Iterator[Clock]:
    """The time of the block; the figures are there after it."""
    clock = Clock()
    start, cpu_start = time.perf_counter(), _cpu_seconds()
    yield clock
    clock.seconds = time.perf_counter() - start
    clock.cpu_seconds = _cpu_seconds() - cpu_start


def _cpu_seconds() -> float:
    usages = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)

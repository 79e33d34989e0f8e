"""What smaller models, given vectors, and going on with more text cost and bring.

    python tests/benchmarks/given_vectors.py bbc
    python tests/benchmarks/given_vectors.py 20news --continued --seeds 5
    python tests/benchmarks/given_vectors.py wiki --continued --parts 10

Prints tables, in Markdown; kNN(3) and k-means NMI (three seeds) of all documents.

- Without an option: smaller models, then a training on a twentieth of the text, alone and from the vectors that the
  rest of the text gives, at several pulls. One training seed.
- ``--continued``: a training on all text; one on four fifths and then on the last fifth, without and with the old text;
  with ``--parts``, a chain of equal parts. Processor seconds of the last step, with one worker. Then over the seeds:
  mean and spread (standard deviation), the share of the time of a training on all text, and the difference from it with
  its standard error; spread and error need two seeds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import corpora
import numpy as np
import numpy.typing as npt

import jose_embed
from jose_embed.adapters.importing import import_vectors
from jose_embed.analysis import measures
from jose_embed.analysis.gold_sets import read_scored_pairs
from jose_embed.model.embeddings import Embeddings
from jose_embed.model.exchange import export
from jose_embed.model.smaller import smaller
from jose_embed.text.encode import encode_texts
from jose_embed.text.kept import write_encoded


def quality(model: Embeddings, corpus: corpora.Corpus) -> str:
    """kNN, NMI and MEN as cells of a table."""
    assert corpus.labels is not None
    vectors = model.infer_flagged(corpus.texts).vectors
    knn = measures.classify(vectors, corpus.labels, n_train=corpus.description.n_train)
    nmi = measures.cluster(vectors, corpus.labels, seeds=range(3))
    pairs = read_scored_pairs(corpora.DATA / "wordsim" / "men.tsv")
    men = measures.word_similarity(model.words, model.center_vectors, pairs)
    return f"{knn} | {nmi} | {men}"


def in_bytes(model: Embeddings) -> Embeddings:
    """The model with the word vectors that an export to int8 keeps."""
    with tempfile.TemporaryDirectory() as folder:
        tables = []
        for table in ("center", "context"):
            export(model, Path(folder) / f"{table}.safetensors", table=table, int8=True)
            counts = dict(zip(model.words, model.counts.tolist(), strict=True))
            tables.append(np.array(import_vectors(Path(folder) / f"{table}.safetensors", counts=counts).center_vectors))
    return Embeddings.from_arrays(
        words=model.words, counts=model.counts, center_vectors=tables[0], context_vectors=tables[1],
        extra_arrays=model.extra_arrays, text={"normalisation": "nfc"},
    )  # fmt: skip


def smaller_models(corpus: corpora.Corpus) -> None:
    """Print both tables of smaller models and given vectors."""
    model = jose_embed.train(documents=corpus.texts, dim=100, progress=False)
    print("| model | numbers per word | kNN(3) | NMI | MEN |\n|---|---|---|---|---|")
    print(f"| whole: {model.n_words:,} words | 100 | {quality(model, corpus)} |")
    for dim in (64, 32, 16):
        print(f"| --dim {dim} | {dim} | {quality(smaller(model, dim=dim), corpus)} |", flush=True)
    for words in (20_000, 10_000, 5_000):
        if words < model.n_words:
            print(f"| --words {words} | 100 | {quality(smaller(model, words=words), corpus)} |", flush=True)
    print(f"| --int8 | 100 bytes | {quality(in_bytes(model), corpus)} |", flush=True)
    few = corpus.texts[::20]
    rest = [text for row, text in enumerate(corpus.texts) if row % 20]
    print("\n| one twentieth of the text | kNN(3) | NMI | MEN |\n|---|---|---|---|")
    print(f"| alone | {quality(jose_embed.train(documents=few, epochs=15, progress=False), corpus)} |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        init = Path(folder) / "rest.jose"
        jose_embed.train(documents=rest, epochs=8, progress=False).save(init)
        for pull in (0, 20, 200, 1e6):
            held = jose_embed.train(documents=few, init=str(init), init_pull=pull, epochs=15, progress=False)
            print(f"| --init-pull {pull:g} | {quality(held, corpus)} |", flush=True)


def figures(model: Embeddings, corpus: corpora.Corpus) -> list[float]:
    """kNN and NMI of the documents' vectors if there are labels, MEN and STS."""
    found = []
    if corpus.labels is not None:
        vectors = corpus.in_file_order(np.array(model.doc_vectors))
        knn = measures.classify(vectors, corpus.labels, n_train=corpus.description.n_train).accuracy.mean
        found = [knn, measures.cluster(vectors, corpus.labels, seeds=range(3)).nmi.mean]
    men = read_scored_pairs(corpora.DATA / "wordsim" / "men.tsv")
    return [*found, measures.word_similarity(model.words, model.center_vectors, men).spearman, sts(model)]


def sts(model: Embeddings) -> float:
    """Spearman of the STS benchmark."""
    pairs = corpora.sentence_pairs()
    first, second = (model.infer_flagged([pair[side] for pair in pairs]).vectors for side in (0, 1))
    return float(measures.sts(first, second, [pair.score for pair in pairs]).spearman)


class Trainings:
    """The trainings of one corpus: prints a line for each, and keeps what the summary needs."""

    def __init__(self, corpus: corpora.Corpus) -> None:
        self.corpus = corpus
        self.columns = ["kNN(3)", "NMI", "MEN", "STS"] if corpus.labels is not None else ["MEN", "STS"]
        self.kept: dict[str, list[list[float]]] = {}  # by training: for each seed its seconds and figures
        print(
            f"| training | seed | CPU seconds | {' | '.join(self.columns)} |\n|---|---|---|{'---|' * len(self.columns)}"
        )

    def train(self, what: str, seed: int, texts: list[str], /, **settings: Any) -> Embeddings:
        """A model; one of all documents is measured."""
        started = time.process_time()
        model = jose_embed.train(documents=texts, workers=1, progress=False, **settings)
        seconds, cells = time.process_time() - started, ""
        if model.n_docs == len(self.corpus.texts):
            found = figures(model, self.corpus)
            self.kept.setdefault(what, []).append([seconds, *found])
            cells = " | ".join(f"{value:.4f}" for value in found)
        print(f"| {what} | {seed} | {seconds:.0f} | {cells} |", flush=True)
        return model

    def summary(self) -> None:
        """Print mean and spread over the seeds, and differences from the first kind of training."""
        print(f"\n| training | seeds | share of time | {' | '.join(self.columns)} |")
        print(f"|---|---|---|{'---|' * len(self.columns)}")
        first = next(iter(self.kept))
        whole = np.array(self.kept[first])
        for what, rows in self.kept.items():
            values = np.array(rows)
            cells = []
            error = np.sqrt(_spread(values) ** 2 / len(values) + _spread(whole) ** 2 / len(whole))
            for column in range(1, values.shape[1]):
                mean, spread = values[:, column].mean(), _spread(values)[column]
                cell = f"{mean:.4f}" if len(rows) == 1 else f"{mean:.4f} ± {spread:.4f}"
                if what != first:
                    difference = mean - whole[:, column].mean()
                    cell += f" ({difference:+.4f}" + (")" if len(rows) == 1 else f", error {error[column]:.4f})")
                cells.append(cell)
            share = values[:, 0].mean() / whole[:, 0].mean()
            print(f"| {what} | {len(rows)} | {share:.2f} | {' | '.join(cells)} |", flush=True)


def _spread(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The standard deviation of each column; NaN for one row."""
    return values.std(0, ddof=1) if len(values) > 1 else np.full(values.shape[1], np.nan)


def continued(corpus: corpora.Corpus, n_seeds: int, n_parts: int) -> None:
    """Print a training on all text beside continued ones."""
    lines = corpus.lines()
    old, new = lines[: len(lines) * 4 // 5], lines[len(lines) * 4 // 5 :]
    trainings = Trainings(corpus)
    epochs = {} if corpus.labels is not None else {"epochs": corpus.description.epochs}
    for seed in range(1, n_seeds + 1):
        settings: dict[str, Any] = {"tokenizer": "whitespace", "seed": seed, **epochs}
        with tempfile.TemporaryDirectory() as folder:
            start, text = Path(folder) / "start.jose", Path(folder) / "text.encoded"
            trainings.train("all", seed, lines, **settings)
            if n_parts > 2:
                parts = np.array_split(np.arange(len(lines)), n_parts)
                options = settings
                for number, part in enumerate(parts, 1):
                    some = [lines[row] for row in part]
                    model = trainings.train(f"part {number} of {n_parts}", seed, some, **options)
                    model.save(start, overwrite=True)
                    options = {"continue_from": str(start)}
                continue
            trainings.train("four fifths", seed, old, **settings).save(start)
            trainings.train("+ a fifth", seed, new, continue_from=str(start))
            with encode_texts(old, tokenizer="whitespace") as encoded:
                write_encoded(encoded, text)
            trainings.train("+ a fifth, with the old text", seed, new, continue_from=str(start), earlier_text=str(text))
    trainings.summary()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Smaller models and given vectors.")
    parser.add_argument("corpus", nargs="?", default="20news")
    parser.add_argument("--continued", action="store_true")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--parts", type=int, default=2)
    options = parser.parse_args()
    corpus = corpora.load(options.corpus)
    if options.continued:
        continued(corpus, options.seeds, options.parts)
    else:
        smaller_models(corpus)


if __name__ == "__main__":
    main()

"""What smaller models and given vectors cost and bring.

    python tests/benchmarks/given_vectors.py bbc
    python tests/benchmarks/given_vectors.py 20news

Prints two tables, in Markdown. One training seed; kNN(3) and k-means NMI (three seeds) of all
documents inferred by the smaller model, MEN of its words. Then a training on a twentieth of the text: alone, and from
the vectors that the rest of the text gives, at several pulls.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import corpora
import numpy as np

import jose_embed
from jose_embed.adapters.importing import import_vectors
from jose_embed.analysis import measures
from jose_embed.analysis.gold_sets import read_scored_pairs
from jose_embed.model.embeddings import Embeddings
from jose_embed.model.exchange import export
from jose_embed.model.smaller import smaller


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


def main() -> None:
    """Print both tables."""
    corpus = corpora.load(sys.argv[1] if len(sys.argv) > 1 else "20news")
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


if __name__ == "__main__":
    main()

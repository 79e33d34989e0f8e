"""What smaller models, given vectors, and going on with more text cost and bring.

    python tests/benchmarks/given_vectors.py bbc
    python tests/benchmarks/given_vectors.py 20news --continued --seeds 5
    python tests/benchmarks/given_vectors.py wiki --continued --parts 10

Prints tables, in Markdown; kNN(3) and k-means NMI (three seeds) of all documents.

- Without an option: smaller models, then a training on a twentieth of the text, alone and from the vectors that the
  rest of the text gives, at several pulls. One training seed.
- ``--continued``: a training on all text; one on four fifths and then on the last fifth, without and with the old text;
  with ``--parts``, a chain of equal parts. Processor seconds of the last step, with one worker.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import corpora
import numpy as np

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


def figures(model: Embeddings, corpus: corpora.Corpus) -> str:
    """kNN and NMI of the documents' vectors if there are labels, MEN and STS, as cells of a table."""
    cells = []
    if corpus.labels is not None:
        vectors = corpus.in_file_order(np.array(model.doc_vectors))
        knn = measures.classify(vectors, corpus.labels, n_train=corpus.description.n_train).accuracy.mean
        cells = [knn, measures.cluster(vectors, corpus.labels, seeds=range(3)).nmi.mean]
    men = read_scored_pairs(corpora.DATA / "wordsim" / "men.tsv")
    cells += [measures.word_similarity(model.words, model.center_vectors, men).spearman, sts(model)]
    return " | ".join(f"{cell:.3f}" for cell in cells)


def sts(model: Embeddings) -> float:
    """Spearman of the STS benchmark."""
    pairs = corpora.sentence_pairs()
    first, second = (model.infer_flagged([pair[side] for pair in pairs]).vectors for side in (0, 1))
    return float(measures.sts(first, second, [pair.score for pair in pairs]).spearman)


def continued(corpus: corpora.Corpus, n_seeds: int, n_parts: int) -> None:
    """Print a training on all text beside continued ones."""
    lines = corpus.lines()
    old, new = lines[: len(lines) * 4 // 5], lines[len(lines) * 4 // 5 :]
    columns = (["kNN(3)", "NMI"] if corpus.labels is not None else []) + ["MEN", "STS"]
    print(f"| training | seed | CPU seconds | {' | '.join(columns)} |\n|---|---|---|{'---|' * len(columns)}")

    def trained(what: str, texts: list[str], **settings: Any) -> Embeddings:
        started = time.process_time()
        model = jose_embed.train(documents=texts, workers=1, progress=False, **settings)
        seconds = time.process_time() - started
        print(f"| {what} | {seed} | {seconds:.0f} | {figures(model, corpus) if model.n_docs == len(lines) else ''} |")
        return model

    epochs = {} if corpus.labels is not None else {"epochs": corpus.description.epochs}
    for seed in range(1, n_seeds + 1):
        settings: dict[str, Any] = {"tokenizer": "whitespace", "seed": seed, **epochs}
        with tempfile.TemporaryDirectory() as folder:
            start, text = Path(folder) / "start.jose", Path(folder) / "text.encoded"
            trained("all", lines, **settings)
            if n_parts > 2:
                parts = np.array_split(np.arange(len(lines)), n_parts)
                options = settings
                for part in parts:
                    some = [lines[row] for row in part]
                    trained(f"+ {len(some):,} documents", some, **options).save(start, overwrite=True)
                    options = {"continue_from": str(start)}
                continue
            trained("four fifths", old, **settings).save(start)
            trained("+ a fifth", new, continue_from=str(start))
            with encode_texts(old, tokenizer="whitespace") as encoded:
                write_encoded(encoded, text)
            trained("+ a fifth, with the old text", new, continue_from=str(start), earlier_text=str(text))


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

"""How many new documents get a vector per second? Ours from raw text and from tokens beside gensim's infer_vector.

Both train on the same part of 20 Newsgroups, then meet texts of 200 words on one core. gensim gets tokens, which is all
it takes; its vectors take as many epochs as its training had. Each figure is the median of the repetitions, with the
smallest and the largest; programs take turns.

    python tests/benchmarks/inference_speed.py
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import corpora
from ledger import header, markdown_table

import jose_embed

WORDS = 200


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    from gensim.models.doc2vec import Doc2Vec, TaggedDocument

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=20_000, help="texts for us; gensim gets a hundredth of them")
    parser.add_argument("--training", type=int, default=2_000, help="documents that both train on")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args(arguments)
    if not corpora.DATA.is_dir():
        print(f"no development corpora at {corpora.DATA}; JOSE_SHARED_DATA may name their place", file=sys.stderr)
        return 2
    facts = header()
    print(f"measured at {facts['commit']}, {facts['date']}, {facts['machine']}, one thread")
    lines = corpora.load("20news").lines()
    training = lines[: options.training]
    words = [word for line in lines[options.training :] for word in line.split()]
    n_different = len(words) // WORDS
    tokens = [words[i * WORDS : (i + 1) * WORDS] for i in range(n_different)]
    tokens = [tokens[i % n_different] for i in range(options.documents)]
    texts = [" ".join(one) for one in tokens]

    model = jose_embed.train(documents=training, epochs=options.epochs)
    tagged = [TaggedDocument(line.split(), [i]) for i, line in enumerate(training)]
    peer = Doc2Vec(tagged, vector_size=100, window=5, dm=0, dbow_words=1, negative=5, epochs=options.epochs, workers=2)
    few = tokens[: max(1, options.documents // 100)]
    some = texts[: max(1, options.documents // 10)]
    model.infer(texts)  # the compiler's share, which a long-lived process pays once
    ways: dict[str, tuple[int, Callable[[], object]]] = {
        "gensim Doc2Vec, infer_vector, tokens": (len(few), lambda: [peer.infer_vector(one) for one in few]),
        "jose-embed, infer, one text at a time": (len(some), lambda: [model.infer([text]) for text in some]),
        "jose-embed, infer, raw text": (len(texts), lambda: model.infer(texts)),
        "jose-embed, infer, tokens": (len(tokens), lambda: model.infer(tokens)),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.repetitions):
        for name, (n, run) in ways.items():
            started = time.perf_counter()
            run()
            rates[name].append(n / (time.perf_counter() - started))
    base = statistics.median(next(iter(rates.values())))
    rows = [
        [
            name,
            f"{statistics.median(each):,.0f} ({min(each):,.0f} to {max(each):,.0f})",
            f"{statistics.median(each) / base:.1f}",
        ]
        for name, each in rates.items()
    ]
    print(f"\n### New documents of {WORDS} words, one core\n")
    print(markdown_table(["", "texts/s", "times gensim"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())

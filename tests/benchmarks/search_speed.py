"""How long questions take: by meaning, by exact words and by both, and with filters.

    python tests/benchmarks/search_speed.py MODEL [--questions 300]

The model keeps its texts (``jose-train FILE --keep-text``). A question is a run of two to eight words of a random text.
Times are processor milliseconds of one thread, without reading the texts of the answers. Filters are random documents;
their cost is that of the same question without one, runs alternating.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

import jose_embed
from jose_embed.model.embeddings import Embeddings
from jose_embed.model.search import DocumentSearch, SearchMode

SHARES = (0.01, 0.1, 0.5)


def milliseconds(call: Callable[[], object]) -> float:
    """Processor time of a call."""
    start = time.process_time()
    call()
    return (time.process_time() - start) * 1e3


def questions_of(model: Embeddings, n: int, seed: int) -> list[str]:
    """Runs of two to eight words of random texts."""
    rng = np.random.default_rng(seed)
    questions: list[str] = []
    while len(questions) < n:
        ((text, _),) = model.kept_documents([int(rng.integers(model.n_docs))])
        words, length = (text or "").split(), int(rng.integers(2, 9))
        if len(words) > length:
            first = int(rng.integers(len(words) - length))
            questions.append(" ".join(words[first : first + length]))
    return questions


def _answered(search: DocumentSearch, text: str, mode: SearchMode) -> object:
    return search.best(search.question(text), 10, mode)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    model = jose_embed.load(arguments.model)
    search = model.document_search
    first = milliseconds(lambda: model.search("the first question", k=10))
    print(f"{model.n_docs:,} documents, dim {model.dim}; the first question: {first:.0f} ms")
    texts = questions_of(model, arguments.questions, arguments.seed)
    for text in texts[:20]:
        model.search(text)
    print("mode      p50    p90    p99  ms")
    modes: tuple[SearchMode, ...] = ("vector", "words", "hybrid")
    for mode in modes:
        times = [milliseconds(partial(_answered, search, text, mode)) for text in texts]
        print(f"{mode:7}" + "".join(f"{value:7.2f}" for value in np.percentile(times, [50, 90, 99])))
    asked = [question for text in texts if (question := search.question(text)).vector is not None]
    rng = np.random.default_rng(arguments.seed)
    print("mode      share  cost (with a filter / without, medians)")
    for mode in (modes[0], modes[2]):
        for share in SHARES:
            among = rng.random(model.n_docs) < share
            pairs = [
                (
                    milliseconds(partial(search.best, one, 10, mode, among)),
                    milliseconds(partial(search.best, one, 10, mode)),
                )
                for one in asked
            ]
            filtered, plain = np.median(np.array(pairs), axis=0)
            print(f"{mode:7}{share:8.2f}{filtered / plain:7.2f}  ({filtered:.2f} / {plain:.2f} ms)")


if __name__ == "__main__":
    main()

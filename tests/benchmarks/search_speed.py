"""How long questions take: by meaning, by exact words and by both, and with filters.

    python tests/benchmarks/search_speed.py MODEL [--questions 300] [--codes]

The model keeps its texts (``jose-train FILE --keep-text``). A question is a run of two to eight words of a random text.
Times are processor milliseconds of one thread, without reading the texts of the answers. Filters are random documents;
their cost is that of the same question without one, runs alternating.

``--codes`` compares the service's exact search with its search by codes (JOSE_EXACT_ROWS) over the trained documents:
memory, time of one question at a time, and the share of the true ten that is found.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

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


def _memory(name: str) -> int:
    """Megabytes of this process: VmRSS, its peak VmHWM, or RssAnon, without mapped files."""
    return int(Path("/proc/self/status").read_text().partition(f"{name}:")[2].split()[0]) // 1000


def by_codes(path: Path, texts: list[str]) -> None:
    """Print what the search by codes costs and finds beside exact search."""
    # Here, because the tables above need no extra.
    from service.calls.question import Documents
    from service.search.index import IndexOptions
    from service.search.library import Library
    from service.search.queries import SearchQuery, Snapshot, answers
    from service.search.served_model import ServedModel

    served = ServedModel.load(path, IndexOptions(), 0, verify=False, mapped=True)
    model, index = served.embeddings, served.documents.index
    search, known, rng = model.document_search, model.known_documents, np.random.default_rng(0)
    snapshot = Snapshot(served, Library(served.dim, IndexOptions()))
    questions = [one for text in texts if (one := search.question(text)).vector is not None]
    nothing = np.empty(0, np.bool_)
    cases: dict[str, list[Callable[[], list[float]]]] = {}

    def plain(vector: np.ndarray) -> list[float]:
        (found,) = answers(snapshot, [SearchQuery(vector, 10, "documents")])
        return [one["score"] for one in found]

    def question(documents: Documents, one: object, mode: SearchMode) -> list[float]:
        return [score for _, score in documents.best(one, 10, mode)]

    def filtered(documents: Documents, vector: np.ndarray) -> list[float]:
        return [score for _, score in documents.nearest(vector, 10)]

    cases["a text"] = [partial(plain, one.vector) for one in questions]
    rows = rng.choice(np.flatnonzero(known), len(questions))
    cases["a document"] = [partial(plain, model.doc_vectors[row]) for row in rows]
    modes: tuple[SearchMode, ...] = ("vector", "hybrid") if model.has_texts else ("vector",)
    whole = Documents(snapshot, None, known, nothing)
    for mode in modes:
        cases[f"mode {mode}"] = [partial(question, whole, one, mode) for one in questions]
    for share in SHARES:
        some = Documents(snapshot, None, known & (rng.random(model.n_docs) < share), nothing)
        cases[f"a text, {share:.0%} selected"] = [partial(filtered, some, one.vector) for one in questions]
        for mode in modes:
            cases[f"mode {mode}, {share:.0%} selected"] = [partial(question, some, one, mode) for one in questions]

    def measured() -> dict[str, tuple[list[list[float]], list[float]]]:
        made = {}
        for name, calls in cases.items():
            calls[0]()
            found, times = [], []
            for call in calls:
                start = time.thread_time()
                found.append(call())
                times.append((time.thread_time() - start) * 1e3)
            made[name] = found, np.percentile(times, [50, 99]).tolist()
        return made

    exact = measured()
    print(
        f"{model.n_docs:,} documents, dim {model.dim}, files mapped; resident {_memory('VmRSS')} MB, exact search",
        flush=True,
    )
    began, start = time.thread_time(), time.perf_counter()
    index.add_codes(bool)
    seconds = time.thread_time() - began, time.perf_counter() - start
    print(f"codes: {index.codes_bytes / 1e6:.0f} MB in {seconds[0]:.0f} s of the processor ({seconds[1]:.0f} s)")
    print(f"recall@10 {index.codes_recall:.4f} by its own test")
    kinds = f"peak {_memory('VmHWM')} MB, {_memory('RssAnon')} MB not of files"
    print(f"resident {_memory('VmRSS')} MB, {kinds}", flush=True)
    print("| question | exact p50 / p99 ms | by codes p50 / p99 ms | recall@10 |\n|---|--:|--:|--:|")
    for name, (found, times) in measured().items():
        true, before = exact[name]
        hits = [sum(a >= b[-1] - 1e-6 for a in some) / len(b) for some, b in zip(found, true, strict=True) if b]
        text = f"{before[0]:.1f} / {before[1]:.1f} | {times[0]:.1f} / {times[1]:.1f}"
        print(f"| {name} | {text} | {np.mean(hits):.4f} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--codes", action="store_true")
    arguments = parser.parse_args()
    model = jose_embed.load(arguments.model)
    if arguments.codes:
        by_codes(Path(arguments.model), questions_of(model, arguments.questions, arguments.seed))
        return
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
                    milliseconds(lambda: search.best(one, 10, mode, np.flatnonzero(among))),  # noqa: B023
                    milliseconds(partial(search.best, one, 10, mode)),
                )
                for one in asked
            ]
            filtered, plain = np.median(np.array(pairs), axis=0)
            print(f"{mode:7}{share:8.2f}{filtered / plain:7.2f}  ({filtered:.2f} / {plain:.2f} ms)")


if __name__ == "__main__":
    main()

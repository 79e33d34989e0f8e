"""What do sub-words give for rare words, beside none and gensim's FastText? All pairs count, so unknown words do.

Every fourteenth document of the Wikipedia text, 5 epochs, d = 100, minimum count 5. A word without a vector has cosine
0 with every other. FastText: skip-gram, window 5, 5 negatives, n-grams of 3 to 6 characters, 200,000 buckets.

    python tests/benchmarks/subwords.py rw.tsv           Stanford Rare Words (Luong, Socher and Manning, 2013)
    python tests/benchmarks/subwords.py rw.tsv --systems subwords --seeds 5

The file has two words and a score per line, separated by tabs. Figures are kept in tests/benchmarks/.cache, ours per
commit, and reprinted from there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import corpora
import numpy as np
import numpy.typing as npt
import peers
from corpora import Corpus
from ledger import Ledger, commit, header, markdown_table
from scipy.stats import spearmanr

from jose_embed.analysis.gold_sets import ScoredPair, read_scored_pairs
from jose_embed.analysis.measures import Spread

SYSTEMS = {"plain": "without sub-words", "subwords": "**`--subwords`**", "fasttext": "gensim FastText"}
KNOWN = "known"  # of the pairs of two words that the vocabulary has
Lookup = Callable[[str], npt.NDArray[Any] | None]


def train(system: str, corpus: Corpus, seed: int, threads: int) -> tuple[Lookup, Callable[[str], bool], float]:
    """The vector of any word, whether the vocabulary has it, and the processor seconds of the training."""
    with peers.measured() as clock:
        if system == "fasttext":
            import gensim.models

            made: Any = gensim.models.FastText(
                corpus_file=str(corpus.write()), sg=1, negative=5, vector_size=100, window=5, min_count=5, epochs=5,
                bucket=200_000, workers=threads, seed=seed,
            )  # fmt: skip
        else:
            import jose_embed

            made = jose_embed.train(
                corpus.write(), tokenizer="whitespace", epochs=5, doc_vectors="none", subwords=system == "subwords",
                seed=seed, workers=threads,
            )  # fmt: skip
    if system == "fasttext":
        return lambda word: made.wv[word], made.wv.key_to_index.__contains__, clock.cpu_seconds
    known = frozenset(made.words)
    return lambda word: made.vector_of(word) if made.has_vector(word) else None, known.__contains__, clock.cpu_seconds


def measure(
    system: str, corpus: Corpus, gold: Mapping[str, Sequence[ScoredPair]], seed: int, threads: int
) -> dict[str, float]:
    """Spearman over all pairs of each set, and over those of known words."""
    vector_of, known, seconds = train(system, corpus, seed, threads)
    figures = {"cpu_seconds": seconds}
    for name, pairs in gold.items():
        words = sorted({word for pair in pairs for word in pair[:2]})
        found = [vector_of(word) for word in words]
        vectors = np.array([np.zeros(100) if vector is None else vector for vector in found], np.float64)
        unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
        row = {word: i for i, word in enumerate(words)}
        cosines = [float(unit[row[pair.first]] @ unit[row[pair.second]]) for pair in pairs]
        both = [i for i, pair in enumerate(pairs) if known(pair.first) and known(pair.second)]
        for part, rows in ((name, range(len(pairs))), (f"{name} {KNOWN}", both)):
            figures[part] = float(spearmanr([cosines[i] for i in rows], [pairs[i].score for i in rows]).statistic)
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    options = _parser().parse_args(arguments)
    ledger = Ledger(corpora.cache_folder() / "subwords.json")
    facts = header()
    print(
        f"measured at {facts['commit']}, {facts['date']}, {facts['machine']}, {options.threads} threads\n", flush=True
    )
    corpus = corpora.load("wiki").every(14)
    files = [options.rare, *(corpora.DATA / "wordsim" / f"{name}.tsv" for name in corpora.ENGLISH_PAIRS)]
    gold = {
        path.stem: [ScoredPair(a.lower(), b.lower(), score) for a, b, score in read_scored_pairs(path)]
        for path in files
    }
    rows = []
    for system in options.systems:
        runs = []
        for seed in range(1, options.seeds + 1):
            key = {"system": system, "seed": seed, "threads": options.threads, "sets": [*gold]}
            key |= {} if system == "fasttext" else {"commit": commit()}
            figures = ledger.get(key)
            if figures is None:
                print(f"  {system}, seed {seed} ...", file=sys.stderr, flush=True)
                figures = measure(system, corpus, gold, seed, options.threads)
                if not facts["commit"].endswith("-dirty"):
                    ledger.put(key, figures)
            runs.append(figures)
        for suffix, title in (("", SYSTEMS[system]), (f" {KNOWN}", f"{SYSTEMS[system]}, pairs of known words")):
            cells = [Spread(tuple(run[name + suffix] for run in runs)) for name in gold]
            rows.append([title, *cells, "" if suffix else Spread(tuple(round(run["cpu_seconds"], 1) for run in runs))])
    print(markdown_table(["", *gold, "CPU seconds"], rows))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rare", type=Path, help="pairs of rare words with scores")
    parser.add_argument("--systems", nargs="+", choices=[*SYSTEMS], default=[*SYSTEMS], metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3, help="training runs of each system")
    parser.add_argument("--threads", type=int, default=2, help="threads of each training run")
    return parser


if __name__ == "__main__":
    sys.exit(main())

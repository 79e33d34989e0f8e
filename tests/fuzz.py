"""Hostile input to everything that reads, for as long as one likes: ``make fuzz FUZZ_SECONDS=600``.

Each try takes something valid (or nothing), damages it, and gives it to one target. A target may succeed, and then its
result must make sense, or refuse with an error of this package on one line. Anything else is a finding: another
exception, a wrong result, more than ``HANG`` seconds, more than ``MEMORY`` bytes. Tries follow from the seed alone;
a finding names the seed of its try, and ``--only TARGET --seed N --tries 1`` repeats it.
"""

from __future__ import annotations

import argparse
import bz2
import contextlib
import csv
import gzip
import hashlib
import io
import json
import lzma
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jose_embed.analysis.card import card
from jose_embed.analysis.gold_sets import read_analogies, read_labels, read_scored_pairs, read_search_queries
from jose_embed.cli.program import main
from jose_embed.config import TrainConfig
from jose_embed.errors import JoseError
from jose_embed.model.embeddings import Embeddings
from jose_embed.model.exchange import FORMATS, export, read_vectors
from jose_embed.model.files import model_id
from jose_embed.model.quality import QUALITY_NAME, read_quality
from jose_embed.progress import SilentReporter
from jose_embed.storage.directory import array_header
from jose_embed.storage.manifest import manifest_checksum
from jose_embed.text import sources
from jose_embed.text import word_table as wordtable
from jose_embed.text.encode import encode, encode_texts
from jose_embed.text.kept import is_encoded, kept_encoding, open_encoded, write_encoded
from jose_embed.text.reader import BlockReader
from jose_embed.text.records import TextOptions
from jose_embed.text.sources import find_sources
from jose_embed.text.texts import TextStore
from jose_embed.text.tokenizers import get_tokenizer
from jose_embed.training.checkpoints import Checkpoints, RunFacts
from jose_embed.training.schedule import RunState

HANG = 20  # seconds of the processor; of the clock, thirty times as many: a busy machine is no finding
MEMORY = 1 << 30  # bytes that a try may add to the address space of the process

TEXT = (
    "To be, or not to be: that is the question.\n"
    "\n"
    "Whether 'tis nobler in the mind to suffer\r\n"
    "l'H\u00f4pital\u2019s \u0130stanbul \u03a3\u039f\u03a6\u039f\u03a3 \u4e2d\u6587 \U0001f600 a\u00adb x\u200dy\n"
    "the slings and arrows of outrageous fortune, or to take arms\n"
)
PIECES = [
    b"", b"\0", b"\n", b"\r\n", b" ", b"\t", b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\xc3", b"\xe2\x80",
    b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"'", b"\xe2\x80\x99", b"\xcc\x80", b"\xce\xa3", b"\xc4\xb0",
    b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x93NUMPY\x01\0", b"nan", b"-1", b"1e999",
    b"9" * 30, b"[" * 2000, b'"\\ud800"', b"{}", b"null", b"\x1b[31m", b"../", b"%s", b"\xe2\x80\xa8", b"a" * 5000,
]  # fmt: skip


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The data with up to eight damages of different kinds."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        at = rng.randrange(len(changed) + 1)
        length = min(rng.choice([1, 2, 4, 8, 64, 1000]), len(changed) - at)
        kind = rng.randrange(8)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[at : at + length] = rng.randbytes(length)
        elif kind == 2:
            del changed[at : at + length]
        elif kind == 3:
            del changed[at:]
        elif kind == 4:
            changed[at:at] = rng.choice(PIECES)
        elif kind == 5:
            changed[at : at + length] = rng.choice(PIECES)
        elif kind == 6:
            changed[at:at] = changed[at : at + length] * rng.choice([1, 2, 50])
        else:
            changed += rng.randbytes(length)
    return bytes(changed)


JSON_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**63, 10**30, 1.5, -0.0, 1e308, float("nan"), "", "x", "\ud800", "a\nb",
    "../x", [], {}, [[]], {"a": None}, "9" * 5000, "\x1b[31m",
]  # fmt: skip


def mutated_json(value: Any, rng: random.Random) -> Any:
    """The value with one of its parts replaced, removed or renamed."""
    if rng.random() < 0.15 or not isinstance(value, (dict, list)) or not value:
        if isinstance(value, int) and not isinstance(value, bool) and rng.random() < 0.5:
            return value + rng.choice([-1, 1, 2**31, -value, -2 * value])
        return rng.choice(JSON_VALUES)
    copy: Any = value.copy()
    key: Any = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
    what = rng.random()
    if what < 0.1:
        del copy[key]
    elif what < 0.15 and isinstance(value, dict):
        copy[rng.choice(["", "x", "\ud800", "bytes", "../x.npy"])] = copy.pop(key)
    else:
        copy[key] = mutated_json(value[key], rng)
    return copy


def _remembered(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    known: dict[int, tuple[Any, Any]] = {}

    def remembering(rules: Any) -> Any:
        if id(rules) not in known:
            known[id(rules)] = rules, function(rules)
        return known[id(rules)][1]

    return remembering


def _valid_records(folder: Path) -> dict[str, bytes]:
    """A valid file of every format of records, by its ending."""
    texts = TEXT.split("\n")
    rows = [{"id": str(number), "text": text, "meta": {"n": number}} for number, text in enumerate(texts)]
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(["id", "text", "meta.n"])
    writer.writerows((row["id"], f"{row['text']}\n", "7") for row in rows)
    found = {
        ".csv": table.getvalue().encode(), ".tsv": table.getvalue().replace(",", "\t").encode(),
        ".jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode(),
        ".csv.gz": gzip.compress(table.getvalue().encode(), mtime=0),
    }  # fmt: skip
    with contextlib.suppress(ImportError):
        import pyarrow as pa
        import pyarrow.parquet as pq

        arrow = pa.Table.from_pylist(rows)
        pq.write_table(arrow, folder / "valid.parquet")
        found[".parquet"] = (folder / "valid.parquet").read_bytes()
        for ending, kind in ((".arrow", pa.ipc.new_stream), (".feather", pa.ipc.new_file)):
            with pa.OSFile(str(folder / "valid.arrow"), "wb") as file, kind(file, arrow.schema) as arrow_writer:
                arrow_writer.write_table(arrow)
            found[ending] = (folder / "valid.arrow").read_bytes()
    return found


class Fuzzer:
    """The valid beginnings, and the targets.

    Args:
        folder: Where they and the damaged files lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        wordtable._packed_rules = _remembered(wordtable._packed_rules)  # 28 ms, made once by every other program
        rng = np.random.default_rng(0)

        def table(rows: int) -> Any:
            points = rng.standard_normal((rows, 4))
            return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)

        self.model = Embeddings.from_arrays(
            words=["the", "cat", "dog", "k\u00f6ln"], counts=np.array([9, 5, 3, 1]), center_vectors=table(4),
            context_vectors=table(4), doc_ids=["1", "2", "3"], doc_vectors=table(3),
            doc_token_counts=np.array([7, 0, 11]), training={"epochs": []}, corpus={"sha256": "0"},
        )  # fmt: skip
        self.model.save(folder / "valid.jose")
        with encode_texts(TEXT.split("\n") * 2, min_count=1) as corpus:
            write_encoded(corpus, folder / "valid.encoded")
            tables = [table(rows) for rows in (corpus.vocabulary.n_words, corpus.vocabulary.n_words, len(corpus))]
            self.tables = tables
            with Checkpoints(folder / "valid.run") as checkpoints:
                facts = RunFacts(corpus, TrainConfig(), 10, "cpu", {"reading": 1.5})
                checkpoints.write(tables, RunState(), facts)
        self.vectors = {}
        for format in FORMATS:
            export(self.model, folder / "valid.vectors", format=format, overwrite=True)
            self.vectors[format] = (folder / "valid.vectors").read_bytes()
        text = TEXT.encode()
        zipped = gzip.compress(text, mtime=0)
        self.texts = {
            "plain": text, "mark": b"\xef\xbb\xbf" + text, "wide": TEXT.encode("utf-16"), "gzip": zipped,
            "several": zipped + zipped + bytes(50), "bzip2": bz2.compress(text), "xz": lzma.compress(text),
            "bomb": gzip.compress(b" " * 3_000_000, mtime=0), "nothing": b"",
            "lzma": lzma.compress(text, lzma.FORMAT_ALONE),
        }  # fmt: skip
        with contextlib.suppress(ImportError):
            from jose_embed.text.compression import zstd

            self.texts["zstd"] = zstd.compress(text)
        self.records = _valid_records(folder)
        store = TextStore.create(folder)
        store.append(["one", "two\nlines", ""], [{"a": 1}, {}, {"b": None}], 3)
        store.finish()
        self.texts_file = b"".join(store.chunks())
        self.targets: dict[str, Callable[[random.Random], str]] = {
            name.removeprefix("_on_"): getattr(self, name) for name in dir(self) if name.startswith("_on_")
        }

    # ---- what is given to a target -------------------------------------------------------------------------------

    def _file(self, data: bytes, suffix: str = "") -> Path:
        path = self.folder / f"input{suffix}"
        path.write_bytes(data)
        return path

    def _text(self, rng: random.Random) -> bytes:
        if rng.random() < 0.1:
            return rng.randbytes(rng.choice([0, 1, 10, 1000, 100_000]))
        data = self.texts[rng.choice(list(self.texts))]
        return mutated(data, rng) if rng.random() < 0.95 else data

    def _damaged(self, valid: str, rng: random.Random) -> Path:
        """A copy of a valid directory with damage in one file."""
        path = self.folder / f"damaged{Path(valid).suffix}"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(self.folder / valid, path)
        self._damage(path, rng)
        return path

    def _damage(self, path: Path, rng: random.Random) -> None:
        """Damage one file of a directory; its checksums sometimes are made to fit."""
        name = rng.choice(sorted(os.listdir(path)))
        if name.endswith(".json") and rng.random() < 0.7:
            value = mutated_json(json.loads((path / name).read_bytes()), rng)
            (path / name).write_text(json.dumps(value))
        elif rng.random() < 0.03:
            (path / name).unlink()
            if rng.random() < 0.5:
                (path / name).mkdir()
        else:
            (path / name).write_bytes(mutated((path / name).read_bytes(), rng))
        if rng.random() < 0.7:
            with contextlib.suppress(Exception):
                self._sign(path)

    @staticmethod
    def _sign(path: Path) -> None:
        """Sizes and sums in the manifest are made to fit the files: what then is wrong must be seen by looking."""
        about = path / ("manifest.json" if (path / "manifest.json").exists() else "checkpoint.json")
        manifest = json.loads(about.read_bytes())
        for name in manifest["files"]:
            data = (path / name).read_bytes()
            manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        if "id" in manifest:
            manifest["id"] = model_id(manifest["files"], manifest)
        manifest["checksum"] = manifest_checksum(manifest)
        about.write_text(json.dumps(manifest))

    # ---- targets: each says in a word how it went -----------------------------------------------------------------

    def _on_reader(self, rng: random.Random) -> str:
        path = self._file(self._text(rng), rng.choice(["", ".gz", ".xz", ".txt"]))
        with BlockReader(find_sources([path] * rng.choice([1, 1, 2])), whole_lines=rng.random() < 0.5) as reader:
            text = b"".join(block.data for block in reader)
        assert text.decode().count("\n") == sum(report.n_lines for report in reader.reports)
        return "read"

    def _on_records(self, rng: random.Random) -> str:
        name = rng.choice(list(self.records))
        data = mutated(self.records[name], rng) if rng.random() < 0.95 else rng.randbytes(rng.randrange(2000))
        columns = [None, "id", "text", "meta.n", "\ud800"]
        how: dict[str, Any] = {
            "text_field": rng.choice([(), (), "text", ("text", "id")]), "id_field": rng.choice(columns),
            "on_error": rng.choice(["stop", "skip"]), "keep_text": rng.random() < 0.5,
            "keep_fields": rng.choice([(), (), ("id", "meta.n")]),
            "format": rng.choice([None, None, *sources.FORMATS]),
        }  # fmt: skip
        with BlockReader(find_sources(self._file(data, name)), options=TextOptions(**how)) as reader:
            blocks = list(reader)
        n_documents = sum(block.data.decode().count("\n") for block in blocks)
        assert n_documents == sum(report.n_lines for report in reader.reports)
        records = [block.records for block in blocks if block.records is not None]
        for batch in records:
            lengths = [len(part) for part in (batch.ids, batch.texts, batch.fields) if part is not None]
            assert lengths == [batch.n_records] * len(lengths)
        if how["id_field"]:
            assert sum(len(batch.ids or ()) for batch in records) == n_documents
        json.dumps([batch.fields for batch in records])
        return "read"

    def _on_documents(self, rng: random.Random) -> str:
        values = [*JSON_VALUES, "a text", ["a", "b"], b"a", np.array(["a", "b"]), np.zeros(2), {"a": "b"}, {"a"}]
        documents = rng.choice([rng.choice(values), [rng.choice(values) for _ in range(rng.randrange(4))]])
        ids = rng.choice([None, None, rng.choice(values), [rng.choice(values) for _ in range(rng.randrange(4))]])
        with encode_texts(documents, ids=ids, min_count=1) as corpus:
            assert len(list(corpus.doc_ids)) == corpus.n_documents == len(set(corpus.doc_ids))
        return "encoded"

    def _on_kept_texts(self, rng: random.Random) -> str:
        store = TextStore.open(self._file(mutated(self.texts_file, rng), ".sqlite3"))
        for document in store.read(range(4)):
            assert document.text is None or isinstance(document.text, str)
            assert isinstance(document.fields, dict)
        return "read"

    def _on_tokenizers(self, rng: random.Random) -> str:
        data = mutated(TEXT.encode() * 2, rng) if rng.random() < 0.8 else rng.randbytes(rng.randrange(200))
        text = data.decode(errors=rng.choice(["replace", "ignore"])).replace("\0", "")
        for name in ("words", "whitespace"):
            tokenizer, table = get_tokenizer(name), wordtable.word_table(get_tokenizer(name))
            numbers, _ = table.add_texts([text])
            assert table.words(numbers) == tokenizer(text.replace("\n", " "))
        return "equal"

    def _on_encoding(self, rng: random.Random) -> str:
        path = self._file(self._text(rng))
        with encode(path, min_count=rng.choice([1, 1, 2]), tokenizer=rng.choice(["words", "whitespace"])) as corpus:
            assert np.array_equal(np.bincount(corpus.tokens), corpus.vocabulary.counts)
            assert corpus.offsets[0] == 0
            assert corpus.offsets[-1] == corpus.n_tokens
            assert (np.diff(corpus.offsets) >= 0).all()
            assert len(corpus.doc_ids) == corpus.n_documents
        return "encoded"

    def _on_model(self, rng: random.Random) -> str:
        path = self._damaged("valid.jose", rng)
        verify = rng.random() < 0.5
        model = Embeddings.load(path, verify=verify)
        word = model.words[rng.randrange(len(model))]
        model.most_similar(word, k=2)
        if model.n_docs:
            with contextlib.suppress(JoseError):
                model.similar_documents(model.doc_ids[0], k=2)
            model.similar_documents(word=word, k=2)
        with contextlib.suppress(JoseError):
            model.infer([f"the {word}"])
        return "loaded"

    def _on_card(self, rng: random.Random) -> str:
        manifest = json.loads((self.folder / "valid.jose" / "manifest.json").read_bytes())
        manifest["training"] = {
            "epochs": [{"epoch": 1, "loss": 0.1, "active": 0.5, "seconds": 1.0, "words_per_second": 1e6}],
            "phases": {"reading": 1.5, "training": 2.0},
            "machine": {"cpu": "x", "cores": 2, "memory_bytes": 1, "packages": {"numpy": "2"}},
        }
        for _ in range(rng.choice([1, 2, 5])):
            part = rng.choice(["training", "training", "corpus", "config", "counts", "tokenizer"])
            manifest[part] = mutated_json(manifest[part], rng)
        tables = [
            {"title": "t", "measured": "now", "rows": [{"a": "x", "b": {"mean": 0.5, "deviation": 0.1}}, {"a": 1}]}
        ]
        path = self.folder / "card"
        path.mkdir(exist_ok=True)
        value = {"format": "jose-embed-evaluation", "format_version": 1, "model": "1", "tables": tables}
        data = json.dumps(mutated_json(value, rng)).encode()
        (path / QUALITY_NAME).write_bytes(mutated(data, rng) if rng.random() < 0.2 else data)
        quality = read_quality(path, "1")
        assert all(isinstance(line, str) for line in card(manifest, "x", frequent=["a"], quality=quality))
        return "shown"

    def _on_encoded_corpus(self, rng: random.Random) -> str:
        path = self._damaged("valid.encoded", rng)
        is_encoded(path)
        with open_encoded(path) as corpus:
            assert corpus.tokens.min() >= 0
            assert corpus.tokens.max() < corpus.vocabulary.n_words
            assert corpus.offsets[-1] == corpus.n_tokens
            assert (np.diff(corpus.offsets) >= 0).all()
            assert len(list(corpus.doc_ids)) == corpus.n_documents
            corpus.statistics.to_dict()
        return "opened"

    def _on_checkpoint(self, rng: random.Random) -> str:
        path = self.folder / "damaged.run"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(self.folder / "valid.run", path)
        self._damage(path / "checkpoint-000001", rng)
        with Checkpoints(path) as checkpoints, open_encoded(self.folder / "valid.encoded", verify=False) as corpus:
            checkpoints.begin(True)
            if checkpoints.latest is None:
                return "refused"
            checkpoints.check(TrainConfig())
            checkpoints.check_backend("cpu")
            tables = [np.zeros_like(table) for table in self.tables]
            checkpoints.restore(tables, corpus, {}, SilentReporter())
        return "restored"

    def _on_vectors(self, rng: random.Random) -> str:
        format = rng.choice(list(self.vectors))
        data = mutated(self.vectors[format], rng) if rng.random() < 0.95 else rng.randbytes(200)
        table = read_vectors(self._file(data), format=rng.choice([format, format, *self.vectors]))
        assert len(table.names) == len(table.vectors)
        assert np.isfinite(table.vectors).all()
        return "read"

    def _on_gold(self, rng: random.Random) -> str:
        seeds = [
            b"cat\tdog\t0.5\n# no\nking\tqueen\t9\textra\n",
            b": family\nking queen man woman\n",
            b"1\n2\n1\n",
            b"where is it\t4 17\n",
            TEXT.encode(),
        ]
        data = mutated(rng.choice(seeds), rng)
        if zipped := rng.random() < 0.3:
            data = gzip.compress(data, mtime=0)
            data = mutated(data, rng) if rng.random() < 0.7 else data
        path = self._file(data, ".gz" if zipped else "")
        rng.choice([read_scored_pairs, read_analogies, read_labels, read_search_queries])(path)
        return "read"

    def _on_array_header(self, rng: random.Random) -> str:
        file = io.BytesIO()
        np.save(file, np.zeros((2, 3), rng.choice(["<f4", "<i8", ">f4", "O", "U3", "?"])))
        try:
            array_header(mutated(file.getvalue(), rng))
        except ValueError as error:
            if type(error) is not ValueError:
                raise
            return "refused"
        return "read"

    def _on_command(self, rng: random.Random) -> str:
        """The programs themselves, with files of any name and words of any kind."""
        strange = ["a", "\n", "\x1b[31m", "\udcff", "\u2028", "*", "[", "\\", " ", "-", "\u4e2d", "'", '"', "$(x)"]
        name = "".join(rng.choice(strange) for _ in range(rng.randrange(1, 6)))
        place = self.folder / "names"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        text = str(place / name)
        Path(text).write_bytes(self._text(rng))
        model = str(self.folder / "valid.jose") if rng.random() < 0.7 else str(self._damaged("valid.jose", rng))
        arguments = rng.choice([
            ["encode", text, "--min-count", "1"],
            ["encode", text, "-o", f"{text}.encoded", "--min-count", rng.choice(["1", "0", "x", "\n"])],
            ["embed", model, text, "-o", f"{text}.npy", "--workers", "1"],
            ["similar", model, name, "-k", rng.choice(["1", "5", "0", "9" * 30])],
            ["similar", model, "--positive", "cat", name, "--json"],
            ["documents", model, name], ["documents", model, "--text", name],
            ["documents", model, "1", "--labels", text],
            ["info", model, *rng.choice([[], ["--json"], ["--verify"]])], ["info", text],
            ["info", str(self._damaged("valid.encoded", rng))],
            ["export", model, "-o", f"{text}.txt"],
            ["eval", model, "--similarity", text],
            ["train", text, "--dry-run", "--min-count", "9999"], [name, text],
        ])  # fmt: skip
        out, err, here = io.StringIO(), io.StringIO(), os.getcwd()
        os.chdir(place)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                status = main(arguments)
        finally:
            os.chdir(here)
        message = err.getvalue()
        assert status in (0, 2), (arguments, status, message)
        assert all(line.isprintable() for line in message.replace("\udcff", "?").split("\n")), (arguments, message)
        assert "Traceback" not in message
        if status == 2:
            last = message.rstrip("\n").rpartition("\n")[2]
            assert last.startswith(("jose: ", "jose ")), (arguments, message)
        return "done" if status == 0 else "refused"

    def _on_kept_encoding(self, rng: random.Random) -> str:
        path = self._file(self._text(rng))
        place = self._damaged("valid.encoded", rng)
        with kept_encoding(path, place, min_count=1, overwrite=rng.random() < 0.5) as corpus:
            assert corpus.tokens.max() < corpus.vocabulary.n_words
        with open_encoded(place):
            pass
        return "kept"


class HangError(Exception):
    """A try that took too long."""


@contextlib.contextmanager
def limits() -> Iterator[None]:
    """While this lasts, a try that hangs or wants too much memory fails."""

    def stop(*_: object) -> None:
        raise HangError(f"more than {HANG} seconds")

    before = {number: signal.signal(number, stop) for number in (signal.SIGALRM, signal.SIGPROF)}
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        for number, handler in before.items():
            signal.signal(number, handler)


def attempt(fuzzer: Fuzzer, name: str, seed: int) -> str:
    """One try: how it went, in a word.

    Raises:
        BaseException: a finding.
    """
    signal.setitimer(signal.ITIMER_PROF, HANG)
    signal.alarm(30 * HANG)
    try:
        return fuzzer.targets[name](random.Random(f"{name} {seed}"))
    except JoseError as error:
        message = str(error).replace(str(fuzzer.folder), "")
        assert 0 < len(message) < 2000, message
        assert "\n" not in message, message
        return "refused"
    finally:
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)


def run(seconds: float, first_seed: int, only: list[str], tries: int | None) -> int:
    """Fuzz, print a table, and say how many findings there were."""
    counts: Counter[tuple[str, str]] = Counter()
    findings: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = Fuzzer(Path(folder))
        names = only or list(fuzzer.targets)
        tried, spent = dict.fromkeys(names, 0), dict.fromkeys(names, 0.0)
        for name in names:  # compilers and caches are warm before memory is bounded
            with contextlib.suppress(Exception):
                attempt(fuzzer, name, -1)
        started, done, said = time.monotonic(), 0, 0.0
        with limits():
            while (begun := time.monotonic()) < started + seconds:
                names = [name for name in names if tries is None or tried[name] < tries]
                if not names:
                    break
                name = min(names, key=spent.__getitem__)  # all targets get the same time
                seed = first_seed + tried[name]
                tried[name] += 1
                done += 1
                try:
                    counts[name, attempt(fuzzer, name, seed)] += 1
                except BaseException as error:
                    if isinstance(error, KeyboardInterrupt):
                        break
                    counts[name, "FINDING"] += 1
                    where = traceback.extract_tb(error.__traceback__)[-1]
                    kind = f"{name}: {type(error).__name__} in {Path(where.filename).name}, line {where.lineno}"
                    if kind not in findings:
                        findings[kind] = f"--only {name} --seed {seed} --tries 1"
                        traceback.print_exc()
                        print(f"FINDING {kind}; {findings[kind]}", file=sys.stderr, flush=True)
                spent[name] += time.monotonic() - begun
                if time.monotonic() > started + said + 60:
                    said += 60
                    print(f"{said:.0f} s: {done:,} tries, {len(findings)} findings", file=sys.stderr, flush=True)
        elapsed = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for name in tried:
        outcomes = {outcome: n for (target, outcome), n in counts.items() if target == name}
        print(
            f"{name:<15} {sum(outcomes.values()):>9,}  " + ", ".join(f"{n:,} {o}" for o, n in sorted(outcomes.items()))
        )
    print(f"{'all':<15} {done:>9,}  in {elapsed:,.0f} s, at most {peak:,.0f} MB, {len(findings)} kinds of findings")
    for kind, how in findings.items():
        print(f"  {kind}; again with: python tests/fuzz.py {how}")
    return 1 if findings else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[], help="targets")
    parser.add_argument("--tries", type=int, help="per target")
    options = parser.parse_args()
    sys.exit(run(options.seconds, options.seed, options.only, options.tries))

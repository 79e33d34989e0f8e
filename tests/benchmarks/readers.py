"""How fast tables and records are read, beside the plain file with the same texts.

Run it as ``python tests/benchmarks/readers.py``. Every format holds the same documents; in a fifth of them the text is
broken over lines and has quotes, so that its field is quoted (CSV) or escaped (JSON Lines). Reading, parsing, hashing
and tokenizing are measured in seconds of the processor, all threads together. The formats take turns; the median of the
rounds is printed as megabytes of text per second and core, and as a share of the plain file's.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from jose_embed.text.reader import BlockReader
from jose_embed.text.records import TextOptions
from jose_embed.text.sources import find_sources
from jose_embed.text.tokenizers import get_tokenizer
from jose_embed.text.word_table import CompiledWords


def documents(n_bytes: int, words_per_document: int, seed: int = 1) -> list[str]:
    """Documents of words whose frequencies fall as in natural text; a fifth have line breaks and quotes."""
    random = np.random.default_rng(seed)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    lengths = random.integers(2, 12, 50_000)
    words = np.array(["".join(random.choice(list(letters), n)) for n in lengths])
    shares = 1 / np.arange(1, len(words) + 1)
    texts: list[str] = []
    size = 0
    while size < n_bytes:
        chosen = random.choice(words, (1000, words_per_document), p=shares / shares.sum())
        for number, row in enumerate(chosen):
            text = " ".join(row)
            if number % 5 == 0:
                middle = len(text) // 2
                text = f'{text[:middle]}\nhe said "{text[middle:]}"'
            texts.append(text)
            size += len(text) + 1
    return texts


def write(folder: Path, texts: list[str]) -> dict[str, Path]:
    """The same texts in every format."""
    files = {name: folder / f"texts.{name}" for name in ("txt", "csv", "jsonl")}
    files["txt"].write_text("".join(text.replace("\n", " ") + "\n" for text in texts))
    with files["csv"].open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text"])
        writer.writerows((f"D-{number}", text) for number, text in enumerate(texts))
    with files["jsonl"].open("w") as file:
        file.writelines(json.dumps({"id": f"D-{number}", "text": text}) + "\n" for number, text in enumerate(texts))
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        print("pyarrow is not installed: Parquet is left out")
        return files
    files["parquet"] = folder / "texts.parquet"
    pq.write_table(pa.table({"id": [f"D-{n}" for n in range(len(texts))], "text": texts}), files["parquet"])
    return files


def seconds(path: Path, *, ids: bool, tokenize: bool) -> float:
    """Seconds of the processor that reading a file takes."""
    options = TextOptions(id_field="id" if ids and path.suffix != ".txt" else None)
    table = CompiledWords(get_tokenizer("words").rules())
    before = time.process_time()
    with BlockReader(find_sources(path), options=options) as reader:
        for block in reader:
            if tokenize:
                table.add_lines(block.data)
    return time.process_time() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--words", type=int, nargs="+", default=[30, 120, 1000], help="words per document")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ids", action="store_true", help="read the id column too")
    arguments = parser.parse_args()
    for n_words in arguments.words:
        with tempfile.TemporaryDirectory() as folder:
            texts = documents(arguments.megabytes * 1_000_000, n_words)
            size = sum(len(text) + 1 for text in texts) / 1e6
            files = write(Path(folder), texts)
            times: dict[tuple[str, bool], list[float]] = {}
            for number in range(arguments.rounds + 1):
                for name, path in files.items():
                    for tokenize in (False, True):
                        taken = seconds(path, ids=arguments.ids, tokenize=tokenize)
                        if number:
                            times.setdefault((name, tokenize), []).append(taken)
            print(f"{size:.0f} MB of text, {len(texts):,} documents of {n_words} words")
            plain = statistics.median(times["txt", True])
            for name in files:
                alone, both = (statistics.median(times[name, tokenize]) for tokenize in (False, True))
                speeds = f"{size / alone:6.0f} MB/s read, {size / both:5.0f} with tokens"
                print(f"  {name:<8} {speeds}, {plain / both:.2f} of plain")


if __name__ == "__main__":
    main()

"""A word table whose tokenizer runs in worker processes.

Segmenters are slow, hold the interpreter's lock, and some must not be shared by threads. A worker is a program of its
own (segment_worker.py) and not a fork of this process: libraries with threads of their own hang in a fork, and a script
needs no main guard. Only strings and numbers travel; each worker loads the tokenizer by its name.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np

from jose_embed.errors import CorpusError, JoseError
from jose_embed.text.segment_worker import Numbered, read_message, write_message
from jose_embed.text.tokenizers import NormalizingTokenizer, Tokenizer, normalization_of
from jose_embed.text.word_table import Ends, Ids, PlainWords, WordTable, word_table

_PIECE: Final = 16_384  # characters that a worker gets at once
_WORTH_STARTING: Final = 4 * _PIECE  # characters from which on workers are started
_PROGRAM: Final = "import sys; sys.path[:] = sys.argv[1:]; from jose_embed.text.segment_worker import main; main()"


def table_for(tokenizer: Tokenizer, workers: int = 1) -> WordTable:
    """The fastest word table that a tokenizer allows.

    Args:
        tokenizer: The tokenizer. One with a true attribute ``in_processes`` may run in other processes: it is slow, and
            name and settings are enough to make it again.
        workers: How many processes.
    """
    inner = tokenizer.tokenizer if isinstance(tokenizer, NormalizingTokenizer) else tokenizer
    if workers > 1 and getattr(inner, "in_processes", False):
        return PooledWords(tokenizer, workers)
    return word_table(tokenizer)


class PooledWords(PlainWords):
    """The word table of a slow tokenizer; methods as in :class:`~jose_embed.text.word_table.WordTable`.

    Args:
        tokenizer: One that may run in other processes.
        workers: How many processes.
    """

    def __init__(self, tokenizer: Tokenizer, workers: int) -> None:
        super().__init__(tokenizer, tokenizer.name)
        self._workers = workers
        self._message = (tokenizer.name, tokenizer.settings(), normalization_of(tokenizer))
        self._processes: list[subprocess.Popen[bytes]] = []
        self._local = threading.local()
        self._pool: ThreadPoolExecutor | None = None
        self._end = weakref.finalize(self, _end, self._processes)

    def add_texts(self, texts: Iterable[Any]) -> tuple[Ids, Ends]:
        listed = list(texts)
        if self._pool is None:
            if sum(map(len, listed)) < _WORTH_STARTING:
                return super().add_texts(listed)
            self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="jose-segment")
        answers = [self._pool.submit(self._asked, piece) for piece in _pieces(listed)]
        found = [self._numbered(answer.result()) for answer in answers]
        ids = np.concatenate([numbers for numbers, _ in found])
        self._count(ids)
        return ids, np.cumsum(np.concatenate([sizes for _, sizes in found]))

    def close(self) -> None:
        """End the processes."""
        self._end()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _numbered(self, answer: Numbered) -> tuple[Ids, Ends]:
        """The running words of a piece in the numbers of this table, and how many each text has."""
        words, ids, sizes = answer
        numbers = self._numbers
        rows = np.array([numbers.setdefault(word, len(numbers)) for word in words], np.int32)
        return rows[np.frombuffer(ids, np.int32)], np.frombuffer(sizes, np.int64)

    def _asked(self, texts: list[str]) -> Numbered:
        """The answer of this thread's process."""
        process = getattr(self._local, "process", None) or self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            write_message(process.stdin, texts)
            answer = read_message(process.stdout)
        except (EOFError, OSError, ValueError):
            process.kill()
            status = process.wait()
            what = f"a worker process of the tokenizer {self._name!r} ended (status {status})"
            raise CorpusError(f"{what}; try workers=1, and look at the memory") from None
        if isinstance(answer, JoseError):
            raise answer
        if isinstance(answer, str):
            raise CorpusError(f"the tokenizer {self._name!r} failed: {answer}")
        numbered: Numbered = answer
        return numbered

    def _started(self) -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C in a terminal reaches this process alone, which then ends its workers.
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._processes.append(process)
        self._local.process = process
        assert process.stdin is not None
        with contextlib.suppress(OSError):  # the answer to the first texts tells
            write_message(process.stdin, self._message)
        return process


def _pieces(texts: list[str]) -> Iterator[list[str]]:
    """Runs of texts of about ``_PIECE`` characters."""
    piece: list[str] = []
    size = 0
    for text in texts:
        piece.append(text)
        size += len(text)
        if size >= _PIECE:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
    processes.clear()

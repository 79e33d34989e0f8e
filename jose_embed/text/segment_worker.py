"""The program of a worker process that splits texts; :mod:`jose_embed.text.segment_pool` starts it.

It reads messages from standard input and answers on standard output: eight bytes of length, then a pickle. The first
message names the tokenizer; every other one is a list of texts. It ends when its input does.
"""

from __future__ import annotations

import os
import pickle
import struct
import sys
from array import array
from typing import IO, Any

from jose_embed.errors import JoseError
from jose_embed.text.tokenizers import Tokenizer, get_tokenizer, normalizing

_LENGTH = struct.Struct("<Q")

#: The different words of some texts, int32 numbers of the running words, and int64 numbers of words of each text.
Numbered = tuple[list[str], bytes, bytes]


def write_message(file: IO[bytes], value: Any) -> None:
    """Write a value for :func:`read_message`."""
    content = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    file.write(_LENGTH.pack(len(content)) + content)
    file.flush()


def read_message(file: IO[bytes]) -> Any:
    """The next value.

    Raises:
        EOFError: there is none, or only a part of one.
    """
    head = file.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    content = file.read(_LENGTH.unpack(head)[0])
    if len(content) < _LENGTH.unpack(head)[0]:
        raise EOFError
    return pickle.loads(content)


def main() -> None:
    """Answer messages until there are no more."""
    messages, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not be among the answers
    try:
        name, settings, normalization = read_message(messages)
        tokenizer: Tokenizer | None = None
        while True:
            texts = read_message(messages)
            try:
                tokenizer = tokenizer or normalizing(get_tokenizer(name, settings), normalization)
                answer: Any = _numbered(tokenizer, texts)
            except JoseError as error:
                answer = error
            except Exception as error:  # of any kind, as tokenizers are foreign code
                answer = f"{type(error).__name__}: {str(error)[:500]}"
            write_message(answers, answer)
    except (EOFError, BrokenPipeError):
        pass


def _numbered(tokenizer: Tokenizer, texts: list[str]) -> Numbered:
    numbers: dict[str, int] = {}
    ids, sizes = array("i"), array("q")
    for text in texts:
        words = tokenizer(text)
        ids.extend([numbers.setdefault(word, len(numbers)) for word in words])
        sizes.append(len(words))
    return list(numbers), ids.tobytes(), sizes.tobytes()

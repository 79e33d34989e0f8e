"""A vocabulary is read line by line."""

from __future__ import annotations

from typing import Any, cast

from jose_embed.storage.columns import read_vocabulary
from jose_embed.storage.directory import DirectoryReader


class Whole(str):
    """The text of a file, which is never split as a whole."""

    __slots__ = ()

    def split(self, *arguments: Any) -> Any:
        raise AssertionError("split as a whole")

    splitlines = split


class File(bytes):
    """What a directory reads."""

    def decode(self, *arguments: Any) -> Whole:
        return Whole(super().decode(*arguments))


class Directory:
    """A directory of one file."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, name: str) -> File:
        return File(self.data)


def test_only_a_line_feed_ends_a_line() -> None:
    data = "a\rb\t5\nc\x85d\t4\ne\u2028f\t4\ng\x0c\t1\n".encode()
    words, counts = read_vocabulary(cast(DirectoryReader, Directory(data)), 4, 14)
    assert words == ["a\rb", "c\x85d", "e\u2028f", "g\x0c"]
    assert counts.tolist() == [5, 4, 4, 1]

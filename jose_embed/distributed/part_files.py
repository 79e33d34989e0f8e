"""Parquet files with the vectors of documents, each written by one machine, to a folder or an object store.

Columns: ``id`` (string), ``vector`` (list of float32 with a fixed length; null without a known word), ``tokens``
(int64), and, if they are kept, ``text`` (string) and ``fields`` (string, a JSON object). A file appears when it is
complete; until then its name begins with a dot, and readers of data sets pass it over.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import TracebackType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from jose_embed.errors import ConfigError, MissingExtraError, TrainingError
from jose_embed.text.records import TextOptions
from jose_embed.text.remote import is_remote, opened_store
from jose_embed.text.texts import KeptDocument

_FACTS: Final = b"jose-embed"  # the key of the facts in the file's metadata


class PartFile:
    """A context in which a file is written.

    Args:
        folder: A folder, which is made, or the URI of one.
        name: The name of the file; folders in it are made.
        dim: The dimension of the vectors.
        options: What is kept of documents.
        facts: Stored with the file, for :func:`facts_of_part`.

    Attributes:
        n_bytes: The size of the file, at the end.

    Raises:
        MissingExtraError: pyarrow is not installed.
        TrainingError: the file cannot be written.
    """

    def __init__(
        self,
        folder: str,
        name: str,
        dim: int,
        options: TextOptions | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        try:
            self._pa, self._parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
        except ImportError:
            raise MissingExtraError("writing Parquet", "parquet") from None
        pa, options = self._pa, options or TextOptions()
        self._texts, self._fields = options.keep_text, bool(options.keep_fields)
        columns = [("id", pa.string()), ("vector", pa.list_(pa.float32(), dim)), ("tokens", pa.int64())]
        columns += [("text", pa.string())] * self._texts + [("fields", pa.string())] * self._fields
        self._schema = pa.schema(columns, metadata={_FACTS: json.dumps(dict(facts or {})).encode()})
        self._store, path = _store(folder)
        self._path = f"{path}/{name}"
        place, _, last = self._path.rpartition("/")
        self._place, self._partial = place, f"{place}/.{last}.tmp-{os.getpid()}-{secrets.token_hex(4)}"
        self._shown = f"{folder.rstrip('/')}/{name}".partition("?")[0]
        self.n_bytes = 0

    def __enter__(self) -> PartFile:
        try:
            self._store.create_dir(self._place, recursive=True)
            self._sink = self._store.open_output_stream(self._partial)
            self._file = self._parquet.ParquetWriter(self._sink, self._schema)
        except OSError as error:
            raise self._failed(error) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()
            self.n_bytes = self._sink.tell() if not self._sink.closed else 0
            self._sink.close()
            if kind is None:
                self.n_bytes = int(self._store.get_file_info(self._partial).size)
                self._store.move(self._partial, self._path)
        except OSError as failure:
            if kind is None:
                raise self._failed(failure) from None
        finally:
            if kind is not None:
                with contextlib.suppress(OSError):
                    self._store.delete_file(self._partial)

    def add(
        self,
        ids: Sequence[str],
        vectors: npt.NDArray[np.float32],
        n_tokens: npt.NDArray[np.int64],
        kept: Sequence[KeptDocument] | None = None,
        known: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """Write documents.

        Args:
            ids: Their ids.
            vectors: float32 (n, dim).
            n_tokens: int64 (n,), their words.
            kept: Their texts and fields.
            known: bool (n,): the others have no vector; all have one if None.
        """
        pa = self._pa
        numbers = pa.array(np.ascontiguousarray(vectors).reshape(-1), pa.float32())
        mask = None if known is None else pa.array(~known)
        column = pa.FixedSizeListArray.from_arrays(numbers, type=self._schema.field("vector").type, mask=mask)
        arrays = [pa.array(ids, pa.string()), column, pa.array(n_tokens, pa.int64())]
        if self._texts:
            arrays.append(pa.array([each.text for each in kept or ()], pa.string()))
        if self._fields:
            arrays.append(pa.array([json.dumps(each.fields) for each in kept or ()], pa.string()))
        try:
            self._file.write_table(pa.table(arrays, schema=self._schema))
        except OSError as error:
            raise self._failed(error) from None

    def remove(self) -> None:
        """Delete the file that was written."""
        try:
            self._store.delete_file(self._path)
        except OSError as error:
            raise self._failed(error) from None

    def _failed(self, error: OSError) -> TrainingError:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        return TrainingError(f"{self._shown}: cannot be written ({reason}); make it accessible, or name another folder")


def check_folder(folder: str, *, resumed: bool) -> None:
    """Refuse a folder before a training whose documents are to be written there.

    Args:
        folder: The folder, also of an object store.
        resumed: Whether an interrupted training continues, which may have written some files.

    Raises:
        ConfigError: it holds documents of another training.
        MissingExtraError: pyarrow is not installed.
        TrainingError: it cannot be written.
    """
    file = PartFile(folder, f".check-{secrets.token_hex(4)}", 1)
    with file:
        pass
    file.remove()
    store, path = _store(folder)
    found = store.get_file_info(import_module("pyarrow.fs").FileSelector(path))
    names = sorted(one.base_name for one in found if re.fullmatch(r"part-\d+\.parquet", one.base_name))
    if names and not resumed:
        raise ConfigError(
            f"{folder.partition('?')[0]}: holds {names[0]} of another training; remove it, or name another folder"
        )


def facts_of_part(folder: str, name: str) -> dict[str, Any] | None:
    """The facts of a complete file; None if there is none, and no facts of a file that is not ours."""
    store, path = _store(folder)
    parquet, fs = import_module("pyarrow.parquet"), import_module("pyarrow.fs")
    try:
        if store.get_file_info(f"{path}/{name}").type == fs.FileType.NotFound:
            return None
        with store.open_input_file(f"{path}/{name}") as file:
            metadata = parquet.read_schema(file).metadata or {}
        found = json.loads(metadata.get(_FACTS, b"{}"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _store(folder: str) -> tuple[Any, str]:
    if is_remote(folder):
        store, path, _ = opened_store(folder)
        return store, path
    return import_module("pyarrow.fs").LocalFileSystem(), os.path.abspath(folder)

"""Files of object stores, such as ``s3://bucket/folder/*.parquet``; opened by pyarrow, of the extra ``parquet``.

Credentials, region and endpoint come from the environment, as for other programs, or from the URI
(``s3://bucket/file?region=...&endpoint_override=...``); names in messages and ids are without them.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

from jose_embed.errors import CorpusError, MissingExtraError

_URI = re.compile(r"([a-z][a-z0-9+.-]+)://")
_SECRETS = re.compile(r"://[^/@\s]*@")
_GLOB = re.compile(r"\*\*/|\*|\[[^\]/]+\]")


def is_remote(name: str) -> bool:
    """Whether a name is a URI.

    Example:
        >>> is_remote("s3://bucket/file"), is_remote("folder/file")
        (True, False)
    """
    return _URI.match(name) is not None


def opened_store(uri: str) -> tuple[Any, str, str]:
    """The file system of a URI, the path in it, and the URI without what only the connection needs.

    Raises:
        CorpusError: a URI that is not understood, or a store that cannot be asked.
        MissingExtraError: pyarrow is not installed.
    """
    try:
        fs = import_module("pyarrow.fs")
    except ImportError:
        raise MissingExtraError(f"{uri.split('://')[0]}:// in a name", "parquet") from None
    scheme, _, rest = uri.partition("://")
    place, question, query = rest.partition("?")
    # A glob is not part of the connection, and not a valid URI.
    fixed = _GLOB.split(place)[0]
    try:
        store, path = fs.FileSystem.from_uri(f"{scheme}://{fixed}{question}{query}")
    except (ValueError, NotImplementedError) as error:
        raise CorpusError(f"{scheme}://...: this name is not understood: {_first_line(error)}") from None
    except OSError as error:  # of S3, which is asked for the region of a bucket
        raise CorpusError(
            f"{scheme}://...: the store cannot be asked: {_first_line(error)}; check the network and the name of the "
            "bucket, or name the region or the server: ?region=eu-central-1, ?endpoint_override=HOST:PORT"
        ) from None
    path = path.rstrip("/")
    if fixed != place:
        path += "/" * fixed.endswith("/") + place[len(fixed) :]
    return store, path, f"{scheme}://{path}"


def remote_files(uri: str) -> tuple[Any, list[str], str | None, str]:
    """The files of a URI of a file, a folder or a glob, sorted; names that begin with a dot are skipped.

    Returns:
        The file system, the paths, the folder if it is one (empty for a glob), and what makes a URI of each path.

    Raises:
        CorpusError: nothing is there, or the store cannot be asked.
        MissingExtraError: pyarrow is not installed.
    """
    store, path, name = opened_store(uri)
    fs = import_module("pyarrow.fs")
    begin = name.removesuffix(path)
    try:
        if (first := _GLOB.search(path)) is not None:
            folder = path[: first.start()].rpartition("/")[0]
            found = store.get_file_info(fs.FileSelector(folder, recursive=True, allow_not_found=True))
            matches = re.compile(_regex(path)).fullmatch
            paths = sorted(info.path for info in found if info.is_file and matches(info.path))
            if not paths:
                raise CorpusError(f"{name}: no file matches this pattern; check it and the folder it starts from")
            return store, paths, "", begin
        info = store.get_file_info(path)
        if info.is_file:
            return store, [path], None, begin
        found = store.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    except OSError as error:
        raise CorpusError(f"{name}: cannot be read: {_first_line(error)}") from None
    inner = len(path) + 1
    paths = sorted(
        one.path for one in found if one.is_file and not any(p.startswith(".") for p in one.path[inner:].split("/"))
    )
    if not paths:
        raise CorpusError(f"{name}: there is no such file or folder, or no file in it")
    return store, paths, path, begin


def _regex(pattern: str) -> str:
    """A glob as a regular expression; ``**/`` crosses folders."""
    parts, at = [], 0
    for match in _GLOB.finditer(pattern):
        parts.append(re.escape(pattern[at : match.start()]))
        parts.append({"**/": "(?:.*/)?", "*": "[^/]*"}.get(match[0], match[0]))
        at = match.end()
    return "".join([*parts, re.escape(pattern[at:])])


def _first_line(error: Exception) -> str:
    line = str(error).splitlines()[0] if str(error) else type(error).__name__
    return _SECRETS.sub("://", line)[:300]

"""Texts and fields of documents in answers."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Final, NamedTuple

import orjson
from starlette.requests import Request

from jose_embed.errors import ModelError
from service.engine.store import Store
from service.problems import Problem, shown
from service.search.queries import Found, Snapshot
from service.search.served_model import ServedModel
from service.web.route import engine_of, room_for

_CHUNK: Final = 50  # documents that one job reads
_SHARE: Final = 4  # one answer takes at most this part of the memory for answers
_log = logging.getLogger("service")


def kept_document(served: ServedModel, id: str) -> tuple[str | None, dict[str, Any]] | None:
    """The kept text and fields of a trained document, or None if there is no document of this id; reads the disk.

    Raises:
        Problem: ``storage-unavailable``.
    """
    try:
        return served.kept_document(id)
    except ModelError as error:
        raise damaged_texts(error) from None


def damaged_texts(error: ModelError) -> Problem:
    """The problem of kept texts that are damaged."""
    _log.error("%s", error)
    detail = "the texts that the model keeps are damaged; restore the model directory, then POST /admin/reload"
    return Problem("storage-unavailable", detail)


class Trained(NamedTuple):
    """A document of the training, with what the model keeps of it."""

    id: str
    text: str | None
    fields: Mapping[str, Any]


def trained_documents(served: ServedModel, after: str, *, texts: bool) -> Iterator[Trained]:
    """The documents of the training in its order, behind one.

    Args:
        served: The model.
        after: The id; the empty one stands before all.
        texts: Read the texts and fields that the model keeps.

    Raises:
        Problem: ``unknown-document``: there is no document ``after``; ``storage-unavailable``.
    """
    first = 0
    if after:
        row = served.document_row(after)
        if row is None:
            raise Problem("unknown-document", f"there is no trained document {shown(after)}, which after= names")
        first = row + 1
    ids = served.embeddings.doc_ids
    for start in range(first, len(ids), _CHUNK):
        rows = range(start, min(len(ids), start + _CHUNK))
        try:
            kept = served.kept_documents(rows) if texts else [(None, {})] * len(rows)
        except ModelError as error:
            raise damaged_texts(error) from None
        for row, (text, fields) in zip(rows, kept, strict=True):
            yield Trained(ids[row], text, fields)


def fields_json(fields: Mapping[str, Any]) -> orjson.Fragment:
    """Fields as JSON; a number that is not finite is null."""
    try:
        return orjson.Fragment(orjson.dumps(dict(fields)))
    except TypeError:  # an integer of more than 64 bits, or a lone surrogate
        finite = json.loads(json.dumps(dict(fields)), parse_constant=lambda _: None)
        return orjson.Fragment(json.dumps(finite, ensure_ascii=False).encode("utf-8", "replace"))


async def found_json(
    request: Request, snapshot: Snapshot, found: Found, include: Sequence[str]
) -> list[orjson.Fragment]:
    """Found documents as JSON, with their texts and fields.

    Args:
        request: The request that they answer.
        snapshot: The state that was searched.
        found: The documents.
        include: "text", "fields".

    Raises:
        Problem: ``invalid-request``: the answer would be too large; ``saturated``, ``storage-unavailable``.
    """
    engine = engine_of(request)
    most = engine.settings.max_answer_bytes // _SHARE
    pieces: list[bytes] = []
    n_bytes = 0
    with ExitStack() as rooms:
        for first in range(0, len(found), _CHUNK):
            some = found[first : first + _CHUNK]
            job = partial(_documents_json, engine.store, snapshot.served, some, include, most - n_bytes)
            made = await engine.work(job)
            size = sum(map(len, made))
            rooms.enter_context(room_for(request, size))
            n_bytes += size
            pieces += made
    return [orjson.Fragment(piece) for piece in pieces]


def _documents_json(store: Store, served: ServedModel, found: Found, include: Sequence[str], most: int) -> list[bytes]:
    """Some of the found documents as JSON, of at most ``most`` bytes together."""
    pieces: list[bytes] = []
    for neighbor in found:
        text: str | None = None
        fields: dict[str, Any] = {}
        if neighbor["source"] == "trained":
            kept = kept_document(served, neighbor["id"])
            if kept is not None:
                text, fields = kept
        else:
            added = store.get(neighbor["id"])  # None if it was deleted after the search
            if added is not None:
                text, fields = added.text, json.loads(added.fields)
        shown: dict[str, Any] = {"text": text} if "text" in include else {}
        shown |= {"fields": fields_json(fields)} if "fields" in include else {}
        pieces.append(orjson.dumps(neighbor | shown))
        most -= len(pieces[-1])
        if most < 0:
            detail = "the texts and fields of the found documents are too large for one answer; ask for a smaller k"
            raise Problem("invalid-request", detail, errors=[])
    return pieces

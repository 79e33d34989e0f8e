"""Documents: added, replaced, read, listed and deleted. A 2xx means that the change is on the disk and in the index."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import orjson
from fastapi import Header, Query
from fastapi import Path as PathParameter
from pydantic import Field, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from jose_embed.model.inference import Inferred
from service.calls.embed import no_known_words, within_limit
from service.calls.kept import fields_json, kept_document, trained_documents
from service.engine.records import NO_FIELDS, Delete, Document, Outcome, Put, Summary
from service.engine.serving import Engine
from service.engine.writing import StaleModelError
from service.problems import Problem, from_validation, shown
from service.search.served_model import ServedModel
from service.web.route import ReadRoute, WriteRoute, answer, calls, engine_of, problems, results, room_for
from service.web.schemas import (
    LEFT_OUT,
    MAX_FIELD_BYTES,
    DocumentBatch,
    DocumentBatchAnswer,
    DocumentId,
    DocumentList,
    DocumentListQuery,
    DocumentPut,
    DocumentWritten,
    PutOperation,
)
from service.web.schemas import Document as DocumentAnswer

_ID: Final[TypeAdapter[str]] = TypeAdapter(DocumentId)
_SHARE: Final = 16  # one page takes at most this part of the memory for answers
_TRIES: Final = 5  # a write is embedded again when the model was replaced meanwhile

read_router = calls(ReadRoute, "documents")
write_router = calls(WriteRoute, "documents")

PathId = Annotated[DocumentId, PathParameter(description="Any printable text; a slash may be part of it.")]
Source = Annotated[
    Literal["all", "added", "trained"], Query(description="Where the id is looked up (all: added documents first).")
]
ETag = Annotated[str, Field(pattern=r'^("[0-9]{1,18}"|\*)$')]
Star = Annotated[str, Field(pattern=r"^\*$")]
IfMatch = Annotated[ETag, Header(description='Only if the document has this ETag, such as "7".')]
IfNoneMatch = Annotated[Star, Header(description="* : only if there is no such document.")]
LINKS: Final[dict[str, Any]] = {
    name: {"operationId": operation, "parameters": {"id": "$request.path.id"}}
    for name, operation in (("read", "read_document"), ("replace", "put_document"), ("delete", "delete_document"))
}
ETAG: Final[dict[str, Any]] = {"ETag": {"description": "The version, for If-Match.", "schema": {"type": "string"}}}


@read_router.get(
    "/documents",
    response_model=DocumentList,
    responses=problems("unknown-document", "storage-unavailable"),
    summary="List documents",
)
async def list_documents(request: Request, query: Annotated[DocumentListQuery, Query()]) -> Response:
    """The added documents in the order of their ids, or those of the training, page by page. Writes meanwhile move no
    document to another page: one that is there all the time is listed once. A page of long texts may be shorter than
    its limit."""
    engine = engine_of(request)
    listed = _listed_trained if query.source == "trained" else _listed_added
    content, size = await engine.work(functools.partial(listed, engine, query))
    with room_for(request, size):
        return answer(content)


def _listed_added(engine: Engine, query: DocumentListQuery) -> tuple[bytes, int]:
    page: Sequence[Document | Summary]
    if "text" in query.included:
        page = engine.store.whole_page(query.after, query.limit, engine.settings.max_answer_bytes // _SHARE)
    else:
        page = engine.store.page(query.after, query.limit)
    listed: list[dict[str, Any]] = []
    for item in page:
        n_characters = item.characters if isinstance(item, Summary) else len(item.text)
        dates = {"created": item.created, "updated": item.updated}
        entry: dict[str, Any] = {"id": item.id, "revision": item.serial, "characters": n_characters} | dates
        if isinstance(item, Document):
            entry["text"] = item.text
        if "fields" in query.included:
            entry["fields"] = orjson.Fragment(item.fields)
        listed.append(entry)
    more = bool(page) and bool(engine.store.page(page[-1].id, 1))
    content = orjson.dumps({"documents": listed, "next": page[-1].id if more else None})
    return content, len(content)


def _listed_trained(engine: Engine, query: DocumentListQuery) -> tuple[bytes, int]:
    pieces: list[bytes] = []
    left = engine.settings.max_answer_bytes // _SHARE
    last, more = "", False
    for kept in trained_documents(engine.snapshot.served, query.after, texts=bool(query.include)):
        if len(pieces) == query.limit or left < 0:
            more = True
            break
        last = kept.id
        entry: dict[str, Any] = {"id": kept.id, "revision": None, "characters": None, "created": None, "updated": None}
        entry |= {"text": kept.text} if "text" in query.included else {}
        entry |= {"fields": fields_json(kept.fields)} if "fields" in query.included else {}
        pieces.append(orjson.dumps(entry))
        left -= len(pieces[-1])
    tail = orjson.dumps({"next": last if more else None})
    content = b'{"documents":[' + b",".join(pieces) + b"]," + tail[1:]
    return content, len(content)


@read_router.get(
    "/documents/{id:path}",
    response_model=DocumentAnswer,
    responses=problems("unknown-document", "storage-unavailable") | {200: {"headers": ETAG}},
    summary="Read a document",
)
async def read_document(request: Request, id: PathId, source: Source = "all") -> Response:
    """An added document as it was stored, or a trained document of a model that keeps texts or fields. Only an added
    document has an ETag."""
    engine = engine_of(request)
    snapshot = engine.snapshot
    found = None if source == "trained" else await engine.work(lambda: engine.store.get(id))
    if found is None:
        if source == "added":
            raise Problem("unknown-document", f"there is no added document {shown(id)}")
        return answer(await engine.work(functools.partial(_trained_json, snapshot.served, id)))
    body = {
        "id": id,
        "source": "added",
        "revision": found.serial,
        "text": found.text,
        "fields": orjson.Fragment(found.fields),
        "created": found.created,
        "updated": found.updated,
        "searchable": engine.snapshot.library.vector(found.serial) is not None,
    }
    content = await engine.work(lambda: orjson.dumps(body))
    return answer(content, headers={"ETag": f'"{found.serial}"'})


def _trained_json(served: ServedModel, id: str) -> bytes:
    """A trained document as an answer shows it.

    Raises:
        Problem: ``unknown-document``, ``storage-unavailable``.
    """
    try:
        searchable = served.document(id) is not None
    except KeyError:
        raise Problem("unknown-document", f"there is no added or trained document {shown(id)}") from None
    kept = kept_document(served, id) if served.embeddings.keeps_documents else None
    if kept is None:
        detail = f"{shown(id)} is a trained document, and the model keeps no texts; train with --keep-text to show them"
        raise Problem("unknown-document", detail)
    text, fields = kept
    body = {"id": id, "source": "trained", "text": text, "fields": fields_json(fields)}
    return orjson.dumps(body | {"revision": None, "created": None, "updated": None, "searchable": searchable})


@write_router.put(
    "/documents/{id:path}",
    response_model=DocumentWritten,
    status_code=201,
    responses=problems(
        "no-known-words",
        "text-too-long",
        "precondition-failed",
        "storage-unavailable",
        "disk-full",
        "read-only",
        body=True,
    )
    | {
        200: {"model": DocumentWritten, "description": "Replaced", "headers": ETAG, "links": LINKS},
        201: {"description": "Added", "headers": ETAG, "links": LINKS},
    },
    summary="Add or replace a document",
)
async def put_document(
    request: Request,
    id: PathId,
    document: DocumentPut,
    if_match: IfMatch = LEFT_OUT,
    if_none_match: IfNoneMatch = LEFT_OUT,
) -> Response:
    """Stores a text and its fields under an id; searches find it at once. A text without a known word has no vector and
    is refused, unless the model composes one (`composed`)."""
    engine = engine_of(request)
    text, _ = within_limit(document.text, engine.settings.max_text_characters)
    fields = fields_text(document.fields)
    for _ in range(_TRIES):
        served = engine.snapshot.served
        (made,) = await engine.embed(served, [text])
        if made.vector is None:
            raise no_known_words(made)
        change = Put(
            id,
            text,
            served.id,
            made.vector,
            _serial(if_match),
            if_absent=if_none_match is not None,
            if_present=if_match == "*",
            fields=fields,
        )
        try:
            (outcome,) = await engine.write(served.id, [change])
        except StaleModelError:
            continue
        if isinstance(outcome, Problem):
            raise outcome
        body = _written(outcome, made) | {
            "created": outcome.created,
            "updated": outcome.updated,
            "coverage": round(made.coverage, 6),
        }
        status = 201 if outcome.replaced is None else 200
        return answer(body | {"model": served.reference}, status, {"ETag": f'"{outcome.serial}"'})
    raise _model_keeps_changing()


@write_router.delete(
    "/documents/{id:path}",
    status_code=204,
    responses=problems(
        "unknown-document", "precondition-failed", "storage-unavailable", "disk-full", "read-only", right="write"
    ),
    summary="Delete a document",
)
async def delete_document(request: Request, id: PathId, if_match: IfMatch = LEFT_OUT) -> Response:
    """Deletes an added document; searches no longer find it."""
    change = Delete(id, _serial(if_match), if_present=if_match == "*")
    (outcome,) = await engine_of(request).write(None, [change])
    if isinstance(outcome, Problem):
        raise outcome
    return Response(status_code=204)


@write_router.post(
    "/documents:batch",
    response_model=DocumentBatchAnswer,
    responses=problems("storage-unavailable", "disk-full", "read-only", body=True),
    summary="Add, replace and delete many documents",
)
async def batch_documents(request: Request, batch: DocumentBatch) -> Response:
    """Makes changes in order and writes them together. Each has a status of its own: one that is refused does not undo
    the others. What succeeded is on the disk and in the index when the answer comes."""
    engine = engine_of(request)
    for _ in range(_TRIES):
        served = engine.snapshot.served
        prepared, made = await _prepared(engine, served, batch)
        changes = [change for change in prepared if not isinstance(change, Problem)]
        try:
            outcomes = await engine.write(served.id, changes)
        except StaleModelError:
            continue
        write_down = functools.partial(_results, served, batch, prepared, made, outcomes)
        return answer(await engine.work(write_down))
    raise _model_keeps_changing()


async def _prepared(
    engine: Engine, served: ServedModel, batch: DocumentBatch
) -> tuple[list[Put | Delete | Problem], dict[int, Inferred]]:
    """One change or problem per operation, and the vectors of the puts by their place."""
    most = engine.settings.max_text_characters
    prepared: list[Put | Delete | Problem | None] = []
    puts: list[int] = []
    texts: list[str] = []
    fields: list[str] = []
    for i, operation in enumerate(batch.operations):
        try:
            check_id(operation.id)
            if not isinstance(operation, PutOperation):
                prepared.append(Delete(operation.id))
                continue
            within_limit(operation.text, most)
            fields.append(fields_text(operation.fields))
            puts.append(i)
            texts.append(operation.text)
            prepared.append(None)
        except Problem as problem:
            prepared.append(problem)
    made = dict(zip(puts, await engine.embed(served, texts), strict=True))
    for (i, item), text, facts in zip(made.items(), texts, fields, strict=True):
        id = batch.operations[i].id
        put = None if item.vector is None else Put(id, text, served.id, item.vector, fields=facts)
        prepared[i] = put or no_known_words(item)
    return [change for change in prepared if change is not None], made


def check_id(id: str) -> None:
    """Lets the id of one of several documents pass.

    Raises:
        Problem: ``invalid-request``.
    """
    try:
        _ID.validate_python(id)
    except ValidationError as error:
        found = [{**each, "loc": ("id",)} for each in error.errors(include_url=False)]
        raise from_validation(found) from None


def fields_text(fields: Mapping[str, Any]) -> str:
    """Fields as they are stored: an object in JSON.

    Raises:
        Problem: ``invalid-request``: a number is not finite, or they are too large.
    """
    if not fields:
        return NO_FIELDS
    try:
        text = json.dumps(fields, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        detail = "fields hold a number that is not finite or has thousands of digits; send it as text"
        raise Problem("invalid-request", detail, errors=[]) from None
    if (n_bytes := len(text.encode())) > MAX_FIELD_BYTES:
        detail = f"the fields have {n_bytes} bytes; at most {MAX_FIELD_BYTES} are allowed"
        raise Problem("invalid-request", detail, errors=[])
    return text


def _results(
    served: ServedModel,
    batch: DocumentBatch,
    prepared: Sequence[Put | Delete | Problem],
    made: dict[int, Inferred],
    outcomes: Sequence[Outcome | Problem],
) -> bytes:
    rest = iter(outcomes)
    pieces: list[bytes] = []
    for i, (operation, change) in enumerate(zip(batch.operations, prepared, strict=True)):
        outcome = change if isinstance(change, Problem) else next(rest)
        item: dict[str, Any]
        if isinstance(outcome, Problem):
            item = {"status": outcome.status, "id": operation.id, "problem": outcome.document()}
        elif outcome.serial is None:
            item = {"status": 204, "id": operation.id}
        else:
            item = {"status": 201 if outcome.replaced is None else 200} | _written(outcome, made[i])
        pieces.append(orjson.dumps(item))
    return results(pieces, served.reference)


def _written(outcome: Outcome, made: Inferred) -> dict[str, Any]:
    head = {"id": outcome.id, "revision": outcome.serial, "tokens": made.n_tokens, "known": made.n_known}
    return head | ({"composed": True} if made.composed else {})


def _serial(if_match: str | None) -> int | None:
    """The version that an If-Match header names; ``*`` names none."""
    return None if if_match is None or if_match == "*" else int(if_match.strip('"'))


def _model_keeps_changing() -> Problem:
    return Problem("not-ready", f"the model was replaced {_TRIES} times while this was written")

"""Many documents in one call: import and export as NDJSON, and deletion by filter."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Annotated, Any, Final, NamedTuple

import orjson
from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from jose_embed.errors import ConfigError, ModelError
from jose_embed.model.filters import Filter, KnownFields
from service.calls.documents import check_id, fields_text
from service.calls.embed import no_known_words, within_limit
from service.calls.kept import Trained, damaged_texts, fields_json, trained_documents
from service.engine.records import Delete, Document, Put
from service.engine.serving import Engine
from service.engine.writing import StaleModelError
from service.problems import Problem
from service.search.texts import BulkEncoder
from service.web.body import validated
from service.web.route import (
    Admission,
    StreamReadRoute,
    StreamWriteRoute,
    answer,
    calls,
    engine_of,
    problems,
)
from service.web.schemas import Deleted, DeleteRequest, ExportQuery, ImportLine
from service.web.stream import NDJSON, Line, StreamedAnswer, lines_of

_CHUNK: Final = 500  # documents that are written together
_CHUNK_BYTES: Final = 1 << 20
_PAGE_CHARACTERS: Final = 1 << 20  # of an export
_REPORT_SECONDS: Final = 1.0
_WAIT_SECONDS: Final = 1.0  # that a line waits for others
_MOST_SHOWN: Final = 512  # characters of a refused id
_MOST_REFUSALS: Final = 100  # that are described; all are counted

read_router = calls(StreamReadRoute, "documents")
write_router = calls(StreamWriteRoute, "documents")

_LINES: Final[dict[str, Any]] = {NDJSON: {"schema": {"type": "string"}}}
_EXAMPLE: Final = '{"id": "note-1", "text": "parse a date", "fields": {"rating": 2}}\n'


@write_router.post(
    "/documents:import",
    response_class=StreamedAnswer,
    status_code=200,
    responses=problems(
        "not-ndjson", "malformed-json", "body-too-slow", "read-only", "not-ready", "storage-unavailable", right="write"
    )
    | {200: {"description": "Lines of progress; the last one has the status done or stopped.", "content": _LINES}},
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "A line per document, as `GET /documents:export` writes it.",
            "content": {NDJSON: {"schema": {"type": "string"}, "example": _EXAMPLE}},
        }
    },
    summary="Add or replace any number of documents",
)
async def import_documents(request: Request) -> Response:
    """Reads documents line by line, and stores them while they arrive. The body may have any length; a line is bounded
    like the body of another call.

    The answer has lines too. `progress`, about once a second, says how many lines are done with; what it counts as
    added or replaced is on the disk and in the index. `refused` describes a line that was not stored, for the first
    100. The last line is `done`, or `stopped` with the problem; then send what follows the document `id` of that line,
    or everything again: a document that is stored with the same text and fields is `unchanged` and costs little."""
    engine, admission = engine_of(request), request.app.state.transfers
    return StreamedAnswer(_Import(request, engine, admission).pieces(), closes=True)


class _Import:
    """One import in progress."""

    def __init__(self, request: Request, engine: Engine, admission: Admission) -> None:
        self._request = request
        self._engine = engine
        self._admission = admission
        self._counts = Counter({"added": 0, "replaced": 0, "unchanged": 0, "refused": 0})
        self._line = 0
        self._id: str | None = None
        self._reported = time.monotonic()
        self._refusals: list[bytes] = []
        self._waiting: list[Line] = []
        self._n_waiting = 0  # bytes
        self._stored = time.monotonic()
        self._bulk: BulkEncoder | None = None

    async def pieces(self) -> AsyncIterator[bytes]:
        """The lines of the answer."""
        settings = self._engine.settings
        begun = False
        runs = lines_of(self._request, settings.max_body_bytes, settings.body_seconds)
        try:
            async with contextlib.aclosing(runs):
                async for run in runs:
                    for line in run:
                        await self._take(line)
                    if not run or time.monotonic() - self._stored >= _WAIT_SECONDS:
                        await self._flush()
                    if report := self._report():
                        begun = True
                        yield report
            await self._flush()
        except Problem as problem:
            if not begun and not self._line:
                raise
            last = {"status": "stopped"} | self._state() | {"problem": problem.document()}
        else:
            last = {"status": "done"} | self._state()
        finally:
            self._admission.give_back(self._n_waiting)
        yield b"".join(self._refusals) + _line(last | {"model": self._engine.snapshot.served.reference})

    async def _take(self, line: Line) -> None:
        """Adds a line to those that wait, and stores them if they are enough."""
        n_bytes = len(line.content or b"")
        self._admission.take(n_bytes)
        self._waiting.append(line)
        self._n_waiting += n_bytes
        if len(self._waiting) >= _CHUNK or self._n_waiting >= _CHUNK_BYTES:
            await self._flush()

    async def _flush(self) -> None:
        await self._store(self._waiting)
        self._admission.give_back(self._n_waiting)
        self._waiting, self._n_waiting = [], 0
        self._stored = time.monotonic()

    def _state(self) -> dict[str, Any]:
        return {"line": self._line, "id": self._id} | self._counts

    def _report(self) -> bytes:
        refusals, self._refusals = self._refusals, []
        now = time.monotonic()
        if now - self._reported >= _REPORT_SECONDS:
            self._reported = now
            refusals.append(_line({"status": "progress"} | self._state()))
        return b"".join(refusals)

    async def _store(self, lines: Sequence[Line]) -> None:
        """Stores the documents of some lines.

        Raises:
            Problem: none of them was stored.
        """
        engine = self._engine
        if engine.draining:
            raise Problem("not-ready", "the service is stopping")
        if not lines:
            return
        read = await engine.long_work(functools.partial(_read, engine, lines), always=True)
        while True:
            served = engine.snapshot.served
            results = [item.change for item in read]
            puts = [(i, change) for i, change in enumerate(results) if isinstance(change, Put)]
            if self._bulk is None or self._bulk.model is not served.embeddings:
                self._bulk = BulkEncoder(served.embeddings)
            vectors = await engine.embed_bulk(served, self._bulk, [put.text for _, put in puts])
            made = list(zip(puts, vectors, strict=True))
            changes = [
                dataclasses.replace(put, model=served.id, vector=vector)
                for (_, put), vector in made
                if vector is not None
            ]
            lost = [pair for pair, vector in made if vector is None]
            explained = await engine.embed(served, [put.text for _, put in lost], always=True)
            for (i, _), inferred in zip(lost, explained, strict=True):
                results[i] = no_known_words(inferred)
            try:
                outcomes = await engine.write(served.id, changes, always=True)
                break
            except StaleModelError:
                continue
        written = iter(outcomes)
        for item, change in zip(read, results, strict=True):
            outcome = next(written) if isinstance(change, Put) else change
            if isinstance(outcome, Problem):
                self._refuse(item, outcome)
            elif outcome is None:
                self._counts["unchanged"] += 1
            else:
                self._counts["added" if outcome.replaced is None else "replaced"] += 1
        self._line = lines[-1].number
        self._id = next((item.id for item in reversed(read) if item.id is not None), self._id)

    def _refuse(self, item: _Item, problem: Problem) -> None:
        self._counts["refused"] += 1
        if self._counts["refused"] <= _MOST_REFUSALS:
            head = {"status": "refused", "line": item.line, "id": item.id}
            self._refusals.append(_line(head | {"problem": problem.document()}))


def _line(value: dict[str, Any]) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)


class _Item(NamedTuple):
    """A line that was read: its number, its id, and what is to be done; None if it is stored as it is."""

    line: int
    id: str | None
    change: Put | Problem | None


def _read(engine: Engine, lines: Sequence[Line]) -> list[_Item]:
    """What is to be done for each line; the changes lack a vector."""
    found = [_item(line, engine) for line in lines]
    names = Counter(item.change.id for item in found if isinstance(item.change, Put))
    stored = engine.store.get_many(list(names))
    for i, item in enumerate(found):
        if isinstance(item.change, Put) and names[item.change.id] == 1:  # of several, the last one counts
            there = stored.get(item.change.id)
            if there is not None and (there.text, there.fields) == (item.change.text, item.change.fields):
                found[i] = item._replace(change=None)
    return found


def _item(line: Line, engine: Engine) -> _Item:
    settings = engine.settings
    if line.content is None:
        detail = f"the line has more than {settings.max_body_bytes} bytes"
        return _Item(line.number, None, Problem("body-too-large", detail))
    read = validated(line.content.removeprefix(b"\xef\xbb\xbf") if line.number == 1 else line.content, ImportLine)
    if isinstance(read, Problem):
        return _Item(line.number, None, read)
    try:
        check_id(read.id)
        text, _ = within_limit(read.text, settings.max_text_characters)
        return _Item(line.number, read.id, Put(read.id, text, "", None, fields=fields_text(read.fields)))
    except Problem as problem:
        return _Item(line.number, read.id[:_MOST_SHOWN], problem)


# ----------------------------------------------------------------------------------------------------------------------


@read_router.get(
    "/documents:export",
    response_class=StreamedAnswer,
    status_code=200,
    responses=problems("unknown-document", "invalid-filter", "storage-unavailable")
    | {200: {"description": "A line per document.", "content": _LINES}},
    summary="All documents with their texts and fields",
)
async def export_documents(request: Request, query: Annotated[ExportQuery, Query()]) -> Response:
    """The added documents in the order of their ids, or those of the training, a line of JSON each: `id`, `source`,
    `text`, `fields` and, of added ones, `revision`, `created` and `updated`. Each document is as it was when its line
    was written; for a copy of one moment ask `POST /admin/snapshot`. An answer that ends early is cut off without the
    end of its encoding, which clients report; ask again with the last id in `after`."""
    engine = engine_of(request)
    chosen = None if query.filter is None else await _filter(engine, query.filter, query.source)
    if query.source == "trained":
        documents = trained_documents(engine.snapshot.served, query.after, texts=True)
        return StreamedAnswer(_trained_lines(engine, documents, chosen))
    return StreamedAnswer(_added_lines(engine, query.after, chosen))


async def _added_lines(engine: Engine, after: str, chosen: Filter | None) -> AsyncIterator[bytes]:
    while page := await engine.work(
        functools.partial(engine.store.whole_page, after, _CHUNK, _PAGE_CHARACTERS), always=True
    ):
        after = page[-1].id
        yield await engine.work(functools.partial(_added_page, page, chosen), always=True)


def _added_page(page: Sequence[Document], chosen: Filter | None) -> bytes:
    return b"".join(
        _line(
            {
                "id": item.id,
                "source": "added",
                "text": item.text,
                "fields": orjson.Fragment(item.fields),
                "revision": item.serial,
                "created": item.created,
                "updated": item.updated,
            }
        )
        for item in page
        if chosen is None or chosen.fits(json.loads(item.fields))
    )


async def _trained_lines(engine: Engine, documents: Iterator[Trained], chosen: Filter | None) -> AsyncIterator[bytes]:
    while page := await engine.work(lambda: list(_page_of(documents)), always=True):
        some = [item for item in page if chosen is None or chosen.fits(item.fields)]
        yield b"".join(
            _line({"id": item.id, "source": "trained", "text": item.text, "fields": fields_json(item.fields)})
            for item in some
        )


def _page_of(documents: Iterator[Trained]) -> Iterator[Trained]:
    n_characters = 0
    for item in itertools.islice(documents, _CHUNK):
        yield item
        n_characters += len(item.text or "")
        if n_characters > _PAGE_CHARACTERS:
            return


# ----------------------------------------------------------------------------------------------------------------------


@write_router.post(
    "/documents:delete",
    response_model=Deleted,
    responses=problems(
        "invalid-filter", "storage-unavailable", "disk-full", "read-only", "not-ready", body=True, right="write"
    ),
    summary="Delete all documents, or those of a filter",
)
async def delete_documents(request: Request, wanted: DeleteRequest) -> Response:
    """Deletes added documents, some hundreds at a time, in the order of their ids. A document that is written meanwhile
    may stay. If the call is interrupted, send it again."""
    engine = engine_of(request)
    chosen = None if wanted.filter is None else await _filter(engine, wanted.filter, "added")
    matched = deleted = 0
    after = ""
    while page := await engine.work(functools.partial(engine.store.page, after, _CHUNK), always=True):
        if engine.draining:
            raise Problem("not-ready", f"the service is stopping; {deleted} documents were deleted")
        after = page[-1].id
        fitting = [item for item in page if chosen is None or chosen.fits(json.loads(item.fields))]
        matched += len(fitting)
        if wanted.dry_run or not fitting:
            continue
        changes = [Delete(item.id, item.serial) for item in fitting]
        outcomes = await engine.write(None, changes, always=True)
        deleted += sum(not isinstance(outcome, Problem) for outcome in outcomes)
    return answer({"matched": matched, "deleted": deleted, "model": engine.snapshot.served.reference})


async def _filter(engine: Engine, text: str, source: str) -> Filter:
    """A filter that has been checked against the fields that documents have."""
    try:
        chosen = Filter.parse(text)
        if source == "trained":
            table = engine.snapshot.served.embeddings.document_search.fields
            await engine.work(functools.partial(chosen.fitting, table), always=True)
            return chosen
        known, after = KnownFields(), ""
        while after := await engine.work(functools.partial(_note_page, engine, known, after), always=True):
            pass
        chosen.check(known)
    except ConfigError as error:
        raise Problem("invalid-filter", str(error)) from None
    except ModelError as error:
        raise damaged_texts(error) from None
    return chosen


def _note_page(engine: Engine, known: KnownFields, after: str) -> str:
    """Note the fields of some documents behind an id; the last id, empty if there are no more."""
    page = engine.store.page(after, _CHUNK)
    for item in page:
        known.add(json.loads(item.fields))
    return page[-1].id if page else ""

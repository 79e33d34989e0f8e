"""The service about itself: the readiness probe, the answer to ``GET /info``, the gauges."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import platform
import re
import sqlite3
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from jose_embed.version import __version__
from service.engine.metrics import Metrics
from service.engine.records import StoreError
from service.problems import Problem
from service.search.queries import SearchQuery, Snapshot, answers
from service.search.served_model import ServedModel
from service.search.texts import vectors_of
from service.settings import MAX_BATCH, MAX_K, MAX_QUERY_WORDS, MAX_SUGGESTIONS, Settings

if TYPE_CHECKING:
    from service.engine.serving import Engine

_PROBE_SECONDS: Final = 2.0
_STUCK_SECONDS: Final = 60.0  # on one batch; no batch of the search and embed lanes takes as long
_MAP_HEAD: Final = 4_096  # bytes
_MAP_MODEL: Final = re.compile(rb'<meta name="jose-model" content="([0-9a-f]{1,128})">')
_log = logging.getLogger("service")


async def probe(engine: Engine) -> tuple[dict[str, float], list[str]]:
    """Tests the index, the inference and the documents, in a lane that no other request uses.

    Returns:
        Seconds by part, and warnings: what is on the disk is not what is served.

    Raises:
        Problem: ``not-ready``: a part is late or wrong.
    """
    snapshot = engine.snapshot
    for lane in (engine.search_lane, engine.embed_lane):
        if lane.longest_batch > _STUCK_SECONDS:
            raise Problem("not-ready", f"the {lane.name} lane has worked on one batch for {lane.longest_batch:.0f} s")
    parts: dict[str, Callable[[], None]] = {
        "index": functools.partial(_check_index, snapshot),
        "inference": functools.partial(_check_inference, snapshot.served),
        "documents": functools.partial(_check_documents, engine),
    }
    seconds: dict[str, float] = {}
    for name, check in parts.items():
        started = time.perf_counter()
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                await engine.probe_lane.submit(check, always=True)
        except TimeoutError:
            raise Problem("not-ready", f"the {name} did not answer within {_PROBE_SECONDS} s") from None
        seconds[name] = round(time.perf_counter() - started, 6)
    warnings = await engine.probe_lane.submit(functools.partial(_model_warnings, engine, snapshot.served), always=True)
    if engine.follower is not None:
        warnings += engine.follower.warnings()
    engine.writer.request_check()
    return seconds, warnings


def _check_index(snapshot: Snapshot) -> None:
    words = snapshot.served.words
    (found,) = answers(snapshot, [SearchQuery(vector=words.vectors[len(words) // 2], k=1)])
    if words.kind == "exact" and (not found or found[0]["score"] < 0.999):
        raise Problem(
            "not-ready",
            "the self-test of the word index failed: a search by a word's own vector does not find the word",
        )


def _check_inference(served: ServedModel) -> None:
    (made,) = vectors_of(served.embeddings, [served.embeddings.words[0]])
    if made.vector is not None and not abs(float(np.linalg.norm(made.vector)) - 1.0) < 1e-3:
        raise Problem("not-ready", "the self-test of inference failed: a text's vector does not have norm 1")


def _check_documents(engine: Engine) -> None:
    try:
        engine.store.check_file()
        engine.store.serial("")
    except StoreError as error:
        raise Problem("not-ready", str(error)) from None
    if n := engine.writer.n_unsearchable:
        raise Problem("not-ready", f"{n} stored documents differ from the index; the service tries to repair it")


def _model_warnings(engine: Engine, served: ServedModel) -> list[str]:
    if engine.settings.map_model and (names := served.changed_in_place()):
        raise Problem("not-ready", f"{names[0]} of the mapped model was changed in place; reload a complete model")
    names = served.changed_files()
    if not names:
        return []
    warning = (
        f"{names[0]} of the model is not on the disk as it was loaded; the loaded model is served from memory until "
        "POST /admin/reload"
    )
    if names != served.reported:
        served.reported = names
        _log.warning("%s: %s", engine.settings.model, warning)
    return [warning]


def map_state(settings: Settings, model: str) -> Literal["shown", "none", "other"]:
    """Whether there is a map of a model, none, or one of another model.

    Args:
        settings: Where the map is.
        model: The id of the model, which the map's head names.
    """
    try:
        with settings.map_path.open("rb") as file:
            head = file.read(_MAP_HEAD)
    except OSError:
        return "none"
    found = _MAP_MODEL.search(head)
    return "shown" if found is not None and found[1].decode() == model else "other"


def info(engine: Engine) -> dict[str, Any]:
    """The answer to ``GET /info``."""
    served, library = engine.snapshot
    model, settings = served.embeddings, engine.settings
    shown = map_state(settings, served.id)
    return {
        "name": served.name,
        "model": served.reference,
        "dim": served.dim,
        "words": model.n_words,
        "trained_documents": model.n_docs,
        "keeps_texts": model.has_texts,
        "tokenizer": model.manifest["tokenizer"],
        "training": model.manifest["config"],
        "index": {
            "kind": served.words.kind,
            "recall_at_10": round(engine.snapshot.recall, 4),
            "searchable_trained_documents": served.n_searchable,
            "documents": [
                {
                    "rows": len(index),
                    "kind": index.kind,
                    "recall_at_10": round(index.codes_recall, 4),
                    "bytes": index.vectors.nbytes + index.codes_bytes,
                }
                for index in engine.snapshot.indexes
            ],
        },
        "documents": {
            "stored": engine.writer.n_stored,
            "searchable": len(library),
            "segments": len(library.segments),
            "read_only": settings.read_only,
        }
        | _replica(engine),
        "access": {"read_key": bool(settings.keys("read_key")), "write_key": bool(settings.keys("write_key"))},
        "map": settings.page and shown == "shown",
        "map_of_another_model": settings.page and shown == "other",
        "limits": {
            "max_k": MAX_K,
            "max_batch": MAX_BATCH,
            "max_body_bytes": settings.max_body_bytes,
            "max_text_characters": settings.max_text_characters,
            "max_waiting": settings.max_waiting,
            "max_connections": settings.max_connections,
            "max_answer_bytes": settings.max_answer_bytes,
            "max_query_words": MAX_QUERY_WORDS,
            "max_suggestions": MAX_SUGGESTIONS,
        },
        "versions": _versions(),
        "started": engine.started.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "uptime_seconds": round(engine.uptime, 3),
    }


def metrics_of(engine: Engine) -> Metrics:
    """The metrics of a service."""
    writer = engine.writer

    def of_snapshot(read: Callable[[Snapshot], float]) -> Callable[[], float]:
        return lambda: float(read(writer.snapshot)) if writer.is_open else 0.0

    gauges: dict[str, tuple[str, Callable[[], float]]] = {
        "jose_words": ("Words in the vocabulary.", of_snapshot(lambda now: now.served.embeddings.n_words)),
        "jose_trained_documents": ("Documents of the model.", of_snapshot(lambda now: now.served.embeddings.n_docs)),
        "jose_model_bytes": ("Bytes of the model's arrays and indexes.", of_snapshot(lambda now: now.served.n_bytes)),
        "jose_index_recall": (
            "Share of the true 10 nearest words or documents that the worst index finds.",
            of_snapshot(lambda now: now.recall),
        ),
        "jose_documents_by_codes": (
            "Documents, trained and added, that are searched by codes and not exactly.",
            of_snapshot(lambda now: sum(len(index) for index in now.indexes if index.kind == "ivf")),
        ),
        "jose_kept_answer_bytes": ("Bytes of kept answers.", of_snapshot(lambda now: now.served.answers.n_bytes)),
        "jose_stored_documents": ("Added documents.", lambda: writer.n_stored),
        "jose_searchable_documents": (
            "Added documents that a search can find.",
            of_snapshot(lambda now: len(now.library)),
        ),
        "jose_unsearchable_documents": (
            "Stored documents that differ from the index, by the last check; should be 0.",
            lambda: writer.n_unsearchable,
        ),
        "jose_library_segments": (
            "Pieces of the index of added documents.",
            of_snapshot(lambda now: len(now.library.segments)),
        ),
        "jose_uptime_seconds": ("Seconds since the start.", lambda: engine.uptime),
        "jose_reload_running": ("1 while a model is being loaded.", lambda: _running(engine, "reload")),
        "jose_reload_progress": (
            "Share of the present stage of a reload that is done.",
            lambda: _progress(engine, "reload"),
        ),
        "jose_reload_seconds": (
            "Duration of the last reload, or of the present one so far.",
            lambda: job.seconds if (job := engine.jobs.last("reload")) is not None else 0.0,
        ),
        "jose_snapshot_running": ("1 while a snapshot is being made.", lambda: _running(engine, "snapshot")),
        "jose_draining": ("1 while the service is stopping.", lambda: float(engine.draining)),
    }
    counters: dict[str, tuple[str, Callable[[], float]]] = {
        "jose_index_repairs_total": (
            "Checks that found the index of added documents and the documents file apart.",
            lambda: writer.n_repairs,
        )
    }
    if engine.settings.read_only:
        gauges["jose_replica_behind_seconds"] = (
            "Time since the replica had all that the documents file holds.",
            lambda: engine.follower.behind_seconds if engine.follower is not None else 0.0,
        )
        gauges["jose_replica_other_model"] = (
            "1 if the writer serves another model.",
            lambda: float(engine.follower is not None and writer.is_open and engine.follower.other_model),
        )
    for lane in engine.lanes:
        for table, name, what, attribute in (
            (gauges, "waiting", "Jobs", "depth"),
            (counters, "jobs_total", "Jobs done", "jobs"),
            (counters, "batches_total", "Batches done", "batches"),
            (counters, "busy_seconds_total", "Time at work", "busy_seconds"),
        ):
            read = functools.partial(getattr, lane, attribute)
            table[f"jose_{lane.name}_{name}"] = (f"{what} in the {lane.name} lane.", read)
    return Metrics(gauges, counters)


def _running(engine: Engine, kind: str) -> float:
    return float(engine.jobs.running(kind) is not None)


def _progress(engine: Engine, kind: str) -> float:
    job = engine.jobs.running(kind)
    return job.done / job.total if job is not None and job.total else 0.0


def _replica(engine: Engine) -> dict[str, Any]:
    """How far a service that only reads is behind the writer."""
    follower = engine.follower
    if follower is None:
        return {}
    return {"behind_seconds": round(follower.behind_seconds, 3), "other_model": follower.other_model}


@functools.cache
def _versions() -> dict[str, str]:
    found = {"jose-embed": __version__, "python": platform.python_version()}
    for name in ("numpy", "numba", "faiss-cpu", "fastapi", "starlette", "uvicorn", "pydantic"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found | {"sqlite": sqlite3.sqlite_version}

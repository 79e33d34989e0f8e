"""Document vectors of many files on a Ray cluster: one Parquet file for each file of text, by Ray Data.

A file that is complete is not made again, so a run that was stopped is started again with the same command.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from jose_embed.distributed.cluster import connected
from jose_embed.distributed.part_files import PartFile, facts_of_part
from jose_embed.errors import ConfigError, JoseError
from jose_embed.model.embeddings import Embeddings
from jose_embed.model.inference import DocumentEncoder
from jose_embed.model.line_vectors import line_vectors
from jose_embed.model.lookup import WordLookup
from jose_embed.progress import Reporter
from jose_embed.text.reader import Block, BlockReader, complaints
from jose_embed.text.records import TextOptions
from jose_embed.text.sources import Source, Sources, find_sources, printable


@dataclass
class Embedded:
    """What was embedded.

    Attributes:
        n_files: Files that were embedded.
        n_skipped: Files that had been embedded before.
        n_lines: Documents.
        n_without: Those without a known word, whose vector is null.
        n_tokens: Running words.
        n_known: Those in the vocabulary.
    """

    n_files: int = 0
    n_skipped: int = 0
    n_lines: int = 0
    n_without: int = 0
    n_tokens: int = 0
    n_known: int = 0
    notes: list[str] = field(default_factory=list)


def embed_on_ray(
    model: Embeddings,
    sources: Sources,
    output: str,
    *,
    reporter: Reporter,
    options: TextOptions | None = None,
    address: str | None = None,
    overwrite: bool = False,
) -> Embedded:
    """Write the vectors of all documents, with the bytes that ``model.infer`` gives.

    Args:
        model: The model; it is sent to the machines.
        sources: Files, which every machine must be able to read.
        output: The folder of the Parquet files (part_files.py), also of an object store.
        reporter: Receives the progress.
        options: How the text is read.
        address: The cluster; None for one on this machine.
        overwrite: Replace files that hold other vectors.

    Raises:
        ConfigError: files of one name, files in the folder that hold other vectors, or no free core in the cluster.
        CorpusError: text that cannot be read; files that were complete stay.
        MissingExtraError: Ray is not installed.
    """
    options = options or TextOptions()
    found = find_sources(sources, reporter.note)
    names = _names(found)
    done = Embedded()
    tasks: list[dict[str, Any]] = []
    for number, (source, name) in enumerate(zip(found, names, strict=True)):
        source.check()
        facts = json.loads(
            json.dumps({"model": model.id, "source": source.name, "bytes": source.size(), "options": options.to_dict()})
        )
        before = facts_of_part(output, name)
        if before == facts:
            done.n_skipped += 1
            continue
        if before is not None and not overwrite:
            raise ConfigError(
                f"{output}: {name} holds other vectors than these would be; name another folder, or replace its files "
                "with overwrite=True"
            )
        tasks.append({"number": number, "name": name, "facts": facts})
    if done.n_skipped:
        reporter.note(f"{output}: {done.n_skipped:,} of {len(found):,} files are complete and are not made again")
    if not tasks:
        return done
    with connected(address) as ray:
        reporter.start("embedding", sum(found[task["number"]].size() or 0 for task in tasks), "bytes")
        for result in _results(ray, model, found, tasks, output, options):
            if result["error"] is not None:
                raise result["error"]
            done.n_files += 1
            for name in ("n_lines", "n_without", "n_tokens", "n_known"):
                setattr(done, name, getattr(done, name) + result[name])
            done.notes += result["notes"]
            coverage = done.n_known / max(1, done.n_tokens)
            reporter.advance(found[result["number"]].size() or 0, documents=done.n_lines, coverage=coverage)
        reporter.finish()
    for note in dict.fromkeys(done.notes):
        reporter.note(note)
    return done


def _names(sources: Sequence[Source]) -> list[str]:
    """The name of the output of each file: its path below the folder that was named, or its last part."""
    names = []
    for source in sources:
        if source.path is None:
            raise ConfigError("-: standard input cannot be read by other machines; name files")
        path = source.path
        inner = path[len(source.folder) :].lstrip("/") if source.folder else path.rpartition("/")[2]
        names.append(f"{inner}.parquet" if not inner.endswith(".parquet") else inner)
    seen: dict[str, str] = {}
    for name, source in zip(names, sources, strict=True):
        if (first := seen.setdefault(name, source.name)) != source.name:
            raise ConfigError(
                f"{printable(first)} and {printable(source.name)} would both be written to {name}; embed them in two "
                "runs with two folders, or name the folder that they are in"
            )
    return names


def _results(
    ray: Any, model: Embeddings, found: Sequence[Source], tasks: list[dict[str, Any]], output: str, options: TextOptions
) -> Iterator[dict[str, Any]]:
    """What each file gave, in any order, from a pool of actors of Ray Data."""
    data = import_module("ray.data")
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    free = int(ray.available_resources().get("CPU", 0))
    if free < 1:
        raise ConfigError("the cluster has no free core; wait for other programs to end")
    # Ray Data waits for ever if its actors leave no whole core to the tasks that feed them.
    cores, most = (1, free - 1) if free > 1 else (0, 1)
    encoder = model.encoder
    parts = ray.put(
        {
            "arrays": {
                name: getattr(encoder, name)
                for name in ("center_vectors", "context_vectors", "counts", "word_weights", "context_share", "matrix")
            },
            "words": tuple(encoder.lookup.words),
            "tokenizer": encoder.lookup.tokenizer,
            "dim": model.dim,
        }
    )
    rows = data.from_items(tasks, override_num_blocks=len(tasks))
    mapped = rows.map(
        _Embedder,
        fn_constructor_kwargs={"parts": parts, "sources": list(found), "output": output, "options": options},
        num_cpus=cores,
        concurrency=(1, min(len(tasks), most)),
    )
    yield from mapped.iter_rows()


class _Embedder:
    """Embeds a file; an actor of Ray Data."""

    def __init__(self, parts: Any, sources: Sequence[Source], output: str, options: TextOptions) -> None:
        found = import_module("ray").get(parts)
        tokenizer = found["tokenizer"]
        self._encoder = DocumentEncoder(**found["arrays"], lookup=WordLookup(found["words"], lambda: tokenizer))
        self._sources, self._output, self._options, self._dim = sources, output, options, found["dim"]

    def __call__(self, task: dict[str, Any]) -> dict[str, Any]:
        counts = {"n_lines": 0, "n_without": 0, "n_tokens": 0, "n_known": 0}
        result = {"number": task["number"], "error": None, "notes": list[str](), **counts}
        try:
            self._embed(task, result)
        except JoseError as error:  # as a value, so that it is shown as it is
            result["error"] = error
        return result

    def _embed(self, task: dict[str, Any], result: dict[str, Any]) -> None:
        source = self._sources[task["number"]]
        ids: list[list[str]] = []
        begin = f"{printable(source.name)}:" if len(self._sources) > 1 and not self._options.has_ids else ""
        with (
            PartFile(self._output, task["name"], self._dim, None, task["facts"]) as file,
            BlockReader([source], whole_lines=True, options=self._options, with_ids=True) as reader,
        ):

            def blocks() -> Iterator[Block]:
                for block in reader:
                    assert block.records is not None
                    ids.append([f"{begin}{one}" for one in block.records.ids or []])
                    yield block

            for lines in line_vectors(self._encoder, blocks(), workers=1):
                known = lines.n_known > 0
                file.add(ids.pop(0), lines.vectors, lines.n_tokens, known=known)
                result["n_lines"] += len(known)
                result["n_without"] += int((~known).sum())
                result["n_tokens"] += int(lines.n_tokens.sum())
                result["n_known"] += int(lines.n_known.sum())
            result["notes"] = [*reader.notes, *complaints(reader.reports)]

"""A training on several machines in one process: the real shards, owners and driver, without Ray."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from local_group import LocalGroup

from jose_embed.config import TrainConfig
from jose_embed.distributed.exchange import Owner
from jose_embed.distributed.shard import Shard
from jose_embed.distributed.training import Job, train_on
from jose_embed.model.embeddings import Embeddings
from jose_embed.progress import Reporter, SilentReporter
from jose_embed.text.records import TextOptions
from jose_embed.text.sources import find_sources
from jose_embed.training.checkpoints import Checkpoints
from jose_embed.training.engine import EngineOptions


def files(folder: Path, texts: Sequence[str], n: int = 8) -> Path:
    """Write texts as ``n`` files with about equally many lines."""
    folder.mkdir(exist_ok=True)
    for number in range(n):
        some = texts[number * len(texts) // n : (number + 1) * len(texts) // n]
        (folder / f"part-{number:03}.txt").write_text("".join(f"{text}\n" for text in some), encoding="utf-8")
    return folder


def groups(nodes: int, int8: bool = False) -> tuple[LocalGroup, LocalGroup | None]:
    """Shards and owners in this process."""
    shards = LocalGroup(lambda number: Shard(number, nodes), nodes)
    return shards, LocalGroup(lambda _: Owner(int8), nodes) if nodes > 1 else None


def train(
    source: Path,
    nodes: int,
    config: TrainConfig,
    *,
    text: TextOptions | None = None,
    checkpoints: Checkpoints | None = None,
    reporter: Reporter | None = None,
    made: tuple[LocalGroup, LocalGroup | None] | None = None,
    **options: Any,
) -> Embeddings:
    """Train on so many machines, one thread each."""
    engine = EngineOptions(engine="ray", nodes=nodes, **options)
    shards, owners = made or groups(nodes, engine.int8)
    try:
        sources = find_sources(str(source))
        job = Job(shards, owners, sources, config, engine, text or TextOptions(), reporter or SilentReporter())
        return train_on(job, checkpoints)
    finally:
        shards.values("close")

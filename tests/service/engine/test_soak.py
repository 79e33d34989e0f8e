"""The service under mixed load, with bulk imports, replicas, reloads and snapshots under way: ``make soak``."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from serving import Served, Starter, make_model

from jose_embed.model.embeddings import Embeddings

TEXTS = [f"w{i} w{i * 7 % 1990 + 4} king" for i in range(4, 60)]
NDJSON = {"content-type": "application/x-ndjson"}


@dataclass
class Soak:
    """What the threads of a soak share.

    Attributes:
        writer: The service that writes.
        replicas: Those that only read.
        model: The model directory that is replaced.
        models: The models that take turns.
        statuses: How many answers had each status.
        counts: What else was done.
        failures: What went wrong.
        lags: Seconds until a replica found what had been written.
        stop: Set at the end.
    """

    writer: Served
    replicas: list[Served]
    model: Path
    models: list[Embeddings]
    statuses: Counter[int] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def count(self, answer: httpx.Response) -> httpx.Response:
        self.statuses[answer.status_code] += 1
        if answer.status_code >= 500:
            self.failures.append(
                f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text[:300]}"
            )
        return answer

    def check(self, condition: bool, message: str) -> None:
        if not condition:
            self.failures.append(message)


def asking(soak: Soak, client: httpx.Client, seed: int) -> None:
    """Every call, right and wrong, of the writer and of the replicas."""
    own = random.Random(seed)
    others = [httpx.Client(base_url=replica.url, timeout=60, trust_env=False) for replica in soak.replicas]
    while not soak.stop.is_set():
        soak.count(one_of_many(own.choice([client, *others]), own))
    for other in others:
        other.close()


def writing(soak: Soak, client: httpx.Client, seed: int) -> None:
    """Each acknowledged write is found at once, and by a replica soon."""
    own = random.Random(seed)
    for n in itertools.count():
        if soak.stop.is_set():
            return
        id, text = f"own-{seed}-{n % 300}", f"{own.choice(TEXTS)} queen w{n % 1900 + 4}"
        answer = soak.count(client.put(f"/documents/{id}", json={"text": text, "fields": {"n": n}}))
        soak.check(answer.status_code in (200, 201), f"PUT {id}: {answer.status_code}")
        found = soak.count(client.post("/search", json={"document_id": id, "k": 1, "include": ["fields"]}))
        soak.check(found.status_code == 200, f"{id} was written and is not found: {found.text[:200]}")
        shown = soak.count(client.get(f"/documents/{id}")).json()
        soak.check((shown["text"], shown["fields"]) == (text, {"n": n}), f"{id} has another text")
        if n % 20 == 0:
            began, replica = time.monotonic(), own.choice(soak.replicas)
            while replica.get(f"/documents/{id}").json().get("fields") != {"n": n}:
                time.sleep(0.01)
            while replica.post("/search", {"document_id": id, "k": 1}).status_code != 200:
                time.sleep(0.01)
            soak.lags.append(time.monotonic() - began)
        if n % 7 == 0:
            gone = soak.count(client.delete(f"/documents/{id}"))
            soak.check(gone.status_code == 204, f"DELETE {id}: {gone.status_code}")
        soak.counts["acknowledged writes"] += 1


def importing(soak: Soak, client: httpx.Client, seed: int) -> None:
    """Imports thousands of documents, finds some of them, deletes them by a filter, and again."""
    own = random.Random(seed)
    for round in itertools.count():
        if soak.stop.is_set():
            return
        n = own.choice([1, 700, 5_000])
        lines = (
            json.dumps({"id": f"bulk-{round}-{i}", "text": own.choice(TEXTS), "fields": {"round": round}}).encode()
            + b"\n"
            for i in range(n)
        )
        answer = soak.count(client.post("/documents:import", content=lines, headers=NDJSON))
        last = json.loads(answer.text.splitlines()[-1])
        soak.check((last["status"], last["added"]) == ("done", n), f"an import of {n}: {last}")
        for i in [0, n - 1, *(own.randrange(n) for _ in range(20))]:
            found = soak.count(client.post("/search", json={"document_id": f"bulk-{round}-{i}", "k": 1}))
            soak.check(found.status_code == 200, f"bulk-{round}-{i} was imported and is not found: {found.text[:200]}")
        exported = soak.count(client.get("/documents:export", params={"filter": f"round = {round}"}))
        soak.check(
            len(exported.text.splitlines()) == n, f"{n} were imported, {len(exported.text.splitlines())} exported"
        )
        gone = soak.count(client.post("/documents:delete", json={"filter": f"round = {round}"})).json()
        soak.check(gone["deleted"] == n, f"{n} were imported, {gone} deleted")
        soak.counts["imported documents"] += n


def ended(soak: Soak, client: httpx.Client, answer: httpx.Response) -> dict[str, Any]:
    job: dict[str, Any] = soak.count(answer).json()
    while job.get("status") == "running":
        time.sleep(0.05)
        job = soak.count(client.get(f"/admin/jobs/{job['id']}")).json()
    soak.check(job.get("status") == "done", f"a job: {job}")
    return job


def reloading(soak: Soak, client: httpx.Client, seed: int) -> None:
    """Replaces the model every few seconds."""
    for n in itertools.count(1):
        if soak.stop.wait(5.0):
            return
        soak.models[n % 2].save(soak.model, overwrite=True)
        job = ended(soak, client, client.post("/admin/reload"))
        soak.check(bool(job["result"] and job["result"]["changed"]), f"a reload: {job}")
        soak.counts["reloads"] += 1


def copying(soak: Soak, client: httpx.Client, seed: int) -> None:
    """Takes snapshots and deletes them."""
    while not soak.stop.wait(3.0):
        job = ended(soak, client, client.post("/admin/snapshot"))
        if job["result"]:
            soak.check(Path(job["result"]["path"], "documents.sqlite3").stat().st_size > 0, "an empty snapshot")
            shutil.rmtree(job["result"]["path"])
        soak.counts["snapshots"] += 1


@pytest.mark.slow
@pytest.mark.timeout(7_200)
def test_hours_of_everything(tmp_path: Path, starter: Starter) -> None:
    """For SOAK_SECONDS (default: 180): no answer is a 5xx, no acknowledged write is unfindable, and the resident memory
    of the second half stays within a tenth, and 10 MB, of that of the first quarter, in the writer and each replica."""
    seconds = float(os.environ.get("SOAK_SECONDS", "180"))
    path = tmp_path / "own.jose"
    models = [make_model(tmp_path / f"{seed}.jose", n_words=2_000, dim=48, n_docs=2_000, seed=seed) for seed in (1, 9)]
    models[0].save(path)
    environment = {"JOSE_CACHE_BYTES": "1000000"}
    writer = starter(path, environment=environment)
    replicas = [starter(path, "--read-only", environment=environment) for _ in range(2)]
    soak = Soak(writer, replicas, path, models)
    work = [asking, asking, asking, writing, importing, reloading, copying]
    threads = [threading.Thread(target=_worked, args=(soak, done, seed)) for seed, done in enumerate(work)]
    for thread in threads:
        thread.start()
    processes = [psutil.Process(served.process.pid) for served in (writer, *replicas)]
    samples: list[tuple[float, list[float]]] = []
    began = time.monotonic()
    while (now := time.monotonic() - began) < seconds and len(soak.failures) < 20:
        samples.append((now, [process.memory_info().rss / 1e6 for process in processes]))
        time.sleep(min(1.0, seconds / 100))
    soak.stop.set()
    for thread in threads:
        thread.join()
    lags = sorted(soak.lags)
    print(f"\nsoak: {seconds:.0f} s, {sum(soak.statuses.values()):,} answers {dict(sorted(soak.statuses.items()))}")
    print(", ".join(f"{n:,} {what}" for what, n in soak.counts.items()))
    print(
        f"a replica finds a write after {lags[len(lags) // 2]:.2f} s (median), {lags[-1]:.2f} s (most of {len(lags)})"
    )
    print(f"longest lag of the event loop: {_metric(writer, 'jose_event_loop_longest_lag_seconds'):.2f} s")
    level: list[bool] = []
    for name, number in (("writer", 0), ("replica 1", 1), ("replica 2", 2)):
        rss = [(at, sample[number]) for at, sample in samples]
        early = max(value for at, value in rss if at < seconds / 4)
        late = max(value for at, value in rss if at > seconds / 2)
        steps = [round(rss[int(len(rss) * part / 8)][1]) for part in range(8)] + [round(rss[-1][1])]
        print(
            f"resident MB of the {name}: {steps}, most {early:.0f} in the first quarter, {late:.0f} in the second half"
        )
        level.append(late < early * 1.1 + 10)
    assert soak.failures == []
    assert all(level)
    for served in (writer, *replicas):
        until = time.monotonic() + 60
        while warnings := served.get("/readyz").json()["warnings"]:  # a replica may be about to load the last model
            assert time.monotonic() < until, warnings
            time.sleep(0.1)
        assert not [line for line in served.lines if "Traceback" in line]


def _worked(soak: Soak, work: Callable[[Soak, httpx.Client, int], None], seed: int) -> None:
    with httpx.Client(base_url=soak.writer.url, timeout=120, trust_env=False) as client:
        try:
            work(soak, client, seed)
        except Exception as error:
            soak.failures.append(f"{work.__name__}: {error!r}")


def _metric(served: Served, name: str) -> float:
    (line,) = [line for line in served.get("/metrics").text.splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[1])


def one_of_many(client: httpx.Client, own: random.Random) -> httpx.Response:
    """The answer to one call of a mixture."""
    word = f"w{own.randrange(4, 2_200)}"
    id = f"soak-{own.randrange(500)}"
    text = " ".join(own.choices(TEXTS, k=own.choice([1, 20, 200])))
    queries = [{"word": word, "without": ["king"]}, {"positive": ["king", word]}] * 5
    noise = b"x" * own.choice([10, 200_000])
    calls = [
        lambda: client.get(f"/similar?word={word}&k={own.choice([5, 10, 2_000])}"),
        lambda: client.post("/similar", json={"queries": queries}),
        lambda: client.post("/embed-doc", json={"text": text, "explain": True}),
        lambda: client.post("/embed-doc", json={"texts": [text, "nothing"] * 10, "encoding_format": "base64"}),
        lambda: client.post("/search", json={"text": text, "k": 20}),
        lambda: client.put(f"/documents/{id}", json={"text": text}),
        lambda: client.put(f"/documents/{id}", json={"text": text}),
        lambda: client.delete(f"/documents/{id}"),
        lambda: client.get(f"/documents/{id}"),
        lambda: client.get("/documents?limit=50&include=text,fields"),
        lambda: client.get("/documents:export?filter=round is missing and n > 3"),
        lambda: client.get("/admin/jobs"),
        lambda: client.get(f"/words?prefix={word[:2]}"),
        lambda: client.post("/v1/embeddings", json={"input": [text], "model": "a"}),
        lambda: client.post("/embed-doc", content=noise, headers={"content-type": "application/json"}),
        lambda: client.get(own.choice(["/metrics", "/info", "/readyz", "/nowhere"])),
    ]  # fmt: skip
    return own.choice(calls)()

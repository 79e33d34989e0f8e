"""How many requests a second, and how long does each wait? Prints the tables of tests/benchmarks/RESULTS.md about the
service.

One ``jose-serve`` process, pinned to one core, over a model of 100,000 words and 100,000 documents; the clients run on
the other cores. "per CPU second" is what the service did in a second of its own processor time: on a machine that does
other work too, the rate that a core of its own would give. Random directions stand for trained ones: exact search costs
the same on any vectors.

    python tests/benchmarks/service_load.py
    python tests/benchmarks/service_load.py --seconds 10 --words 50000
    python tests/benchmarks/service_load.py --light
    python tests/benchmarks/service_load.py --model MODEL    questions in words to a model that keeps its texts
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from ledger import ROOT, header, markdown_table
from search_speed import questions_of

sys.path.insert(0, str(ROOT))

from jose_embed.model.embeddings import Embeddings

DIM = 100


@dataclass
class Load:
    """One measurement.

    Args:
        name: What is asked, for the table.
        requests: Gives the next request's bytes.
        clients: Connections that ask at once, each waiting for its answer.
        per_request: What one request counts as (texts of a batch).
    """

    name: str
    requests: Callable[[], bytes]
    clients: int
    per_request: int = 1
    latencies: list[float] = field(default_factory=list)
    errors: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def row(self) -> dict[str, Any]:
        """The measurement as a row of the table."""
        p50, p95, p99 = (np.percentile(self.latencies, [50, 95, 99]) * 1e3).round(2)
        rate = len(self.latencies) * self.per_request / self.seconds
        core = len(self.latencies) * self.per_request / max(self.cpu_seconds, 1e-9)
        what = {
            "call": self.name,
            "clients": self.clients,
            "per second": f"{rate:,.0f}",
            "per CPU second": f"{core:,.0f}",
        }
        times = {"p50 ms": p50, "p95 ms": p95, "p99 ms": p99, "max ms": round(max(self.latencies) * 1e3, 2)}
        return what | times | {"errors": self.errors}


@dataclass
class Service:
    """The running service.

    Args:
        port: Where it listens.
        ready: Seconds until it did.
        process: Its process.
    """

    port: int
    ready: float
    process: psutil.Process

    def cpu_seconds(self) -> float:
        """Processor time it has used so far: what the machine's other work does not change."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


class Connection(asyncio.Protocol):
    """A keep-alive connection that sends the next request as soon as the last answer is whole."""

    def __init__(self, load: Load, until: float, done: asyncio.Future[None]) -> None:
        self.load, self.until, self.done = load, until, done
        self.received = b""
        self.wanted = -1
        self.began = 0.0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        self.received, self.wanted = b"", -1
        self.began = time.perf_counter()
        self.transport.write(self.load.requests())

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self.wanted < 0:
            head = self.received.find(b"\r\n\r\n")
            if head < 0:
                return
            at = self.received.lower().find(b"content-length: ", 0, head)
            length = int(self.received[at + 16 : self.received.find(b"\r\n", at)]) if at >= 0 else 0
            self.wanted = head + 4 + length
        if len(self.received) < self.wanted:
            return
        now = time.perf_counter()
        self.load.latencies.append(now - self.began)
        if not self.received.startswith(b"HTTP/1.1 2"):
            self.load.errors += 1
        if now < self.until:
            self.ask()
        else:
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def measured(service: Service, load: Load, seconds: float) -> Load:
    """Runs one measurement."""
    loop = asyncio.get_running_loop()
    cpu = service.cpu_seconds()
    began = time.perf_counter()
    ends: list[asyncio.Future[None]] = []
    for _ in range(load.clients):
        done: asyncio.Future[None] = loop.create_future()
        ends.append(done)
        until = began + seconds
        await loop.create_connection(
            lambda done=done, until=until: Connection(load, until, done), "127.0.0.1", service.port
        )
    await asyncio.gather(*ends)
    load.seconds = time.perf_counter() - began
    load.cpu_seconds = service.cpu_seconds() - cpu
    return load


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def send(method: str, path: str, body: Any) -> bytes:
    content = json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


def cycle(requests: list[bytes]) -> Callable[[], bytes]:
    """The requests one after the other, and around again."""

    def endless() -> Iterator[bytes]:
        while True:
            yield from requests

    return endless().__next__


def made_model(path: Path, n_words: int, n_docs: int) -> Embeddings:
    """A model of random directions, saved."""
    random = np.random.default_rng(0)

    def rows(n: int) -> Any:
        vectors = random.normal(size=(n, DIM)).astype(np.float32)
        return (vectors / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)).astype(np.float32)

    counts = (1e7 / np.arange(1, n_words + 1)).astype(np.int64) + 5
    model = Embeddings.from_arrays(
        words=[f"w{i}" for i in random.permutation(n_words)],  # spelling knows nothing of frequency
        counts=counts,
        center_vectors=rows(n_words),
        context_vectors=rows(n_words),
        doc_ids=[str(i + 1) for i in range(n_docs)],
        doc_vectors=rows(n_docs),
    )
    model.save(path)
    return model


@contextlib.contextmanager
def running(model: Path, documents: Path) -> Iterator[Service]:
    """A service on its own core."""
    cores = sorted(os.sched_getaffinity(0))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JOSE_")}
    environment |= {"PYTHONPATH": str(ROOT), "JOSE_SEARCH_THREADS": "1", "JOSE_MAX_WAITING": "4096"}
    command = [sys.executable, "-m", "service.cli", str(model), "--port", "0", "--documents", str(documents)]
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores[:1]),
    )
    assert process.stderr is not None
    port = 0
    for line in process.stderr:
        if "jose-serve: http://" in line:
            port = int(line.split()[1].rpartition(":")[2])
            break
    ready = time.perf_counter() - began
    # Whatever it has to say further must not fill the pipe.
    drain = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
    if len(cores) > 1:
        os.sched_setaffinity(0, cores[1:])
    try:
        yield Service(port, ready, psutil.Process(process.pid))
    finally:
        os.sched_setaffinity(0, cores)
        process.terminate()
        process.wait(60)
        drain.wait(60)


def loads(n_words: int) -> Iterator[Load]:
    """Everything that is measured, in order."""
    random = np.random.default_rng(1)
    words = [f"w{i}" for i in random.permutation(n_words)]
    fresh = iter(words)

    def text(n: int = 200) -> str:
        return " ".join(f"w{i}" for i in np.minimum(random.zipf(1.3, n), n_words) - 1)

    texts = [text() for _ in range(500)]
    yield Load("GET /livez (empty route)", cycle([get("/livez")]), 50)
    yield Load("GET /similar, repeated words", cycle([get(f"/similar?word=w{i}") for i in range(100)]), 50)
    yield Load("GET /similar, first-time words", lambda: get(f"/similar?word={next(fresh)}"), 50)
    yield Load("GET /similar, first-time words", lambda: get(f"/similar?word={next(fresh)}"), 1)
    yield Load(
        "POST /embed-doc, one text of 200 words",
        cycle([send("POST", "/embed-doc", {"text": one}) for one in texts]),
        50,
    )
    yield Load(
        "POST /embed-doc, one text of 200 words", cycle([send("POST", "/embed-doc", {"text": one}) for one in texts]), 1
    )
    batches = [send("POST", "/embed-doc", {"texts": texts[i : i + 100]}) for i in range(0, 500, 100)]
    yield Load("POST /embed-doc, 100 texts (texts)", cycle(batches), 4, 100)
    coded = [
        send("POST", "/v1/embeddings", {"input": texts[i : i + 100], "model": "bench", "encoding_format": "base64"})
        for i in range(0, 500, 100)
    ]
    yield Load("POST /v1/embeddings, 100 texts, base64 (texts)", cycle(coded), 4, 100)
    searches = [send("POST", "/search", {"text": one, "k": 10}) for one in texts]
    yield Load("POST /search by text, 100,000 documents", cycle(searches), 1)
    yield Load("POST /search by text, 100,000 documents", cycle(searches), 50)
    analogies = [
        {"queries": [{"positive": [f"w{i}", f"w{i + 1}"], "negative": [f"w{i + 2}"]} for i in range(j, j + 50)]}
        for j in range(100)
    ]
    yield Load(
        "POST /similar, 50 analogies (queries)", cycle([send("POST", "/similar", one) for one in analogies]), 4, 50
    )
    ids = iter(range(10**9))
    yield Load(
        "PUT /documents/{id}, 200 words, synced",
        lambda: send("PUT", f"/documents/d{next(ids)}", {"text": texts[next(ids) % 500]}),
        50,
    )
    yield Load("GET /words?prefix=", cycle([get(f"/words?prefix=w{i}") for i in range(1_000)]), 50)


def questions(model: Path) -> Iterator[Load]:
    """Questions in words, by each mode and with a filter of a kept field, if there is one."""
    opened = Embeddings.load(model)
    texts = questions_of(opened, 2_000, seed=0)
    (_, fields) = opened.kept_documents([0])[0]
    filters = {name: value for name, value in fields.items() if isinstance(value, str | int) and value != ""}
    for clients in (1, 4):
        for mode in ("hybrid", "vector", "words"):
            asked = [send("POST", "/search", {"text": text, "mode": mode}) for text in texts]
            yield Load(f"POST /search, {mode}", cycle(asked), clients)
        for name, value in [*filters.items()][:1]:
            condition = f"{json.dumps(name)} = {json.dumps(value)}"
            asked = [send("POST", "/search", {"text": text, "filter": condition}) for text in texts]
            yield Load(f"POST /search, hybrid, {name} = {value}", cycle(asked), clients)


def heavy(n_words: int) -> list[bytes]:
    """Requests of nearly 2 MB, the largest by default: one text, vectors, many texts."""
    many = " ".join(f"w{i % n_words}" for i in range(280_000))
    vectors = [{"vector": [0.5 + i / 1000] * DIM, "k": 10} for i in range(1_000)]
    return [
        send("POST", "/embed-doc", {"text": many, "explain": True}),
        send("POST", "/similar", {"queries": vectors}),
        send("POST", "/embed-doc", {"texts": ["w1 w2 w3 " * 210] * 1_000}),
    ]


def hostile() -> list[bytes]:
    """Requests of nearly 2 MB that no client means: members, lists, strings, different words, words among words."""
    return [
        send("POST", "/embed-doc", {f"k{i}": i for i in range(120_000)}),
        send("POST", "/embed-doc", {f"k{i}": "a" * 100 for i in range(16_000)}),
        send("POST", "/embed-doc", {"text": "w1", "more": [[[i]] for i in range(120_000)]}),
        send("POST", "/embed-doc", {"texts": ["a"] * 380_000}),
        send("POST", "/embed-doc", {"text": " ".join(f"x{i}" for i in range(240_000)), "explain": True}),
        send("POST", "/similar", {"queries": [{"word": "w1", "without": [f"w{i}" for i in range(200)]}] * 100}),
        send("POST", "/similar", {"queries": [{"word": f"x{i}"} for i in range(1_000)]}),
    ]


def send_again(service: Service, bodies: list[bytes], seconds: float) -> None:
    """Two clients with large bodies, in a process of their own that stands back behind the one that measures."""
    os.nice(10)
    asyncio.run(measured(service, Load("", cycle(bodies), 2), seconds))


def light_request(service: Service, name: str, bodies: list[bytes], seconds: float) -> Load:
    """Times a light request while two other clients send bodies of 2 MB."""
    light = [get("/livez"), *(get(f"/similar?word=w{i}&k=10") for i in range(1_000))]
    probe = Load(f"GET /similar beside 2 clients with {name} bodies of 2 MB", cycle(light), 1)
    settling = 3.0
    noise = multiprocessing.get_context("fork").Process(
        target=send_again, args=(service, bodies, seconds + settling + 1.0)
    )
    noise.start()
    time.sleep(settling)
    asyncio.run(measured(service, probe, seconds))
    noise.join()
    return probe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=int, default=100_000)
    parser.add_argument("--docs", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--light", action="store_true", help="only a light request beside large bodies")
    parser.add_argument("--model", type=Path, help="ask questions to this model, made with --keep-text")
    chosen = parser.parse_args()
    facts = header()
    print(f"Service: commit {facts['commit']}, {facts['date']}, {facts['machine']}")
    with tempfile.TemporaryDirectory() as folder:
        path = chosen.model or Path(folder) / "bench.jose"
        if chosen.model is None:
            made_model(path, chosen.words, chosen.docs)
        rows = []
        with running(path, Path(folder) / "documents.sqlite3") as service:
            size = str(chosen.model or f"{chosen.words:,} words, {chosen.docs:,} documents, dimension {DIM}")
            print(f"ready after {service.ready:.2f} s ({size}, one core)")
            print(f"load before: {os.getloadavg()[0]:.2f}\n")
            asyncio.run(measured(service, Load("warm-up", cycle([get("/livez")]), 4), 0.5))
            every = questions(chosen.model) if chosen.model else () if chosen.light else loads(chosen.words)
            for load in every:
                rows.append(asyncio.run(measured(service, load, chosen.seconds)).row())
                print("  " + ", ".join(f"{name} {value}" for name, value in rows[-1].items()), file=sys.stderr)
            if chosen.model is None:
                rows.append(light_request(service, "large", heavy(chosen.words), 4 * chosen.seconds).row())
                rows.append(light_request(service, "hostile", hostile(), 4 * chosen.seconds).row())
        print(markdown_table(list(rows[0]), [list(row.values()) for row in rows]))
        print(f"\nload after: {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()

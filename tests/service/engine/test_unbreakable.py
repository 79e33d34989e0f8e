"""Kills, full disks and stops under load, against the real process and the real file."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from serving import END_SECONDS, Served, Starter, start, wait_for

from jose_embed.model.embeddings import Embeddings

Model = tuple[Path, Embeddings]
TEXTS = [f"w{i} w{i * 7 % 1990 + 4} king" for i in range(4, 60)]


# ------------------------------------------------------------------------------------------------------- state machine


class DocumentsMachine(RuleBasedStateMachine):
    """Documents over HTTP against a dictionary; the service is killed or stopped, and started again, among the
    steps."""

    model: Model
    folder: Path
    running: Served | None = None
    n_runs = 0

    def __init__(self) -> None:
        super().__init__()
        cls = type(self)
        cls.n_runs += 1
        self.prefix = f"run{cls.n_runs}/"
        self.texts: dict[str, str] = {}

    @initialize()
    def begin(self) -> None:
        if type(self).running is None:
            self._start()

    @classmethod
    def _start(cls) -> None:
        cls.running = start(cls.model[0], "--documents", str(cls.folder / "d.sqlite3"))

    @property
    def service(self) -> Served:
        assert self.running is not None
        return self.running

    @rule(number=st.integers(0, 6), text=st.sampled_from(TEXTS))
    def put(self, number: int, text: str) -> None:
        id = f"{self.prefix}{number}"
        answer = self.service.put(id, text)
        assert answer.status_code == (200 if id in self.texts else 201)
        self.texts[id] = text

    @rule(number=st.integers(0, 6))
    def delete(self, number: int) -> None:
        id = f"{self.prefix}{number}"
        answer = self.service.client.delete(f"/documents/{id}")
        assert answer.status_code == (204 if self.texts.pop(id, None) else 404)

    @rule(changes=st.lists(st.tuples(st.integers(0, 6), st.none() | st.sampled_from(TEXTS)), min_size=1, max_size=6))
    def batch(self, changes: list[tuple[int, str | None]]) -> None:
        operations: list[dict[str, Any]] = []
        expected: list[int] = []
        for number, text in changes:
            id = f"{self.prefix}{number}"
            if text is None:
                operations.append({"op": "delete", "id": id})
                expected.append(204 if self.texts.pop(id, None) else 404)
            else:
                operations.append({"op": "put", "id": id, "text": text})
                expected.append(200 if id in self.texts else 201)
                self.texts[id] = text
        results = self.service.post("/documents:batch", {"operations": operations}).json()["results"]
        assert [item["status"] for item in results] == expected

    @rule()
    def kill(self) -> None:
        self.service.stop(signal.SIGKILL)
        self._start()

    @rule()
    def stop(self) -> None:
        assert self.service.stop() == 0
        self._start()

    @rule(text=st.sampled_from(TEXTS))
    def search(self, text: str) -> None:
        hits = self.service.post("/search", {"text": text, "k": 1_000, "source": "added"}).json()["neighbors"]
        mine = {hit["id"]: hit["score"] for hit in hits if hit["id"].startswith(self.prefix)}
        query = self.model[1].infer([text])[0].astype(np.float64)
        vectors = {id: self.model[1].infer([stored])[0] for id, stored in self.texts.items()}
        assert mine == {id: pytest.approx(float(vector @ query), abs=1e-6) for id, vector in vectors.items()}

    @invariant()
    def listed(self) -> None:
        if self.running is None:
            return
        page = self.service.get("/documents", params={"after": self.prefix, "limit": 7}).json()["documents"]
        assert [item["id"] for item in page if item["id"].startswith(self.prefix)] == sorted(self.texts)
        for id, text in self.texts.items():
            assert self.service.get(f"/documents/{id}").json()["text"] == text


@pytest.mark.parametrize(
    ("examples", "steps"), [(3, 8), pytest.param(20, 25, marks=[pytest.mark.slow, pytest.mark.timeout(3_600)])]
)
def test_documents_against_a_dictionary(model_a: Model, tmp_path: Path, examples: int, steps: int) -> None:
    machine = type("Machine", (DocumentsMachine,), {"model": model_a, "folder": tmp_path})
    bounds = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
    )
    try:
        run_state_machine_as_test(machine, settings=bounds)
    finally:
        if machine.running is not None:
            machine.running.stop(signal.SIGKILL)


# ---------------------------------------------------------------------------------------------------------- crash loop


@pytest.mark.parametrize("kills", [4, pytest.param(120, marks=[pytest.mark.slow, pytest.mark.timeout(3_600)])])
def test_no_acknowledged_write_is_lost_to_a_kill(model_a: Model, tmp_path: Path, kills: int) -> None:
    """Writers write all the time; the process is killed at random moments. What was acknowledged is there after the
    start; what was under way may be there or not, but whole."""
    documents = tmp_path / "d.sqlite3"
    dice = random.Random(1)
    acknowledged: dict[str, str | None] = {}
    n_acknowledged = 0
    lock = threading.Lock()
    for _ in range(kills):
        running = start(model_a[0], "--documents", str(documents))
        under_way: dict[str, str | None] = {}
        counted = [0]

        def write(writer: int, running: Served = running, under_way: Any = under_way, counted: Any = counted) -> None:
            own = random.Random(dice.random())
            with httpx.Client(base_url=running.url, timeout=END_SECONDS, trust_env=False) as client:
                while True:
                    id = f"{writer}-{own.randrange(30)}"
                    text = None if own.random() < 0.2 else own.choice(TEXTS)
                    with lock:
                        under_way[id] = text
                    try:
                        if text is None:
                            answer = client.delete(f"/documents/{id}")
                        else:
                            answer = client.put(f"/documents/{id}", json={"text": text})
                    except httpx.TransportError:
                        return
                    assert answer.status_code in (200, 201, 204, 404), answer.text
                    with lock:
                        acknowledged[id] = text
                        del under_way[id]
                        counted[0] += 1

        writers = [threading.Thread(target=write, args=(i,)) for i in range(4)]
        for writer in writers:
            writer.start()
        wait_for(lambda counted=counted: counted[0] >= 2)  # on a busy machine that takes a while
        time.sleep(dice.uniform(0.0, 0.5))
        running.stop(signal.SIGKILL)
        for writer in writers:
            writer.join()
        n_acknowledged += counted[0]
        # Both states of a write under way are right; which one it is counts from now on.
        check_stored(model_a, documents, acknowledged, under_way)
    assert n_acknowledged > kills
    print(f"\ncrash loop: {kills} kills, {n_acknowledged} acknowledged writes, none lost")


def check_stored(
    model_a: Model, documents: Path, acknowledged: dict[str, str | None], under_way: dict[str, str | None]
) -> None:
    from service.engine.store import Store

    store = Store(documents)
    stored = {}
    for item in store.page("", 10_000):
        document = store.get(item.id)
        assert document is not None
        stored[item.id] = document.text
    vectors = {id: vector for _, id, vector in store.vectors(model_a[1].id)}
    store.close()
    for id in acknowledged.keys() | under_way.keys() | stored.keys():
        right = [acknowledged.get(id)] + ([under_way[id]] if id in under_way else [])
        assert stored.get(id) in right, f"{id}: {stored.get(id)!r} is stored, {right!r} would be right"
        acknowledged[id] = stored.get(id)
    assert vectors.keys() == stored.keys()
    for id, text in stored.items():
        assert np.array_equal(vectors[id], model_a[1].infer([text])[0])


# ----------------------------------------------------------------------------------------------------------- full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system can only be mounted by root; the limit on file sizes is tested in its place")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_under_many_writers(model_a: Model, small_disk: Path, starter: Starter) -> None:
    """Writes that share a transaction are refused together, each with its own answer; nothing else breaks."""
    running = starter(model_a[0], "--documents", str(small_disk / "d.sqlite3"))
    stored: set[str] = set()
    statuses: set[int] = set()

    def write(writer: int) -> None:
        for i in range(60):
            answer = running.put(f"{writer}-{i}", "king " * 4_000)
            statuses.add(answer.status_code)
            if answer.status_code == 201:
                stored.add(f"{writer}-{i}")

    writers = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert statuses == {201, 507}
    listed = {item["id"] for item in running.get("/documents?limit=1000").json()["documents"]}
    found = running.post("/search", {"text": "king", "k": 1_000, "source": "added"}).json()["neighbors"]
    assert listed == {hit["id"] for hit in found} == stored


def fill(running: Served) -> tuple[list[str], httpx.Response]:
    """Writes documents until one is refused; those that were stored, and the refusal."""
    stored: list[str] = []
    for i in range(2_000):
        answer = running.put(f"fill-{i}", "king " * 2_000)
        if answer.status_code != 201:
            return stored, answer
        stored.append(f"fill-{i}")
    raise AssertionError("the disk did not become full")


def test_a_full_disk(model_a: Model, small_disk: Path, starter: Starter) -> None:
    running = starter(model_a[0], "--documents", str(small_disk / "d.sqlite3"))
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(500_000))
    stored, refused = fill(running)
    assert (refused.status_code, refused.json()["type"]) == (507, "/problems#disk-full")
    assert running.get("/readyz").status_code == 200, "reading goes on"
    assert running.get(f"/documents/{stored[-1]}").status_code == 200
    assert running.post("/search", {"text": "king", "k": 3}).status_code == 200
    refused_id = f"fill-{len(stored)}"
    assert running.get(f"/documents/{refused_id}").status_code == 404
    added = running.post("/search", {"text": "king", "k": 1_000, "source": "added"}).json()["neighbors"]
    assert refused_id not in {hit["id"] for hit in added}
    ballast.unlink()
    assert running.put("after", "king").status_code == 201
    assert running.stop(signal.SIGKILL) == -signal.SIGKILL
    again = starter(model_a[0], "--documents", str(small_disk / "d.sqlite3"))
    listed = {item["id"] for item in again.get("/documents?limit=1000").json()["documents"]}
    assert listed == {*stored, "after"}


def test_a_limit_on_file_sizes(model_a: Model, tmp_path: Path, starter: Starter) -> None:
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    running = starter(model_a[0], "--documents", str(tmp_path / "d.sqlite3"), preexec_fn=limit)
    stored, refused = fill(running)
    assert refused.status_code in (503, 507)
    assert stored
    assert running.get("/readyz").status_code == 200
    assert running.get(f"/documents/{stored[0]}").status_code == 200


# -------------------------------------------------------------------------------------------------------------- SIGTERM

# The times within which a client must ask are so long that they pass on no machine.
PATIENT = "import service.web.server; service.web.server._QUIET_LOOKS = 100_000"
DRAIN = {"JOSE_DRAIN_SECONDS": "3600"}


@pytest.mark.parametrize("keep_alive", [True, False])
def test_sigterm_under_load_fails_no_accepted_request(
    model_a: Model, tmp_path: Path, starter: Starter, keep_alive: bool
) -> None:
    running = starter(model_a[0], "--documents", str(tmp_path / "d.sqlite3"), environment=DRAIN, prelude=PATIENT)
    failures: list[str] = []
    answered = [0] * 8
    refused = [0]
    written: list[str] = []

    def ask(seed: int) -> None:
        limits = httpx.Limits(max_keepalive_connections=1 if keep_alive else 0)
        own = random.Random(seed)
        n = 0
        with httpx.Client(base_url=running.url, timeout=END_SECONDS, trust_env=False, limits=limits) as client:
            while True:
                n += 1
                id = f"s{seed}-{n}"
                try:
                    if n % 3 == 0:
                        answer = client.put(f"/documents/{id}", json={"text": own.choice(TEXTS)})
                    elif n % 3 == 1:
                        answer = client.post("/embed-doc", json={"text": " ".join(own.choices(TEXTS, k=200))})
                    else:
                        answer = client.get(f"/similar?word=w{own.randrange(4, 2_000)}&k=100")
                except httpx.ConnectError:  # the door is closed: nothing was accepted
                    refused[0] += 1
                    return
                except httpx.TransportError as error:
                    failures.append(repr(error))
                    return
                if answer.status_code >= 400:
                    failures.append(f"{answer.status_code} {answer.text[:200]}")
                elif n % 3 == 0:
                    written.append(id)
                answered[seed] += 1

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    wait_for(lambda: min(answered) > 2 or failures)
    running.client.close()  # its idle connection would be waited for
    before = sum(answered)
    status = running.stop()
    for thread in threads:
        thread.join()
    assert status == 0, "".join(running.lines)
    assert not failures, failures[:5]
    assert sum(answered) > before, "requests were answered during the drain"
    assert refused[0] == 8
    again = starter(model_a[0], "--documents", str(tmp_path / "d.sqlite3"))
    stored: set[str] = set()
    after: str | None = ""
    while after is not None:
        page = again.get("/documents", params={"after": after, "limit": 1_000}).json()
        stored |= {item["id"] for item in page["documents"]}
        after = page["next"]
    assert stored == set(written)
    assert not [line for line in running.lines if "Traceback" in line]


def _whole_answer(connection: socket.socket) -> http.client.HTTPResponse:
    """One answer, read to its end: its head and its body need not come in one piece."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    answer.read()
    return answer


@pytest.mark.parametrize("used_before", [True, False])
def test_a_client_that_is_slow_to_ask_is_answered_after_the_door_is_closed(
    model_a: Model, tmp_path: Path, starter: Starter, used_before: bool
) -> None:
    running = starter(model_a[0], "--documents", str(tmp_path / "d.sqlite3"), environment=DRAIN, prelude=PATIENT)
    url = httpx.URL(running.url)
    address = (url.host, url.port or 80)
    request = b"GET /similar?word=w5 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(address, timeout=END_SECONDS) as slow:
        if used_before:
            slow.sendall(request)
            assert _whole_answer(slow).status == 200
        running.client.close()  # its idle connection would be waited for
        running.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(OSError):  # ignored or refused
            while True:
                socket.create_connection(address, timeout=END_SECONDS).close()
                time.sleep(0.02)
        time.sleep(0.2)  # nobody is let in; whoever is connected may still be about to ask
        slow.sendall(request)
        answer = _whole_answer(slow)
    assert (answer.status, answer.getheader("connection")) == (200, "close")
    assert running.process.wait(END_SECONDS) == 0


def test_a_second_signal_and_idle_clients_do_not_hold_it(model_a: Model, tmp_path: Path, starter: Starter) -> None:
    running = starter(model_a[0], "--documents", str(tmp_path / "d.sqlite3"), environment=DRAIN)
    with httpx.Client(base_url=running.url, timeout=END_SECONDS, trust_env=False) as idle:
        idle.get("/livez")
        assert running.stop() == 0


def test_while_draining_it_says_that_it_is_not_ready(model_a: Model, tmp_path: Path, starter: Starter) -> None:
    settles = "import service.web.server; service.web.server._SETTLE_SECONDS = 3600"
    running = starter(model_a[0], "--documents", str(tmp_path / "d.sqlite3"), environment=DRAIN, prelude=settles)
    running.process.send_signal(signal.SIGTERM)

    def refuses() -> bool:
        answer = running.get("/readyz")
        return (answer.status_code, answer.headers.get("connection", "")) == (503, "close")

    wait_for(refuses)

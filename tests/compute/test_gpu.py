"""The GPU backend's kernels: the contracts of the CPU kernel, lane by lane behind a shim, and on a device.

Without a device the kernels are compiled by the host's compiler (gpu_shim.h, fake_cupy.py) and all else is as it is.
Tests of test_cpu.py run here as they stand: with one document at a time a device does what one worker does.
"""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Iterator
from typing import Any

import fake_cupy
import numpy as np
import pytest
import replay
import test_cpu_kernel as test_cpu
from fake_cupy import PLACES, FakeCupy, running_on

from jose_embed.compute.cpu import backend as cpu
from jose_embed.compute.gpu import backend as gpu
from jose_embed.compute.gpu import device as gpu_device
from jose_embed.compute.gpu.backend import GpuBackend
from jose_embed.compute.gpu.device import CHUNK, LINES, Layout, compiler_options, kernel_source
from jose_embed.compute.sampling import SamplingTables
from jose_embed.compute.tables import DOCUMENT_BLOCK, ChunkResult, Tables
from jose_embed.config import TrainConfig, preset_settings

CONTRACTS = [
    "test_a_training_is_its_replay",
    "test_any_training_is_its_replay",
    "test_a_window_of_more_than_sixteen_words_is_contrasted_sixteen_at_a_time",
    "test_a_negative_that_is_the_center_word_is_left_out",
    "test_a_document_longer_than_a_piece_is_trained_to_its_end",
    "test_documents_without_a_kept_word_change_nothing",
    "test_satisfied_hinges_move_nothing",
    "test_the_learning_rate_falls_linearly_to_a_ten_thousandth",
    "test_many_small_calls_are_one_large_one",
    "test_a_number_that_is_none_reaches_the_loss",
]
for contract in CONTRACTS:
    globals()[contract] = getattr(test_cpu, contract)


class OneAtATime:
    """A GPU backend as the tests expect a CPU backend: one document at a time, vectors at home after every chunk."""

    def __init__(self, text: Any, samples: Any, tables: Any, config: TrainConfig, total_tokens: int) -> None:
        counts = np.ones(len(samples.keep), np.int64)
        alone = dataclasses.replace(config, workers=1)
        self._backend = GpuBackend(text, samples, tables, alone, total_tokens, counts)
        self._backend.prepare()

    def train_chunk(self, documents: np.ndarray, epoch: int, first_token: int) -> ChunkResult:
        result = self._backend.train_chunk(documents, epoch, first_token)
        self._backend.collect()
        return result


@pytest.fixture(scope="module", autouse=True, params=PLACES)
def where(request: pytest.FixtureRequest) -> Iterator[str]:
    """What runs the kernels: the shim or a device; test_cpu.py's tests run on it too."""
    with pytest.MonkeyPatch.context() as patch, running_on(request.param) as place:
        patch.setattr(test_cpu, "CpuBackend", OneAtATime)
        yield place


# ---- against the oracle ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dim", "objective", "negative_step"), [*test_cpu.RULES, (2, "pairwise", "paper")])
@pytest.mark.parametrize("n_positives", [1, 5, 16])
def test_a_context_word_against_its_window(dim: int, objective: Any, negative_step: Any, n_positives: int) -> None:
    settings = {"objective": objective, "negative_step": negative_step, "doc_negatives": 2}
    for n_negatives in (1, 2, 16):
        assert test_cpu.check_one_contrast(dim, n_positives, n_negatives, "context", negatives=n_negatives, **settings)


@pytest.mark.parametrize(("dim", "negative_step"), [(16, "paper"), (16, "reference"), (100, "paper")])
@pytest.mark.parametrize("n_positives", [1, 3, DOCUMENT_BLOCK])
def test_a_document_against_its_words(dim: int, negative_step: Any, n_positives: int) -> None:
    settings = {"objective": "pairwise", "negative_step": negative_step, "negatives": 2}
    for n_negatives in (1, 8, 16):
        assert test_cpu.check_one_contrast(
            dim, n_positives, n_negatives, "document", doc_negatives=n_negatives, **settings
        )


# ---- against the CPU kernel -----------------------------------------------------------------------------------------


def trained(config: TrainConfig, backend: Any, lengths: list[int], **counts: Any) -> tuple[Tables, ChunkResult]:
    """Two epochs over some documents with repeated words, from the same start for every backend."""
    text = test_cpu.random_text(5, lengths)
    samples = SamplingTables.of(test_cpu.VOCABULARY.counts, config.subsample_threshold, config.noise_exponent)
    tables = test_cpu.tables_of(config.dim, test_cpu.VOCABULARY.n_words, len(lengths))
    n_tokens = int(text.offsets[-1])
    made = backend(text, samples, tables, config, 2 * n_tokens, **counts)
    made.prepare()
    results = [
        made.train_chunk(np.random.default_rng(epoch).permutation(len(lengths)), epoch, epoch * n_tokens)
        for epoch in range(2)
    ]
    made.collect()
    return tables, ChunkResult(*(sum(part) for part in zip(*results, strict=True)))


LENGTHS = [1, 2, 0, 9, 30]


class Replayed:
    """The replay of test_cpu.py in the place of a backend: float64, with the oracle's steps."""

    def __init__(self, text: Any, samples: Any, tables: Tables, config: TrainConfig, total_tokens: int) -> None:
        self._tables, self._precise = tables, test_cpu.in_float64(tables, config.dim)
        self._text, self._samples, self._config, self._total = text, samples, config, total_tokens

    def prepare(self) -> None:
        pass

    def train_chunk(self, documents: np.ndarray, epoch: int, first_token: int) -> ChunkResult:
        place = {"epoch": epoch, "first_token": first_token, "total_tokens": self._total}
        drawn = list(replay.contrasts(self._text, self._samples, self._config, documents.tolist(), **place))
        keys = [replay.stream_key(self._config.seed, epoch, document, 1) for document in documents.tolist()]
        ends = self._text.offsets
        words = [self._text.tokens[ends[document] : ends[document + 1]] for document in documents.tolist()]
        kept = sum(len(replay.kept_positions(self._samples, *pair)) for pair in zip(words, keys, strict=True))
        return ChunkResult(*replay.train(self._precise, drawn, self._config), kept)

    def collect(self) -> None:
        for table, precise in zip(self._tables, self._precise, strict=True):
            table[:, : precise.shape[1]] = precise


@pytest.mark.parametrize("dim", [16, 100])
def test_one_document_at_a_time_gives_the_rows_of_the_cpu(dim: int) -> None:
    config = TrainConfig(dim=dim, subsample_threshold=0.02, workers=1)
    wanted, result = trained(config, cpu.CpuBackend, [*LENGTHS, 60, 100])
    tables, found = trained(config, GpuBackend, [*LENGTHS, 60, 100], counts=test_cpu.COUNTS)
    assert found[1:] == result[1:]
    assert found.loss == pytest.approx(result.loss, rel=1e-6)
    for table, rows in zip(tables, wanted, strict=True):
        assert np.abs(table - rows).max() < 2e-6


@pytest.mark.parametrize(
    ("dim", "objective", "negative_step"),
    [
        (16, "pairwise", "paper"),
        (100, "pairwise", "paper"),
        (100, "joint", "reference"),
        (200, "joint", "paper"),
        (300, "pairwise", "reference"),
        (1024, "pairwise", "paper"),
    ],
)
def test_32_lanes_do_what_the_oracle_says(where: str, dim: int, objective: Any, negative_step: Any) -> None:
    """Lanes that meet in sums and ballots; in either order of their turns, the same bytes."""
    settings: dict[str, Any] = {"objective": objective, "negative_step": negative_step, "subsample_threshold": 0.02}
    config = TrainConfig(dim=dim, window=6, doc_negatives=5, seed=3, workers=1, **settings)
    wanted, result = trained(config, Replayed, LENGTHS)
    made = []
    for backwards in (False, True):
        with (
            fake_cupy.installed(FakeCupy(32, backwards=backwards)) if where == "shim" else pytest.MonkeyPatch.context()
        ):
            tables, found = trained(config, GpuBackend, LENGTHS, counts=test_cpu.COUNTS)
        assert found[1:] == result[1:]
        assert found.loss == pytest.approx(result.loss, rel=1e-5)
        for table, rows in zip(tables, wanted, strict=True):
            assert np.abs(table - rows).max() < 2e-5
        made.append([table.tobytes() for table in tables])
    assert made[0] == made[1]


@pytest.mark.parametrize(("window", "objective"), [(5, "pairwise"), (20, "pairwise"), (20, "joint"), (120, "pairwise")])
def test_32_lanes_walk_through_a_long_document(where: str, window: int, objective: Any) -> None:
    """The ring of words is filled again and again; windows of more than sixteen words; a window too wide for a ring."""
    settings: dict[str, Any] = {"window": window, "objective": objective, "positions_per_draw": 1 + window // 10}
    config = TrainConfig(dim=16, subsample_threshold=1.0, workers=1, **settings)
    lengths = [150, 3]
    wanted, result = trained(config, Replayed, lengths)
    with fake_cupy.installed(FakeCupy(32)) if where == "shim" else pytest.MonkeyPatch.context():
        tables, found = trained(config, GpuBackend, lengths, counts=test_cpu.COUNTS)
    assert found[1:] == result[1:]
    assert found.loss == pytest.approx(result.loss, rel=1e-5)
    for table, rows in zip(tables, wanted, strict=True):
        assert np.abs(table - rows).max() < 1e-4


def test_a_text_without_room_on_the_device_travels(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunk by chunk, to the same bytes as one that stays there; also where the room is gone when it is asked for."""
    config = TrainConfig(dim=16, subsample_threshold=1.0, workers=1)
    wanted, _ = trained(config, GpuBackend, LENGTHS, counts=test_cpu.COUNTS)

    def nowhere(_: Any) -> Any:
        raise MemoryError("out of memory")

    for name, value in (("_TOKEN_BYTES", 1 << 40), ("GpuBackend", None)):
        with monkeypatch.context() as patch:
            if value is None:
                patch.setattr(GpuBackend, "_uploaded_tokens", nowhere)
            else:
                patch.setattr(gpu, name, value)
            tables, _ = trained(config, GpuBackend, LENGTHS, counts=test_cpu.COUNTS)
        assert [table.tobytes() for table in tables] == [table.tobytes() for table in wanted]


@pytest.mark.parametrize("lanes", [1, 32])
def test_documents_in_flight_draw_the_same_samples_and_stay_on_the_sphere(where: str, lanes: int) -> None:
    """Several warps over one vocabulary: moves are lost, nothing else is."""
    config = TrainConfig(**{**preset_settings("pairwise"), "subsample_threshold": 1.0}, dim=20, workers=8, seed=2)
    lengths = [15] * 16
    with fake_cupy.installed(FakeCupy(lanes)) if where == "shim" else pytest.MonkeyPatch.context():
        tables, found = trained(config, GpuBackend, lengths, counts=test_cpu.COUNTS)
    _, result = trained(config, Replayed, lengths)
    assert (found.pairs, found.positions) == (result.pairs, result.positions)
    assert found.active == pytest.approx(result.active, rel=0.05)
    assert found.loss == pytest.approx(result.loss, rel=0.05)
    for table in tables:
        assert np.abs(np.linalg.norm(table.astype(np.float64), axis=1) - 1).max() < 1e-5
        assert not table[:, 20:].any()


@pytest.mark.parametrize("lanes", [1, 32])
def test_frequent_words_have_a_row_for_each_group_of_warps(
    where: str, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples are the same, and after a chunk the copies are one row again."""
    monkeypatch.setattr(gpu, "_FEW", 2)
    config = TrainConfig(**{**preset_settings("pairwise"), "subsample_threshold": 1.0}, dim=20, workers=8, seed=2)
    lengths = [15] * 16
    with fake_cupy.installed(FakeCupy(lanes)) if where == "shim" else pytest.MonkeyPatch.context() as device:
        tables, found = trained(config, GpuBackend, lengths, counts=test_cpu.COUNTS)
        if where == "shim":
            n_words = len(test_cpu.COUNTS)
            assert device.launches == [("thin", 16), ("train", 8), ("merge", n_words)] * 2
    _, result = trained(config, Replayed, lengths)
    assert (found.pairs, found.positions) == (result.pairs, result.positions)
    assert found.loss == pytest.approx(result.loss, rel=0.1)
    for table in tables:
        assert np.abs(np.linalg.norm(table.astype(np.float64), axis=1) - 1).max() < 1e-5
        assert not table[:, 20:].any()


@pytest.mark.parametrize("positions_per_draw", [1, 2, 7])
def test_a_long_document_is_trained_by_several_warps(
    where: str, positions_per_draw: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In stretches: every word is a position once, windows and draws of negatives reach over their borders."""
    monkeypatch.setattr(gpu_device, "STRETCH", 64)
    monkeypatch.setattr(gpu, "STRETCH", 64)
    config = TrainConfig(dim=16, subsample_threshold=1.0, workers=4, positions_per_draw=positions_per_draw)
    n = 5 * 64 + 7
    with fake_cupy.installed(FakeCupy()) if where == "shim" else pytest.MonkeyPatch.context() as device:
        _, found = trained(config, GpuBackend, [n, 3, 0], counts=test_cpu.COUNTS)
        if where == "shim":
            assert device.launches == [("thin", 3), ("train", 4)] * 2
    _, result = trained(config, Replayed, [n, 3, 0])
    assert (found.pairs, found.positions) == (result.pairs, 2 * (n + 3))


def test_chunks_may_be_trained_from_two_threads(where: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    text = test_cpu.random_text(5, [40] * 64)
    config = TrainConfig(dim=16, workers=4, subsample_threshold=1.0)
    samples = SamplingTables.of(test_cpu.VOCABULARY.counts, 1.0, 0.75)
    tables = test_cpu.tables_of(16, test_cpu.VOCABULARY.n_words, 64)
    backend = GpuBackend(text, samples, tables, config, 64 * 40, test_cpu.COUNTS)
    backend.prepare()
    assert backend.threads == 2
    with ThreadPoolExecutor(backend.threads) as pool:
        chunks = [np.arange(start, start + 8) for start in range(0, 64, 8)]
        results = list(pool.map(lambda chunk: backend.train_chunk(chunk, 0, int(chunk[0]) * 40), chunks))
    assert sum(result.positions for result in results) == 64 * 40
    assert backend.train_chunk(np.empty(0, np.int64), 0, 0) == (0.0, 0, 0, 0)
    backend.collect()
    assert np.abs(np.linalg.norm(tables.document, axis=1) - 1).max() < 1e-5


# ---- how many at a time ---------------------------------------------------------------------------------------------


def test_fewer_documents_are_in_flight_where_few_words_carry_the_text() -> None:
    """As the documentation has it: W sum a^2 / c / sum a other warps hold a row that is moved."""
    config = TrainConfig(subsample_threshold=1.0, negatives=2, window=5, objective="joint", noise_exponent=1.0)
    even = np.full(1000, 100)
    # Every word stands in 8 of 1,000 slots of a position; 64 of 1,000 have four rows: W * 0.008 * 0.952 holders.
    assert gpu.documents_in_flight(config, even, 10**6) == int(gpu._MOST_COLLISIONS / (0.008 * (1 - 0.75 * 0.064)))
    assert gpu.documents_in_flight(config, even, 10) == 60
    # Too few processors for groups of warps: rows are not copied, and so fewer documents meet in them.
    assert gpu.documents_in_flight(config, np.full(200, 100), 20) == pytest.approx(gpu._MOST_COLLISIONS / 0.04, abs=1)
    # Where that is not enough warps for groups, there are none.
    assert gpu.documents_in_flight(config, np.full(125, 100), 10**6) == pytest.approx(
        gpu._MOST_COLLISIONS / 0.064, abs=1
    )
    assert gpu.copied_words(62) == 0
    assert gpu.documents_in_flight(config, np.array([7]), 100) == 1
    few = np.concatenate((np.full(10, 10_000), np.full(990, 1)))
    assert gpu.documents_in_flight(config, few, 10**6) < 8
    assert gpu.documents_in_flight(dataclasses.replace(config, workers=33), few, 1) == 33


def test_needed_memory_is_that_of_the_vectors_and_of_two_chunks() -> None:
    config = TrainConfig(dim=100)
    base = gpu.needed_bytes(config, 0, 0)
    assert base == 2 * 16 * gpu.CHUNK_LIMITS[1]
    assert gpu.needed_bytes(config, 1000, 50) - base == 4 * 112 * 2050 + 12 * 1000
    assert gpu.needed_bytes(config, 0, 0, longest=10**9) == 2 * 16 * 10**9
    # A chunk of titles has many documents.
    rows, titles = 4 * 112 * 10**7, gpu.needed_bytes(config, 0, 10**7, n_tokens=5 * 10**7)
    assert titles - rows == pytest.approx(2 * 1.25 * (8 + 64 / 5) * gpu.CHUNK_LIMITS[1], rel=1e-6)


# ---- the samples, and what host and kernels agree on ----------------------------------------------------------------

PROBES = """
#include <cstddef>
extern "C" u64 probe_bits(u64 seed, u64 epoch, u64 document, u64 stream, u64 index) {
    return random_bits(stream_key(seed, epoch, document, stream), index);
}
extern "C" u64 probe_below(u64 bits, u64 limit) { return draw_below(bits, limit); }
extern "C" u32 probe_word(const u64 *columns, u64 n_words, u64 bits) {
    Chunk c{};
    c.columns = columns;
    c.n_words = n_words;
    return draw_word(c, bits);
}
"""


@pytest.fixture(scope="module")
def probes(where: str) -> ctypes.CDLL:
    """The kernels' own functions, for calls from here."""
    if fake_cupy.COMPILER is None:
        pytest.skip("no C++ compiler")
    fields = [f"offsetof(Chunk, {name})" for name in CHUNK.names or ()]
    fields += ["sizeof(Chunk)", *(f"offsetof(Lines, {name})" for name in LINES.names or ()), "sizeof(Lines)"]
    places = f'extern "C" size_t probe_place(int i) {{ size_t at[] = {{{", ".join(fields)}}}; return at[i]; }}\n'
    found = fake_cupy.library(kernel_source(), compiler_options(Layout(16)), 1, PROBES + places)
    for name in ("probe_bits", "probe_below", "probe_word", "probe_place"):
        getattr(found, name).restype = ctypes.c_uint32 if name == "probe_word" else ctypes.c_uint64
    return found


def test_the_device_draws_the_same_bits(probes: ctypes.CDLL) -> None:
    random = np.random.default_rng(1)
    for _ in range(200):
        seed, epoch, document, stream, index = (int(x) for x in random.integers(0, 2**40, 5))
        seed <<= int(random.integers(0, 24))
        key = replay.stream_key(seed, epoch, document, stream % 5)
        wanted = replay.random_bits(key, [index])
        arguments = (ctypes.c_uint64(int(x)) for x in (seed, epoch, document, stream % 5, index))
        bits = probes.probe_bits(*arguments)
        assert bits == wanted[0]
        for limit in (1, 5, 10**6, 2**32):
            below = probes.probe_below(ctypes.c_uint64(bits), ctypes.c_uint64(limit))
            assert below == replay.draw_below(wanted, limit)[0]


def test_the_device_draws_the_same_words(probes: ctypes.CDLL) -> None:
    samples = SamplingTables.of(test_cpu.VOCABULARY.counts, 1.0, 0.75)
    bits = np.random.default_rng(2).integers(0, 2**64, 2000, np.uint64)
    columns = np.stack((samples.threshold, samples.alias), axis=1)
    n = ctypes.c_uint64(len(samples.threshold))
    drawn = [probes.probe_word(ctypes.c_void_p(columns.ctypes.data), n, ctypes.c_uint64(int(one))) for one in bits]
    assert drawn == replay.draw_words(samples, bits).tolist()


def test_records_have_the_layout_of_the_structures(probes: ctypes.CDLL) -> None:
    wanted = []
    for record in (CHUNK, LINES):
        wanted += [record.fields[name][1] for name in record.names or ()]  # type: ignore[index]
        wanted.append(record.itemsize)
    assert [probes.probe_place(i) for i in range(len(wanted))] == wanted
    # And the same names in the same order, so that nothing of equal size has changed places.
    source = kernel_source()
    for name, record in (("Chunk", CHUNK), ("Lines", LINES)):
        body = source.partition(f"struct {name} {{")[2].partition("};")[0]
        code = " ".join(line.partition("//")[0] for line in body.splitlines())
        declared = [
            part.replace("*", " ").split()[-1]
            for piece in code.split(";")
            if piece.strip()
            for part in piece.split(",")
        ]
        assert declared == list(record.names or ())

"""Machine code on disk: found by the next process, never stale, never needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import jose_embed
from jose_embed.compute import kernel_cache
from jose_embed.compute.cpu.directions import count_documents
from jose_embed.compute.jit import Kernel, jit
from jose_embed.compute.kernel_cache import MachineCode

MACHINE = MachineCode(b"\x7fELF and\nmore", "name", "dq", single=False)

# Trains one document with the kernel of the shortest rows; prints the sum of its row and whether it compiled.
PROGRAM = """
import sys
import numpy as np
from jose_embed.compute.cpu.backend import CpuBackend
from jose_embed.compute.sampling import SamplingTables
from jose_embed.compute.tables import Tables, Text, padded_table
from jose_embed.config import TrainConfig

config = TrainConfig(dim=16, workers=1, subsample_threshold=1.0)
tables = Tables(*(padded_table(n, 16) for n in (4, 4, 1)))
for table in tables:
    table[:] = np.eye(len(table), 16)
text = Text(np.array([0, 1, 2, 3, 1, 0], np.int32), np.array([0, 6]))
samples = SamplingTables.of(np.array([2, 2, 1, 1]), 1.0, 0.75)
CpuBackend(text, samples, tables, config, 6).train_chunk(np.array([0]), 0, 0)
print(float(tables.center.astype(float).sum()), "numba" in sys.modules)
"""


def run(cache: Path | str, package: Path | None = None) -> tuple[float, bool]:
    """What the program prints, with this cache and from this copy of the package."""
    return answer(start(cache, package))


def start(cache: Path | str, package: Path | None = None) -> subprocess.Popen[str]:
    folder = package or Path(jose_embed.__file__).parent.parent
    environment = {**os.environ, "JOSE_CACHE_DIR": str(cache), "PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)


def answer(process: subprocess.Popen[str]) -> tuple[float, bool]:
    output, _ = process.communicate()
    assert process.returncode == 0
    value, compiled = output.split()
    return float(value), compiled == "True"


def test_an_edit_of_a_helper_in_another_file_is_never_missed(tmp_path: Path) -> None:
    package, cache = tmp_path / "copy", tmp_path / "cache"
    shutil.copytree(Path(jose_embed.__file__).parent, package / "jose_embed")
    before, compiled = run(cache, package)
    assert compiled
    assert run(cache, package) == (before, False)
    helpers = package / "jose_embed" / "compute" / "sampling.py"
    source = helpers.read_text()
    assert "0xBF58476D1CE4E5B9" in source
    helpers.write_text(source.replace("0xBF58476D1CE4E5B9", "0xBF58476D1CE4E5BB"))
    after, compiled = run(cache, package)
    assert compiled
    assert after != before
    helpers.write_text(source)
    assert run(cache, package) == (before, False)


def test_damaged_entries_are_compiled_anew_and_two_processes_may_write_at_once(tmp_path: Path) -> None:
    both = [start(tmp_path), start(tmp_path)]
    (wanted, _), (other, _) = map(answer, both)
    assert other == wanted
    entries = sorted(tmp_path.iterdir())
    assert entries
    assert {entry.suffix for entry in entries} == {".kernel"}
    largest = max(entries, key=lambda entry: entry.stat().st_size)
    whole = largest.read_bytes()
    for damaged in (whole[:-1], whole[:1000], b"", whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:]):
        largest.write_bytes(damaged)
        assert run(tmp_path) == (wanted, True)
        assert run(tmp_path) == (wanted, False)


@pytest.mark.parametrize("cache", ["off", "/dev/null/no/directory"])
def test_without_a_cache_each_process_compiles(cache: str) -> None:
    wanted, compiled = run(cache)
    assert compiled
    assert run(cache) == (wanted, True)


def test_a_directory_that_others_write_to_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOSE_CACHE_DIR", str(tmp_path))
    kernel_cache.write("one", MACHINE)
    assert kernel_cache.read("one") == MACHINE
    tmp_path.chmod(0o777)
    assert kernel_cache.read("one") is None
    kernel_cache.write("two", MACHINE)
    assert [entry.name for entry in tmp_path.iterdir()] == ["one.kernel"]


def test_the_oldest_entries_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOSE_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(kernel_cache, "MOST_BYTES", 3 * 200)
    (tmp_path / "killed.tmp").write_bytes(b"half")
    (tmp_path / "notes.txt").write_bytes(b"of somebody else")
    now = time.time()
    os.utime(tmp_path / "killed.tmp", (now - 1e6, now - 1e6))
    for number in range(5):
        kernel_cache.write(str(number), MACHINE._replace(code=bytes(100)))
        os.utime(tmp_path / f"{number}.kernel", (now - 9e5 + number, now - 9e5 + number))
        assert kernel_cache.read("0") is not None or number > 3
        if number == 1:
            assert kernel_cache.read("0") is not None  # counts as new from here on
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["0.kernel", "3.kernel", "4.kernel", "notes.txt"]


def test_the_default_directory_is_the_platforms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/some/cache")
    monkeypatch.setenv("JOSE_CACHE_DIR", "")
    found = kernel_cache.directory()
    assert found is not None
    assert found.name == "jose-embed"
    if sys.platform == "linux":
        assert found == Path("/some/cache/jose-embed")


def test_the_key_depends_on_numbas_settings_and_on_types(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {kernel_cache.key("a", ("int",)), kernel_cache.key("b", ("int",)), kernel_cache.key("a", ("float",))}
    kernel_cache._environment.cache_clear()
    monkeypatch.setenv("NUMBA_OPT", "1")
    keys.add(kernel_cache.key("a", ("int",)))
    kernel_cache._environment.cache_clear()
    assert len(keys) == 4


def test_kernels_of_other_packages_and_closures_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOSE_CACHE_DIR", str(tmp_path))

    @jit
    def twice(x: float) -> float:
        return 2 * x

    assert twice(1.5) == 3
    assert list(tmp_path.iterdir()) == []


def test_a_kernel_that_another_process_could_not_run_is_refused() -> None:
    @jit
    def shown(x: float) -> None:
        print(x)

    with pytest.raises(RuntimeError, match="exists only in a process with Numba"):
        shown(1.5)


def test_each_combination_of_types_has_machine_code_of_its_own() -> None:
    @jit
    def total(values: np.ndarray) -> float:
        sum_of_values = 0.0
        for value in values:
            sum_of_values += value
        return sum_of_values

    values = np.arange(10.0)
    assert total(values) == total(values[::-1]) == total(values.astype(np.int32)) == 45
    assert total(values[::2]) == 20
    assert isinstance(total, Kernel)
    assert len(total._loaded) == 3
    assert count_documents(np.array([0, 0, 1], np.int32), np.array([0, 1, 3]), 2).tolist() == [2, 1]

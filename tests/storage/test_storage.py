"""A directory appears whole or not at all: whatever call fails, whenever the process dies."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jose_embed.errors import ModelError, TrainingError
from jose_embed.storage import atomic as storage
from jose_embed.storage.atomic import DirectoryWriter, atomic_file, check_output, check_target, moved_aside
from jose_embed.storage.directory import DirectoryReader, array_header, npy_preamble

ROOT = Path(__file__).resolve().parents[2]
OLD = {"a.txt": b"old", "b.txt": b"old" * 1000}
NEW = {"a.txt": b"new", "b.txt": b"new" * 1000, "c.txt": b""}


@pytest.fixture(params=["exchange", "aside"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to replace a directory: one step of the kernel, or two renames where it has none."""
    if request.param == "aside":
        monkeypatch.setattr(storage, "_renamed_by_kernel", lambda *_: False)
    elif not sys.platform.startswith("linux"):
        pytest.skip("only Linux exchanges two names")
    return str(request.param)


def write(path: Path, files: dict[str, bytes] = NEW, **options: Any) -> None:
    with DirectoryWriter(path, **options) as directory:
        for name, data in files.items():
            directory.write(name, [data[:5], memoryview(data)[5:]])


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_writes_files_with_their_sums(tmp_path: Path) -> None:
    with DirectoryWriter(tmp_path / "m") as directory:
        facts = directory.write("a.txt", [b"ab", b"c"])
        assert not (tmp_path / "m").exists()
    assert facts == directory.files["a.txt"]
    assert facts == {"sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "bytes": 3}
    assert contents(tmp_path / "m") == {"a.txt": b"abc"}
    assert os.listdir(tmp_path) == ["m"]


def test_replaces_only_when_told(tmp_path: Path, way: str) -> None:
    write(tmp_path / "m", OLD)
    with pytest.raises(ModelError, match="already exists; choose another name, or replace it with overwrite=True"):
        write(tmp_path / "m")
    assert contents(tmp_path / "m") == OLD
    write(tmp_path / "m", overwrite=True)
    assert contents(tmp_path / "m") == NEW
    assert os.listdir(tmp_path) == ["m"]


def test_a_symbolic_link_stands_for_its_target(tmp_path: Path, way: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    write(tmp_path / "elsewhere" / "m", OLD)
    (tmp_path / "link").symlink_to("elsewhere/m")
    write(tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert contents(tmp_path / "elsewhere" / "m") == NEW


def test_an_exception_inside_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with DirectoryWriter(tmp_path / "m") as directory:
            directory.write("a.txt", [b"x"])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["", "../a", "a/b", ".a", "a\n", "a.txt", "é"])
def test_refuses_names_that_are_not_plain(tmp_path: Path, name: str) -> None:
    with DirectoryWriter(tmp_path / "m") as directory:
        directory.write("a.txt", [b""])
        with pytest.raises(ModelError, match="cannot name a file"):
            directory.write(name, [b""])
    assert contents(tmp_path / "m") == {"a.txt": b""}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none/m", "none does not exist; make it first"),
        ("file/m", "does not exist; make it first"),
        ("file", "is a file, not a directory"),
        ("m\0", "cannot be written here"),
        ("x" * 300, "cannot be written"),
        ("/", "root of a file system"),
    ],
)
def test_says_why_a_place_is_unfit(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(ModelError, match=message) as caught:
        write(tmp_path / name, overwrite=True)
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == {"file": b"precious"}


def test_a_read_only_directory_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.os, "access", lambda *_: False)
    with pytest.raises(ModelError, match=r"this directory cannot be written to; choose another place for m"):
        write(tmp_path / "m")


def test_no_room_is_said_before_the_first_byte(tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"m: no room on the disk \(No space left.*\): 1000000.0 TB are needed, .* free"
    ):
        write(tmp_path / "m", needed_bytes=10**18)
    assert os.listdir(tmp_path) == []


def test_a_file_too_large_is_no_room(tmp_path: Path) -> None:
    """The real thing: a limit of the system cuts the write off in the middle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(TrainingError, match=r"no room on the disk \(File too large\)"):
            write(tmp_path / "m", {"a": b"x" * 200_000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert os.listdir(tmp_path) == []


class Fails:
    """Counts the calls of a function and lets one of them fail."""

    def __init__(self, function: Callable[..., Any], nth: int, number: int, counts: Callable[..., bool]) -> None:
        self.function, self.left, self.number, self.counts = function, nth, number, counts

    def __call__(self, *args: Any, **options: Any) -> Any:
        if self.counts(*args):
            self.left -= 1
            if self.left == 0:
                raise OSError(self.number, os.strerror(self.number))
        return self.function(*args, **options)


CALLS = {
    "mkdir": (errno.EROFS, lambda *_: True),
    "open": (errno.EMFILE, lambda _, flags, *__: bool(flags & os.O_CREAT)),
    "write": (errno.ENOSPC, lambda *_: True),
    "fsync": (errno.EIO, lambda *_: True),
    "rename": (errno.EIO, lambda *_: True),
    "_renamed_by_kernel": (errno.EIO, lambda *_: True),
}


def each_failure(monkeypatch: pytest.MonkeyPatch, call: str, attempt: Callable[[], None]) -> Iterator[bool]:
    """Runs ``attempt`` with the first, the second, ... call of a function failing, until none is left to fail."""
    number, counts = CALLS[call]
    home = storage if call.startswith("_") else storage.os
    for nth in range(1, 100):
        fails = Fails(getattr(home, call), nth, number, counts)
        with monkeypatch.context() as patched:
            patched.setattr(home, call, fails)
            message = ""
            try:
                attempt()
            except (ModelError, TrainingError) as error:
                message = str(error)
        assert bool(message) == (fails.left <= 0)
        assert "\n" not in message
        assert ("no room" in message) == (bool(message) and number == errno.ENOSPC)
        yield bool(message)
        if not message:
            return
    raise AssertionError("no end")


@pytest.mark.parametrize("call", CALLS)
def test_any_failing_call_leaves_the_old_directory(
    tmp_path: Path, way: str, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "m", OLD)
    for failed in each_failure(monkeypatch, call, lambda: write(tmp_path / "m", overwrite=True)):
        assert contents(tmp_path / "m") == (OLD if failed else NEW)
        assert os.listdir(tmp_path) == ["m"]


@pytest.mark.parametrize("call", CALLS)
def test_any_failing_call_leaves_no_new_directory(
    tmp_path: Path, way: str, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for failed in each_failure(monkeypatch, call, lambda: write(tmp_path / "m")):
        assert os.listdir(tmp_path) == ([] if failed else ["m"])


@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
def test_any_failing_call_leaves_a_file_as_it_was(tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CALLS, "replace", (errno.EIO, lambda *_: True))
    monkeypatch.setattr(storage, "_sync_directory", lambda _: None)  # comes after the file has its name
    (tmp_path / "f").write_bytes(b"old")

    def attempt() -> None:
        with atomic_file(tmp_path / "f", overwrite=True) as put:
            put(b"n")
            put(b"ew")

    failures = 0
    for failed in each_failure(monkeypatch, call, attempt):
        failures += failed
        assert contents(tmp_path) == {"f": b"old" if failed else b"new"}
    assert failures >= 1


def test_a_file_replaces_only_when_told(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")
    for path, options in [(tmp_path / "f", {}), (tmp_path, {"overwrite": True}), (tmp_path / "no" / "f", {})]:
        with pytest.raises(ModelError), atomic_file(path, **options) as put:
            put(b"x")
    assert contents(tmp_path) == {"f": b"old"}


def test_a_name_taken_meanwhile_is_not_overwritten(tmp_path: Path, way: str) -> None:
    late = DirectoryWriter(tmp_path / "m")
    late.__enter__()
    late.write("a.txt", [b"x"])
    write(tmp_path / "m", OLD)
    with pytest.raises(ModelError, match="already exists"):
        late.__exit__(None, None, None)
    assert contents(tmp_path / "m") == OLD
    assert os.listdir(tmp_path) == ["m"]


def test_two_writers_of_one_name(tmp_path: Path, way: str) -> None:
    with DirectoryWriter(tmp_path / "m", overwrite=True) as first:
        first.write("a.txt", [b"first"])
        with DirectoryWriter(tmp_path / "m", overwrite=True) as second:
            second.write("a.txt", [b"second"])
        assert contents(tmp_path / "m") == {"a.txt": b"second"}
    assert contents(tmp_path / "m") == {"a.txt": b"first"}
    assert os.listdir(tmp_path) == ["m"]


WRITER = """
import sys
from pathlib import Path
from jose_embed.storage import atomic as storage
if sys.argv[2] == "aside":
    storage._renamed_by_kernel = lambda *_: False
print("ready", flush=True)
for i in range(10**6):
    with storage.DirectoryWriter(sys.argv[1], overwrite=True) as directory:
        for name in "abc":
            directory.write(name, [b"%d" % (i % 10) * 1000] * 5)
"""


def test_killed_writers_leave_a_whole_directory(tmp_path: Path, way: str) -> None:
    """A writer that replaces a directory over and over is killed at random moments."""
    write(tmp_path / "m", dict.fromkeys("abc", b"0" * 5000))
    delays = random.Random(1)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    leftovers = 0
    for _ in range(20):
        command = [sys.executable, "-c", WRITER, str(tmp_path / "m"), way]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            while len(os.listdir(tmp_path)) == 1:  # it has not begun to write
                assert process.poll() is None
            time.sleep(delays.uniform(0.0, 0.05))
            process.kill()
        leftovers += len(os.listdir(tmp_path)) - 1
        if way == "aside":
            assert (tmp_path / "m").exists() or moved_aside(tmp_path / "m") is not None
        else:
            assert (tmp_path / "m").exists()
        with pytest.raises(ModelError, match="already exists"):
            check_target(tmp_path / "m")  # which tidies
        assert os.listdir(tmp_path) == ["m"]
        files = contents(tmp_path / "m")
        assert sorted(files) == ["a", "b", "c"]
        assert len(set(files.values())) == 1
        assert len(files["a"]) == 5000
    assert leftovers > 0


def test_the_temporary_of_a_living_writer_stays(tmp_path: Path) -> None:
    with DirectoryWriter(tmp_path / "m") as first:
        (temporary,) = tmp_path.iterdir()
        os.utime(temporary, (0, 0))  # a lock is believed, not a date
        write(tmp_path / "m", OLD, overwrite=True)
        assert temporary.exists()
        first._overwrite = True
    assert contents(tmp_path / "m") == {}


def test_a_locked_temporary_stays_although_nobody_has_its_number(tmp_path: Path) -> None:
    """Another container's writer: its number means nothing here."""
    temporary = tmp_path / ".m.tmp-999999999-0123abcd"
    temporary.mkdir()
    os.utime(temporary, (0, 0))
    descriptor = os.open(temporary, os.O_RDONLY)
    try:
        assert storage._lock(descriptor)
        check_target(tmp_path / "m")
        assert temporary.exists()
    finally:
        os.close(descriptor)
    check_target(tmp_path / "m")
    assert not temporary.exists()


def test_where_there_are_no_locks_the_number_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_lock", lambda _: None)
    for pid in (os.getpid(), 1, 999999999, 9999999999):
        (tmp_path / f".m.tmp-{pid}-0123abcd").mkdir()
        os.utime(tmp_path / f".m.tmp-{pid}-0123abcd", (0, 0))
    check_target(tmp_path / "m")
    left = {int(name.split("-")[1]) for name in os.listdir(tmp_path)}
    assert left == {os.getpid(), 1, 9999999999}  # the last is beyond any number: not ours to judge


def test_a_dead_writers_file_goes_too(tmp_path: Path) -> None:
    (tmp_path / ".f.tmp-999999999-0123abcd").write_text("half")
    with atomic_file(tmp_path / "f") as put:
        put(b"x")
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="asks Linux for the names of descriptors")
def test_everything_is_synced_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def fsync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        published = (tmp_path / "m").exists()
        seen.append(f"{'after' if published else 'before'} {path.name if path.suffix == '.txt' else path.name[:6]}")

    monkeypatch.setattr(storage.os, "fsync", fsync)
    write(tmp_path / "m", OLD)
    assert seen == ["before a.txt", "before b.txt", "before .m.tmp", f"after {tmp_path.name[:6]}"]


def test_an_old_temporary_without_a_lock_goes_although_its_number_lives(tmp_path: Path) -> None:
    """A container's first process has the same number after every start."""
    temporary = tmp_path / f".m.tmp-{os.getpid()}-0123abcd"
    temporary.mkdir()
    check_target(tmp_path / "m")
    assert temporary.exists()  # it may be just about to lock it
    os.utime(temporary, (0, 0))
    (tmp_path / ".m.tmp-notours").mkdir()
    (tmp_path / ".mm.tmp-1-0123abcd").mkdir()
    check_target(tmp_path / "m")
    assert sorted(os.listdir(tmp_path)) == [".m.tmp-notours", ".mm.tmp-1-0123abcd"]


# ---- reading


def test_reads_what_was_written(tmp_path: Path) -> None:
    table = np.arange(6, dtype=np.float32).reshape(2, 3)
    write(tmp_path / "m", {"t.npy": npy_preamble(table.dtype, table.shape) + table.tobytes(), "j.json": b'{"a": [1]}'})
    np.testing.assert_array_equal(np.load(tmp_path / "m" / "t.npy"), table)
    with DirectoryReader(tmp_path / "m") as directory:
        read = directory.array("t.npy", dtype="<f4", shape=(2, 3))
        assert directory.json("j.json") == {"a": [1]}
    np.testing.assert_array_equal(read, table)
    assert not read.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        read[0, 0] = 1


def test_reading_goes_on_in_a_directory_that_was_replaced(tmp_path: Path, way: str) -> None:
    write(tmp_path / "m", OLD)
    with DirectoryReader(tmp_path / "m") as directory:
        assert directory.is_still(tmp_path / "m")
        mapped = directory.map("b.txt")
        write(tmp_path / "m", overwrite=True)
        assert not directory.is_still(tmp_path / "m")
        with pytest.raises(ModelError, match=r"a\.txt: is missing"):
            directory.read("a.txt")
        assert directory.vanished
    assert mapped[:6] == b"oldold"


@pytest.mark.parametrize("dtype", ["?", "i1", "u2", "<i8", "f2", "<f8"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0), (2, 3, 4)])
def test_numpy_reads_our_headers_and_we_read_its(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    array = np.ones(shape, dtype)
    np.save(tmp_path / "theirs.npy", array)
    (tmp_path / "ours.npy").write_bytes(npy_preamble(array.dtype, shape) + array.tobytes())
    with DirectoryReader(tmp_path) as directory:
        for name in ("theirs.npy", "ours.npy"):
            read = directory.array(name)
            np.testing.assert_array_equal(read, array)
            assert (read.dtype, read.shape) == (array.dtype, shape)
            np.testing.assert_array_equal(np.load(tmp_path / name), array)


class Trap:
    """Unpickling this would leave a trace."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("trap-was-sprung",))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([Trap()], object), "only plain little-endian numbers"),
        (np.zeros(3, [("a", "f4")]), "only plain little-endian numbers"),
        (np.zeros(3, ">f4"), "only plain little-endian numbers"),
        (np.zeros(3, "U1"), "only plain little-endian numbers"),
        (np.zeros((2, 3), order="F"), "column by column"),
        (np.zeros(3, np.float64), r"holds <f8 numbers, but must hold <f4"),
        (np.zeros(4, np.float32), r"has the shape \(4,\), but the manifest says \(3,\)"),
    ],
)
def test_refuses_other_arrays(tmp_path: Path, array: np.ndarray, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", array, allow_pickle=True)
    with DirectoryReader(tmp_path) as directory, pytest.raises(ModelError, match=r"a\.npy: .*" + message):
        directory.array("a.npy", dtype="<f4", shape=(3,))
    assert os.listdir() == ["a.npy"]


def test_refuses_a_cut_or_longer_array_file(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(100, np.float32))
    whole = (tmp_path / "a.npy").read_bytes()
    for data in [whole[:n] for n in range(len(whole))] + [whole + b"x"]:
        (tmp_path / "a.npy").write_bytes(data)
        with DirectoryReader(tmp_path) as directory, pytest.raises(ModelError, match=r"a\.npy: "):
            directory.array("a.npy")


def with_header(text: bytes, version: int = 1) -> bytes:
    width = 2 if version == 1 else 4
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(width, "little") + text


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"[1]",
        b"(" * 5000,
        b"{'descr': '<f4', 'fortran_order': False}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (True,)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': [1]}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (10**20,)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}",
        b"{'descr': '<f3', 'fortran_order': False, 'shape': (1,)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'more': 1}",
        b"{'descr': '<f4', 'fortran_order': 1, 'shape': (1,)}",
        b"__import__('os').mkdir('trap')",
        b"\xff\xfe\x00",
    ],
)
def test_refuses_hostile_headers(text: bytes) -> None:
    for version in (0, 1, 2, 3, 9):
        with pytest.raises(ValueError, match=r"header|kind|order|column|version"):
            array_header(with_header(text, version))


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda data: with_header(data)))
def test_any_bytes_are_a_header_or_refused(data: bytes) -> None:
    try:
        dtype, shape, start = array_header(data)
    except ValueError:
        return
    assert start <= len(data)
    assert dtype.kind in "biuf"
    assert all(n >= 0 for n in shape)


def test_an_output_that_is_an_input_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model, text, other = Path("m.jose"), Path("text.txt"), Path("other.txt")
    model.mkdir()
    (model / "vectors.npy").write_text("x")
    text.write_text("x")
    os.link(text, "hard")
    os.symlink(text, "soft")
    os.symlink(model, "model")
    for name in ("text.txt", "./text.txt", "hard", "soft", tmp_path / "soft"):
        with pytest.raises(ModelError, match=r": is text\.txt, which is read; choose another name"):
            check_output(name, ["other.txt", "text.txt"])
    for name in ("m.jose", "model"):
        with pytest.raises(ModelError, match=r": contains m\.jose/vectors\.npy, which is read"):
            check_output(name, ["m.jose/vectors.npy"])
        with pytest.raises(ModelError, match=r": is in m\.jose, which is read; choose another place"):
            check_output(f"{name}/new.npy", [text], [model])
    check_output(other, [text, "missing", "-"], [model])
    check_output("new.jose", [text])
    code = "from jose_embed.storage.atomic import check_output; check_output('hard', ['-'])"
    with text.open() as file:
        found = subprocess.run([sys.executable, "-c", code], stdin=file, capture_output=True, text=True, check=False)
    assert found.stderr.splitlines()[-1].endswith(
        "hard: is standard input, which is read; choose another name for the output"
    )


def test_says_what_is_wrong_with_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "bad.json").write_bytes(b"[" * 100_000)
    for path, message in [("none", "no model directory"), ("file", "is a file"), ("a\0", "cannot be read")]:
        with pytest.raises(ModelError, match=message):
            DirectoryReader(tmp_path / path)
    with DirectoryReader(tmp_path) as directory:
        for name, message in [
            ("pipe", "not a regular file"),
            ("folder", "not a regular file"),
            ("none", "is missing"),
            ("../file", "not a plain file name"),
            ("file", "larger than 0 bytes"),
        ]:
            with pytest.raises(ModelError, match=message):
                directory.read(name, largest=0)
        with pytest.raises(ModelError, match=r"bad\.json: is not JSON"):
            directory.json("bad.json")


def test_a_missing_directory_that_was_moved_aside_is_named(tmp_path: Path) -> None:
    (tmp_path / ".m.old-1-0123abcd").mkdir()
    with pytest.raises(ModelError, match=r"interrupted overwrite left the previous one as \.m\.old-1-0123abcd"):
        DirectoryReader(tmp_path / "m")


def test_a_pipe_or_device_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelError, match="pipe: is not a regular file"), atomic_file(tmp_path / "pipe", overwrite=True):
        pass
    assert (tmp_path / "pipe").is_fifo()


# ---- what is not a model -----------------------------------------------------------------------------------------


def test_a_directory_that_may_not_be_read_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "m")
    opened = os.open

    def refuse(refused: str) -> Callable[..., int]:
        def open_or_refuse(path: str | os.PathLike[str], *arguments: Any, **options: Any) -> int:
            if Path(path).name == refused:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return opened(path, *arguments, **options)

        monkeypatch.setattr(os, "supports_dir_fd", {*os.supports_dir_fd, open_or_refuse})
        return open_or_refuse

    advice = r"cannot be read \(Permission denied\); change its permissions, or run this as a user who may read it$"
    monkeypatch.setattr(os, "open", refuse("m"))
    with pytest.raises(ModelError, match=f"/m: {advice}"):
        DirectoryReader(tmp_path / "m")
    monkeypatch.setattr(os, "open", refuse("a.txt"))
    with DirectoryReader(tmp_path / "m") as directory, pytest.raises(ModelError, match=rf"/m/a\.txt: {advice}"):
        directory.read("a.txt")

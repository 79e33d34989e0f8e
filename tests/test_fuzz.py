"""A short run of every target of fuzz.py, and what longer runs have found."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from fuzz import Fuzzer, attempt, run

from jose_embed.analysis.gold_sets import read_scored_pairs
from jose_embed.cli.program import main
from jose_embed.errors import ConfigError, CorpusError
from jose_embed.text import word_table as wordtable
from jose_embed.text.tokenizers import get_tokenizer


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzer]:
    packed_rules = wordtable._packed_rules
    yield Fuzzer(tmp_path_factory.mktemp("fuzz"))
    wordtable._packed_rules = packed_rules


TARGETS = [name.removeprefix("_on_") for name in dir(Fuzzer) if name.startswith("_on_")]


OUTCOMES = {"read", "equal", "encoded", "loaded", "opened", "kept", "done", "shown", "restored", "refused"}


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=25)
@given(seed=st.integers(0, 2**63))
def test_hostile_input_is_taken_or_refused_on_one_line(fuzzer: Fuzzer, name: str, seed: int) -> None:
    assert attempt(fuzzer, name, seed) in OUTCOMES


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="bounds the address space")
def test_the_long_target_counts_its_tries_and_names_its_findings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(60.0, 1, ["array_header", "vectors"], 50) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in out] == [["array_header", "50"], ["vectors", "50"], ["all", "100"]]

    def broken(*_: object) -> str:
        raise KeyError("nothing")

    monkeypatch.setattr(Fuzzer, "_on_vectors", broken)
    assert run(60.0, 7, ["vectors"], 3) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[-1].endswith("again with: python tests/fuzz.py --only vectors --seed 7 --tries 1")


# --- what was found


def test_a_long_field_is_not_repeated_in_full(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("a\tb\t" + "x" * 100_000)
    with pytest.raises(CorpusError) as refused:
        read_scored_pairs(path)
    assert len(str(refused.value)) < 300 + len(str(path))


def test_a_name_cannot_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("\x1b[31mred", "two\nlines", "\u202eturned", "\x9b2J"):
        assert main(["info", str(tmp_path / name)]) == 2
        message = capsys.readouterr().err.removesuffix("\n")
        assert message.isprintable()
        assert main([name]) == 2
        assert capsys.readouterr().err.removesuffix("\n").isprintable()


def test_manifests_whose_sums_fit_and_whose_fields_do_not(fuzzer: Fuzzer) -> None:
    for target, seed in [("kept_encoding", 1000280), ("encoded_corpus", 1015746)]:
        assert attempt(fuzzer, target, seed) == "refused"
    for seed in (21, 58, 62, 79, 94, 102, 128, 216, 233, 274, 691, 2076, 2332):
        assert attempt(fuzzer, "checkpoint", seed) == "refused"
    with pytest.raises(ConfigError) as refused:
        get_tokenizer("words", {"x" * 5000: 1})
    assert len(str(refused.value)) < 600

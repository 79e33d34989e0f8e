"""The programs as a user meets them: what they print, how they refuse, how they end."""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jose_embed.cli import command as cli_command
from jose_embed.cli.command import Command, Parser, Stopped, as_options, default_output
from jose_embed.cli.program import COMMANDS, main, train_main
from jose_embed.cli.train import TRAIN
from jose_embed.config import TrainConfig
from jose_embed.errors import ConfigError
from jose_embed.model.embeddings import Embeddings
from jose_embed.model.exchange import read_vectors
from jose_embed.text.sources import FORMATS

ROOT = Path(__file__).resolve().parents[2]
WORDS = ["the", "cat", "dog", "maus", "köln", "猫", "it's"]
N_DOCS = 5


def random_unit_rows(n_rows: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n_rows, 8))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model of seven words and five documents, the third of which is untrained."""
    epochs = [
        {"epoch": number, "loss": 0.3 / number, "active": 0.5, "seconds": 1.0, "words_per_second": 4e6}
        for number in range(1, 46)
    ]
    model = Embeddings.from_arrays(
        words=WORDS,
        counts=[90, 50, 40, 30, 20, 9, 5],
        center_vectors=random_unit_rows(7, 1),
        context_vectors=random_unit_rows(7, 2),
        doc_ids=[str(line) for line in range(1, N_DOCS + 1)],
        doc_vectors=random_unit_rows(N_DOCS, 3),
        doc_token_counts=[5, 6, 0, 7, 8],
        config=TrainConfig(dim=8),
        training={"epochs": epochs, "phases": {"reading": 0.1, "training": 3.4}, "backend": "cpu", "workers": 2},
        corpus={"n_documents": 5, "sources": ["a.txt", "b.txt"]},
    )
    return model.save(tmp_path_factory.mktemp("models") / "small.jose")


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a program that must refuse: status 2, nothing on standard output, one line on standard error, given back."""

    def run(program: Callable[[Sequence[str]], int], *arguments: object) -> str:
        capsys.readouterr()
        assert program([str(argument) for argument in arguments]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.endswith("\n")
        assert err.count("\n") == 1
        return err.strip()

    return run


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a program that must succeed; what it printed is given back."""

    def run(program: Callable[[Sequence[str]], int], *arguments: object) -> str:
        capsys.readouterr()
        status = program([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert status == 0, err
        return out

    return run


# ---- help ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_jose_lists_its_commands(arguments: list[str], printed: Callable[..., str]) -> None:
    text = printed(main, *arguments)
    for command in COMMANDS:
        assert command.name in text
        assert command.summary.split()[0] in text


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_explains_itself(command: Command, printed: Callable[..., str]) -> None:
    text = printed(main, command.name, "--help")
    assert command.summary.split(":")[0] in " ".join(text.split())
    for example in command.examples:
        assert example in text


def test_every_setting_is_an_option_with_its_help_and_default(
    printed: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    lines = [" ".join(line.split()) for line in printed(train_main, "--help").splitlines()]
    for name, option in TrainConfig.__dataclass_fields__.items():
        flag = f"--{name.replace('_', '-')} "
        explained = [line for line in lines if line.startswith(flag)]
        assert len(explained) == 1, flag
        first = lines.index(explained[0])
        shown = " ".join(lines[first : first + 3])
        help = as_options(option.metadata["help"], TrainConfig.__dataclass_fields__)
        default = "" if option.default is False else f" (default: {option.default if option.default != '' else 'none'})"
        assert help + default in shown
    groups = [line for line in lines if line.endswith(":") and not line.startswith(("-", "options", "positional"))]
    assert groups == ["main options:", "training:", "files and resources:", "several machines:", "examples:"]


@pytest.mark.parametrize("command", [(train_main,), (main, "encode")])
def test_help_lists_every_format_of_text(printed: Callable[..., str], command: tuple[Any, ...]) -> None:
    assert f"--format {{{','.join(FORMATS)}}}" in printed(*command, "--help")


def test_help_of_a_setting_names_options_and_fits_into_80_columns(
    printed: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = printed(train_main, "--help")
    assert max(map(len, text.splitlines())) <= 80
    for name in TrainConfig.__dataclass_fields__:
        assert "_" not in name or name not in text, name
    assert "no effect with --objective joint and --doc-step sum" in " ".join(text.split())


@pytest.mark.parametrize("program", [main, train_main])
def test_version(program: Callable[[Sequence[str]], int], printed: Callable[..., str]) -> None:
    import jose_embed

    assert printed(program, "--version").split()[1] == jose_embed.__version__


# ---- arguments that cannot be -------------------------------------------------------------------------------------


def test_mistaken_arguments_get_one_line(refused: Callable[..., str], model_path: Path) -> None:
    assert refused(main, "simular").endswith("eval, compare; did you mean similar? See jose --help")
    assert refused(main, "simular").startswith("jose: unknown command 'simular'; it must be one of train, encode, ")
    assert refused(main, "similar") == (
        "jose similar: the following arguments are required: MODEL; see jose similar --help"
    )
    assert "'0' is not a whole number of at least 1" in refused(main, "similar", model_path, "cat", "-k", "0")
    assert "unknown option --over; did you mean --overwrite?" in refused(
        train_main, "a.txt", "--over"
    )  # no abbreviation
    columns = refused(train_main, "a.csv", "--keep-fields", "date", "rating")
    assert "unexpected argument 'rating'; several columns are written with commas, as in: a,b" in columns
    assert "jose similar: unexpected argument 'dog'" in refused(main, "similar", model_path, "cat", "dog")
    assert "the query is empty" in refused(main, "similar", model_path)
    assert "exactly one of: the ID of a document, --text, --word" in refused(main, "documents", model_path)
    assert "exactly one of" in refused(main, "documents", model_path, "1", "--word", "cat")


@pytest.mark.parametrize(
    ("typed", "advice"),
    [
        ("--vector-size", " (gensim's name); use --dim instead"),
        ("--vector_size=50", " (gensim's name); use --dim instead"),
        ("--negative", " (gensim's name); use --negatives instead"),
        ("-minCount", " (fastText's name); use --min-count instead"),
        ("-ws", " (fastText's name); use --window instead"),
        ("-dim", "; did you mean --dim?"),
        ("--hs", "; negative sampling is always used here, leave it out"),
        ("--widow", "; did you mean --window?"),
    ],
)
def test_options_of_other_programs_have_a_counterpart(typed: str, advice: str, refused: Callable[..., str]) -> None:
    for program, name in [(train_main, ["jose-train"]), (main, ["jose", "train"])]:
        line = refused(program, *name[1:], "a.txt", typed, *([] if "=" in typed else ["1"]))
        assert line.startswith(f"{' '.join(name)}: unknown option {typed.split('=')[0]}{advice}")


def test_an_option_of_another_command_is_refused_by_the_command(refused: Callable[..., str], model_path: Path) -> None:
    line = refused(main, "similar", model_path, "cat", "--topn", "3")
    assert line == "jose similar: unknown option --topn (gensim's name); use -k instead; see jose similar --help"
    line = refused(main, "eval", "cluster", model_path, "--label", "x")
    assert line.startswith("jose eval cluster: ")


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("dim is 1; it must be", "--dim is 1; it must be"),
        ("m: already exists; replace it with overwrite=True", "m: already exists; replace it with --overwrite"),
        ("lower dim, raise min_count, or use backend='cpu'", "lower --dim, raise --min-count, or use --backend cpu"),
        ("add min_count=...", "add --min-count MIN_COUNT"),
        ("workers=4 counts threads", "--workers 4 counts threads"),
        ("the seed is lost; 2 workers; window 3", "the seed is lost; 2 workers; window 3"),
        ("min_count: there is no such file", "min_count: there is no such file"),
        ("a/min_count and dim.txt, 'min_count'", "a/min_count and dim.txt, 'min_count'"),
        ("learning_rate is 5", "learning_rate is 5"),  # no option of this command
        ("take k=3", "take -k 3"),
    ],
)
def test_messages_of_the_library_name_options(message: str, shown: str) -> None:
    names = {"dim", "min_count", "backend", "overwrite", "workers", "seed", "window", "k"}
    assert as_options(message, names) == shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epochs", "-1"], "epochs is -1; it must be a whole number from 0 to 100000"),
        (["--epochs", "100001"], "epochs is 100001; it must be a whole number from 0 to 100000"),
        (["--dim", "ten"], "dim is 'ten'; it must be a whole number from 2 to "),
        (["--dim", "10.5"], "dim is '10.5'; it must be a whole number from 2 to "),
        (["--margin", "nan"], "margin is nan; it must be a number above 0.0 to 2.0"),
        (["--learning-rate", "0"], "learning-rate is 0.0; it must be a number above 0.0 to 1.0"),
        (["--objective", "triple"], "objective is 'triple'; it must be one of pairwise, joint"),
        (["--tokenizer", "letters"], "tokenizer is 'letters'; it must be one of"),
    ],
)
def test_impossible_settings_are_refused(
    options: list[str], message: str, refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused(train_main, "nothing.txt", *options).startswith(f"jose-train: --{message}")
    assert list(tmp_path.iterdir()) == []


# ---- the output's name, decided before any work ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("a/news.txt", "news.jose"), ("news.txt.gz", "news.jose"), ("news.v2.txt.zst", "news.v2.jose"),
        ("news", "news.jose"), ("news.bz2", "news.jose"), (".hidden", ".hidden.jose"), ("data/folder/", "folder.jose"),
    ],
)  # fmt: skip
def test_the_output_is_named_after_the_text(source: str, name: str) -> None:
    assert default_output([source]) == Path(name)


def test_a_folder_gives_its_whole_name(tmp_path: Path) -> None:
    (tmp_path / "texts.v2").mkdir()
    assert default_output([str(tmp_path / "texts.v2")]) == Path("texts.v2.jose")
    (tmp_path / "odd[1].txt").touch()
    assert default_output([str(tmp_path / "odd[1].txt")]) == Path("odd[1].jose")


@pytest.mark.parametrize("sources", [["-"], ["a.txt", "b.txt"], ["*.txt"], ["/"]])
def test_texts_without_one_name_need_an_output(sources: list[str], refused: Callable[..., str]) -> None:
    assert "add --output NAME.jose" in refused(train_main, *sources)


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test fails if any text is looked at."""
    from jose_embed.text import reader as corpus

    def read(*_: object, **__: object) -> None:
        raise AssertionError("the text was read")

    monkeypatch.setattr(corpus, "BlockReader", read)


@pytest.mark.parametrize(
    "command",
    [
        "info M", "similar M a", "words M a", "documents M 1", "search M a", "topics M", "near-duplicates M",
        "map M -o out", "classify M --labels text", "strip M -o out", "embed M text -o out.npy", "export M -o out.vec",
        "eval report M", "compare M M", "train text -o out --min-count 1 --init M",
        "train text -o out --min-count 1 --continue-from M",
    ],
)  # fmt: skip
def test_a_folder_that_is_no_model_is_called_so(
    command: str, refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "M").mkdir()
    (tmp_path / "M" / "a.txt").write_text("not a model")
    (tmp_path / "text").write_text("one two\n" * 20)
    line = refused(main, *command.split())
    assert line.endswith(
        ": M: is a directory, but not a model (it has no manifest.json); check the path, or train one with jose-train"
    )
    assert sorted(os.listdir(tmp_path)) == ["M", "text"]


@pytest.mark.usefixtures("no_work")
def test_what_cannot_be_written_is_refused_before_reading(
    refused: Callable[..., str], model_path: Path, tmp_path: Path
) -> None:
    text = tmp_path / "corpus.txt"
    text.write_text("one two\n" * 20)
    assert "already exists" in refused(train_main, text, "--output", model_path)
    assert "--overwrite" in refused(train_main, text, "--output", model_path)
    assert "does not exist; make it first" in refused(train_main, text, "--output", tmp_path / "no" / "x.jose")
    assert "which is read" in refused(train_main, text, "--output", text, "--overwrite")
    (tmp_path / "other").write_text("x")
    assert "is a file" in refused(train_main, text, "--output", tmp_path / "other", "--overwrite")
    foreign = tmp_path / "photos"
    foreign.mkdir()
    (foreign / "me.jpg").touch()
    refused(train_main, text, "--output", foreign, "--overwrite")
    assert (foreign / "me.jpg").exists()


@pytest.mark.usefixtures("no_work")
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_permission_is_refused_before_reading(refused: Callable[..., str], tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    assert "cannot be written" in refused(train_main, tmp_path / "a.txt", "--output", closed / "x.jose")


# ---- training -----------------------------------------------------------------------------------------------------

TOPICS = ["the cat and the dog chase a mouse around the house", "the ship sails over the sea into the harbour"]
SMALL = ["--dim", "16", "--epochs", "3", "--workers", "1"]


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A text of 200 lines, one of them empty, in the current directory, where a program may write."""
    monkeypatch.chdir(tmp_path)
    lines = [f"{TOPICS[line % 2]} story{line % 7}" for line in range(199)]
    path = Path("animals and ships.txt")
    path.write_text("\n".join([*lines, "", ""]))
    return path


def test_options_come_over_a_preset(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_main([str(text), *SMALL, "--preset", "words", "--window", "4", "--quiet"]) == 0
    config = Embeddings.load("animals and ships.jose").config
    assert (config.window, config.objective, config.negatives, config.margin) == (4, "joint", 16, 0.3)
    assert train_main([str(text), "--preset", "best"]) == 2
    assert "--preset is 'best'; it must be one of words, paper, pairwise" in capsys.readouterr().err


def test_training_writes_a_model_and_says_what_it_is(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_main([str(text), *SMALL, "--window", "3", "--seed", "9"]) == 0
    out, err = capsys.readouterr()
    rows = dict(line.split(maxsplit=1) for line in out.split("\n\n")[0].strip().splitlines())
    model = Embeddings.load("animals and ships.jose", verify=True)
    assert rows["documents"] == "200, 1 without a word of the vocabulary"
    assert rows["words"] == f"{int(model.counts.sum()):,}"
    assert rows["vocabulary"] == f"{model.n_words} different words"
    assert rows["model"].startswith("animals and ships.jose (")
    for row in ["time", "speed", "loss", "memory"]:
        assert rows[row]
    assert (model.config.dim, model.config.epochs, model.config.window, model.config.seed) == (16, 3, 3, 9)
    phases = [line.split(":")[0] for line in err.splitlines() if line.startswith(("reading:", "training:", "saving:"))]
    assert phases == ["reading", "training", "saving"]
    for command in (line.removeprefix("Next:").strip() for line in out.strip().splitlines()[-2:]):
        assert main(shlex.split(command)[1:]) == 0  # what it says to type next works as it stands
    assert "mouse" in capsys.readouterr().out
    assert sorted(os.listdir()) == ["animals and ships.jose", "animals and ships.txt"]


def test_quiet_training_says_nothing_and_overwrites_when_told(text: Path, refused: Callable[..., str]) -> None:
    arguments = [text, *SMALL, "--output", "m.jose", "--quiet"]
    assert train_main([str(argument) for argument in arguments]) == 0
    assert "already exists" in refused(train_main, *arguments)
    first = Embeddings.load("m.jose").id
    assert train_main([*map(str, arguments), "--seed", "2", "--overwrite"]) == 0
    assert Embeddings.load("m.jose").id != first
    assert sorted(os.listdir()) == ["animals and ships.txt", "m.jose"]


def test_training_from_standard_input_and_several_files(
    text: Path, monkeypatch: pytest.MonkeyPatch, printed: Callable[..., str]
) -> None:
    Path("more.txt.gz").write_bytes(gzip.compress(b"a ship and a cat\n" * 10))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.read_bytes())))
    printed(train_main, "-", "more.*", "--output", "m.jose", "--tokenizer", "whitespace", *SMALL)
    model = Embeddings.load("m.jose")
    assert [model.doc_ids[row] for row in (0, 199, 200, 209)] == ["-:1", "-:200", "more.txt.gz:1", "more.txt.gz:10"]
    assert model.tokenizer.name == "whitespace"


def test_a_dry_run_counts_and_writes_nothing(text: Path, printed: Callable[..., str]) -> None:
    rows = dict(line.split(maxsplit=1) for line in printed(train_main, text, "--dry-run", *SMALL).splitlines())
    assert rows["documents"] == "200 (1 empty)"
    assert list(rows) == ["documents", "words", "vocabulary", "epochs", "backend", "memory", "time", "document"]
    assert rows["time"].endswith("on 1 worker")
    assert os.listdir() == [text.name]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "the text is empty"),
        (b"each word once", "min-count"),
        (b"\x00\x01\x02", "binary"),
        pytest.param(gzip.compress(b"some text " * 99, mtime=0)[:-9], "cut off", id="half a gzip file"),
    ],
)
def test_text_that_cannot_be_trained_on_leaves_nothing(
    content: bytes | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("x.txt").write_bytes(content)
    refusal = refused(train_main, "x.txt", "--quiet")
    assert refusal.startswith("jose-train: x.txt: ")
    assert message in refusal
    assert os.listdir() == ([] if content is None else ["x.txt"])


# ---- questions ----------------------------------------------------------------------------------------------------


def test_similar_shows_what_the_model_answers(printed: Callable[..., str], model_path: Path) -> None:
    model = Embeddings.load(model_path)
    lines = printed(main, "similar", model_path, "cat", "-k", "3").splitlines()
    assert lines[0].split() == ["score", "count", "word"]
    shown = [line.split() for line in lines[1:]]
    expected = model.most_similar("cat", k=3)
    assert shown == [[f"{n.score:.4f}", str(model.counts[n.index]), n.word] for n in expected]


def test_similar_adds_subtracts_and_projects_out(printed: Callable[..., str], model_path: Path) -> None:
    model = Embeddings.load(model_path)
    arguments = ["--positive", "cat", "dog", "--negative", "maus", "--without", "it's", "--max-rank", "6", "--json"]
    answers = json.loads(printed(main, "similar", model_path, *arguments))
    expected = model.most_similar(positive=["cat", "dog"], negative="maus", without="it's", max_rank=6)
    assert [(answer["word"], answer["score"]) for answer in answers] == [(n.word, n.score) for n in expected]
    assert [answer["rank"] for answer in answers] == [n.index for n in expected]


def test_an_unknown_word_is_refused_with_similar_spellings(refused: Callable[..., str], model_path: Path) -> None:
    assert refused(main, "similar", model_path, "catt") == (
        "jose: 'catt' is not in the vocabulary; similar spellings: cat"
    )


def test_a_missing_model_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    for command in ["similar", "documents", "info"]:
        words = [] if command == "info" else ["1"]
        message = refused(main, command, tmp_path / "no.jose", *words)
        assert message.startswith(f"jose: {tmp_path / 'no.jose'}: there is no model directory of this name")


def test_documents_of_a_document_and_of_a_word(printed: Callable[..., str], model_path: Path) -> None:
    model = Embeddings.load(model_path)
    shown = [line.split() for line in printed(main, "documents", model_path, "1").splitlines()]
    assert shown[1:] == [[f"{n.score:.4f}", n.doc_id] for n in model.similar_documents("1")]
    answers = json.loads(printed(main, "documents", model_path, "--word", "cat", "-k", "2", "--json"))
    assert [(answer["id"], answer["row"]) for answer in answers] == [
        (n.doc_id, n.index) for n in model.similar_documents(word="cat", k=2)
    ]


def test_a_hint_names_keep_text_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model_path: Path
) -> None:
    for terminal, options, shown in ((True, [], True), (False, [], False), (True, ["--json"], False)):
        monkeypatch.setattr(sys.stdout, "isatty", lambda terminal=terminal: terminal)
        assert main(["documents", str(model_path), "1", *options]) in (0, None)
        assert ("--keep-text" in capsys.readouterr().err) is shown


def test_an_untrained_document_is_refused(refused: Callable[..., str], model_path: Path) -> None:
    assert "no known word" in refused(main, "documents", model_path, "3")
    assert "there is no document '6'" in refused(main, "documents", model_path, "6")


def test_words_of_a_document_or_text_are_those_of_the_library(
    printed: Callable[..., str], refused: Callable[..., str], model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Embeddings.load(model_path)
    for arguments, expected in [
        (["2", "-k", "3"], model.words_of("2", k=3)),
        (["--text", "cat dog"], model.words_of(text="cat dog")),
    ]:
        lines = printed(main, "words", model_path, *arguments).splitlines()
        assert lines[0].split() == ["score", "count", "word"]
        assert [line.split()[2] for line in lines[1:]] == [neighbor.word for neighbor in expected]
    monkeypatch.setattr(sys, "stdin", io.StringIO("cat dog"))
    answers = json.loads(printed(main, "words", model_path, "--text", "-", "--json"))
    assert [answer["word"] for answer in answers] == [neighbor.word for neighbor in expected]
    assert "exactly one of: the ID of a document, --text" in refused(main, "words", model_path)
    assert "exactly one of" in refused(main, "words", model_path, "1", "--text", "cat")
    assert "no known word" in refused(main, "words", model_path, "3")
    assert "there is no document '9'" in refused(main, "words", model_path, "9")


def test_labels_stand_beside_their_documents(
    printed: Callable[..., str], refused: Callable[..., str], model_path: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.tsv", tmp_path / "second.tsv"
    first.write_text("label of 1\nlabel of 2\n", encoding="utf-8")
    second.write_text("label of 3\nlabel\tof 4 with Ünicode " + 200 * "x" + "\nlabel of 5", encoding="utf-8")
    lines = printed(main, "documents", model_path, "1", "--labels", first, second).splitlines()
    assert lines[0].split() == ["score", "document", "label"]
    for line in lines[1:]:
        document, label = line.split(maxsplit=2)[1:]
        assert label.startswith(f"label of {document}")
        assert len(label) <= 100
    answers = json.loads(printed(main, "documents", model_path, "1", "--labels", first, second, "--json"))
    assert {answer["label"] for answer in answers if answer["id"] == "2"} == {"label of 2"}
    for files, n_lines in [([first], 2), ([second], 3)]:
        message = refused(main, "documents", model_path, "1", "--labels", *files)
        assert f"{n_lines} lines for 5 documents; --labels needs one line for each document" in message
    (tmp_path / "six.txt").write_text("1\n2\n3\n4\n5\n6\n")
    assert "6 lines for 5 documents" in refused(main, "documents", model_path, "1", "--labels", tmp_path / "six.txt")
    assert "no such file" in refused(main, "documents", model_path, "1", "--labels", tmp_path / "no.txt")


def test_info_is_a_card_of_the_model(printed: Callable[..., str], model_path: Path) -> None:
    model = Embeddings.load(model_path)
    text = printed(main, "info", model_path)
    assert model.id in text
    rows = [" ".join(line.split()) for line in text.splitlines()]
    for row in [
        "vocabulary 7 words",
        "documents 5 (1 without a word of the vocabulary)",
        "learning_rate 0.04",
        "sources a.txt, b.txt",
    ]:
        assert row in rows
    assert any(row.startswith("training 3.4 s ") for row in rows)
    epochs = text[text.index("\nepochs\n") + 1 :].splitlines()
    assert epochs[2].split() == ["1", "0.3000", "50.0%", "1.0", "s", "4", "M", "#" * 30]
    assert epochs[-1].split()[0] == "45"
    assert len(epochs) <= 2 + 20


def test_info_verifies_and_gives_the_manifest(printed: Callable[..., str], model_path: Path, tmp_path: Path) -> None:
    assert "verified" in printed(main, "info", model_path, "--verify")
    assert json.loads(printed(main, "info", model_path, "--json")) == Embeddings.load(model_path).manifest


def test_info_finds_a_flipped_bit(capsys: pytest.CaptureFixture[str], tmp_path: Path, model_path: Path) -> None:
    damaged = Embeddings.load(model_path).save(tmp_path / "damaged.jose")
    content = bytearray((damaged / "doc_vectors.npy").read_bytes())
    content[-1] ^= 1
    (damaged / "doc_vectors.npy").write_bytes(content)
    assert main(["info", str(damaged), "--verify"]) == 2
    assert "doc_vectors.npy" in capsys.readouterr().err.splitlines()[-1]


# ---- embed --------------------------------------------------------------------------------------------------------

LINES = ["the cat", "", "The dog, the DOG!", "nothing of this", "köln 猫"]


def test_embed_writes_a_row_for_every_line(
    model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, output, details = tmp_path / "new.txt", tmp_path / "new.npy", tmp_path / "new.tsv"
    text.write_text("\n".join(LINES), encoding="utf-8")
    assert main(["embed", str(model_path), str(text), "-o", str(output), "--details", str(details)]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0].startswith(f"{output}: 5 vectors of 8 numbers, ")
    assert out.splitlines()[1] == "8 of 11 words are in the vocabulary (72.7%)"
    assert (
        "2 lines hold no word that the model knows (2, 4); all of them got the same stand-in, the mean direction" in err
    )
    model = Embeddings.load(model_path)
    vectors = np.load(output)
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors[[0, 2, 4]], model.infer([LINES[0], LINES[2], LINES[4]]))
    np.testing.assert_array_equal(vectors[[1, 3]], [model.encoder.mean_direction] * 2)
    assert details.read_text().splitlines() == [
        "id\twords\tknown\tcoverage", "1\t2\t2\t1.0000", "2\t0\t0\t0.0000", "3\t4\t4\t1.0000",
        "4\t3\t0\t0.0000", "5\t2\t2\t1.0000",
    ]  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.npy", "new.tsv", "new.txt"]


def test_embed_reads_several_sources_and_is_quiet(
    model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("cat\n")
    Path("b.txt.gz").write_bytes(gzip.compress(b"dog\nz\xffz\n"))
    assert main(["embed", str(model_path), "*.*", "-o", "v.npy", "--details", "d.tsv", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert np.load("v.npy").shape == (3, 8)
    assert [line.split("\t")[0] for line in Path("d.tsv").read_text().splitlines()[1:]] == [
        "a.txt:1", "b.txt.gz:1", "b.txt.gz:2",
    ]  # fmt: skip
    Path("empty.txt").touch()
    assert main(["embed", str(model_path), "empty.txt", "-o", "e.npy", "-q"]) == 0
    assert np.load("e.npy").shape == (0, 8)


def test_embed_never_replaces_what_it_reads(
    model_path: Path, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = tmp_path / "e.txt"
    text.write_text("cat\n")
    os.link(text, "hard.npy")
    assert "no format has the ending '.txt'" in refused(
        main, "embed", model_path, "e.txt", "-o", "e.txt", "--overwrite"
    )
    for options in (("-o", "hard.npy"), ("-o", "v.npy", "--details", "e.txt")):
        for source in ("e.txt", "*.txt", "."):
            assert "which is read; choose another" in refused(
                main, "embed", model_path, source, *options, "--overwrite"
            )
    vectors = model_path / "center_vectors.npy"
    before = vectors.read_bytes()
    assert "is in" in refused(main, "embed", model_path, "e.txt", "-o", vectors, "--overwrite")
    assert "is in" in refused(main, "export", model_path, "-o", model_path / "v.txt")
    assert "is in" in refused(main, "embed", model_path, "e.txt", "-o", model_path / "new.npy")
    assert (text.read_text(), vectors.read_bytes()) == ("cat\n", before)


def test_reports_and_classifiers_replace_nothing_that_is_read(
    model_path: Path, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    n_docs = len((model_path / "doc_ids.txt").read_text().splitlines())
    labels, other = Path("labels.txt"), Path("other.md")
    labels.write_text("a\nb\n" * n_docs)
    other.write_text("mine")
    os.link(labels, "hard.md")
    manifest = (model_path / "manifest.json").read_bytes()
    report = ["eval", "report", model_path, "--labels", labels]
    classify = ["classify", model_path, "--labels", labels]
    for name in (labels, "hard.md"):
        assert "which is read" in refused(main, *report, "-o", name, "--overwrite")
        assert "which is read" in refused(main, *classify, "--save", name, "--overwrite")
    assert "is in" in refused(main, *report, "-o", model_path / "manifest.json", "--overwrite")
    assert "is in" in refused(main, *classify, "--save", model_path / "manifest.json", "--overwrite")
    assert "replace it with --overwrite" in refused(main, *report, "-o", other)
    assert (other.read_text(), labels.stat().st_nlink, (model_path / "manifest.json").read_bytes()) == (
        "mine", 2, manifest,
    )  # fmt: skip


def test_embed_refuses_before_it_reads(
    refused: Callable[..., str], model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.npy").write_text("mine")
    assert "already exists" in refused(main, "embed", model_path, "no.txt", "-o", "there.npy")
    assert "already exists" in refused(main, "embed", model_path, "no.txt", "-o", "v.npy", "--details", "there.npy")
    assert "cannot share a file" in refused(main, "embed", model_path, "no.txt", "-o", "v", "--details", "v")
    assert "does not exist; make it first" in refused(main, "embed", model_path, "no.txt", "-o", "no/v.npy")
    assert "no such file" in refused(main, "embed", model_path, "no.txt", "-o", "v.npy")
    assert "required: -o/--output" in refused(main, "embed", model_path, "no.txt")
    ray = ("embed", model_path, "no.txt", "--engine", "ray", "-o")
    assert "v.npy: with --engine ray the output is a folder" in refused(main, *ray, "v.npy")
    assert "--details and --workers belong to a single machine" in refused(main, *ray, "v", "--workers", "2")
    assert [path.name for path in tmp_path.iterdir()] == ["there.npy"]
    assert Path("there.npy").read_text() == "mine"


# ---- export -------------------------------------------------------------------------------------------------------


def test_export_writes_what_other_programs_read(
    printed: Callable[..., str],
    refused: Callable[..., str],
    model_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    model = Embeddings.load(model_path)
    for format, ending in [("word2vec", "vec"), ("word2vec-binary", "bin"), ("safetensors", "safetensors")]:
        said = printed(main, "export", model_path, "--format", format)
        assert said.startswith(f"small.{ending}: 7 vectors of 8 numbers")
        names, vectors = read_vectors(f"small.{ending}")
        assert list(names) == WORDS
        np.testing.assert_array_equal(vectors, model.center_vectors)
    assert printed(main, "export", model_path, "-o", "d.vec", "--table", "documents", "--quiet") == ""
    np.testing.assert_array_equal(read_vectors("d.vec").vectors, model.doc_vectors)
    assert "already exists" in refused(main, "export", model_path, "-o", "d.vec", "-q")
    assert len(printed(main, "export", model_path, "-o", "d.vec", "--overwrite").splitlines()) == 1
    said = printed(main, "export", model_path, "-o", "d.vec", "--overwrite", "--table", "documents").splitlines()
    assert said[1:] == ["1 of them hold no word of the model: ignore their rows (first: 3)"]
    assert printed(main, "export", model_path, "--overwrite").startswith("small.vec: 7 vectors")
    line = refused(main, "export", model_path, "-o", "docs.xml")
    assert line.startswith(
        "jose: docs.xml: no format has the ending '.xml'; use .txt, .vec, .bin, .safetensors, .npy, .csv"
    )
    for name in line.partition("one of ")[2].split(", "):  # the names in the message are those of the option
        assert printed(main, "export", model_path, "-o", "docs.xml", "--overwrite", "--format", name)


# ---- how a program ends -------------------------------------------------------------------------------------------


def ends_with(error: BaseException | None) -> Parser:
    """A program whose only command raises."""

    def work(_: object) -> None:
        if error is not None:
            raise error

    parser = Parser(prog="prog")
    parser.set_defaults(run=work, options=frozenset())
    return parser


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (None, 0, ""),
        (ConfigError("two\nlines"), 2, "prog: two\\nlines\n"),
        (Stopped(signal.SIGINT), 130, "prog: interrupted\n"),
        (Stopped(signal.SIGTERM), 143, "prog: terminated\n"),
        (KeyboardInterrupt(), 130, "prog: interrupted\n"),
        (OSError(28, "No space left on device", "/tmp/x"), 2, "prog: /tmp/x: No space left on device\n"),
        (MemoryError(), 2, "prog: out of memory; jose-train --dry-run estimates how much a training needs\n"),
    ],
)
def test_ends(error: BaseException | None, status: int, line: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli_command.run(ends_with(error), []) == status
    assert capfd.readouterr() == ("", line)


def test_a_mistake_of_ours_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        cli_command.run(ends_with(ZeroDivisionError()), [])


def jose(*arguments: object, **settings: object) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "jose_embed", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, **settings)


def test_a_reader_that_goes_away_ends_us_quietly(model_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with jose("info", model_path, stdout=writing, stderr=subprocess.PIPE) as process:
        os.close(writing)
        assert process.communicate(timeout=600)[1] == b""
    assert process.returncode == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_standard_output_is_told(model_path: Path) -> None:
    with open("/dev/full", "wb") as full, jose("info", model_path, stdout=full, stderr=subprocess.PIPE) as process:
        assert process.communicate(timeout=600)[1] == b"jose: No space left on device\n"
    assert process.returncode == 2


def test_words_that_the_terminal_lacks_are_escaped(model_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "latin-1"}
    command = [sys.executable, "-m", "jose_embed", "similar", str(model_path), "cat"]
    shown = subprocess.run(command, env=environment, capture_output=True, check=True).stdout.decode("latin-1")
    assert "köln" in shown
    assert r"\u732b" in shown


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_waiting_for_text_leaves_nothing(number: int, tmp_path: Path) -> None:
    arguments = ["train", "-", "--output", "x.jose"]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with jose(*arguments, cwd=tmp_path, **pipes) as process:
        assert process.stdin is not None
        process.stdin.write(b"one two three\n" * 100_000)  # more than a pipe holds: what is written is being read
        process.stdin.flush()
        process.send_signal(number)
        _, err = process.communicate(timeout=600)
    assert process.returncode == 128 + number
    assert err.decode().splitlines()[-1].endswith("(no model was written)")
    assert list(tmp_path.iterdir()) == []


def interrupted(arguments: list[object], number: int) -> tuple[int, str]:
    """Exit status and last line of a training that got a signal in its first epochs, of which it tells at once."""
    program = (
        "import sys; from jose_embed import progress; progress.LineReporter._INTERVAL = 0; "
        "from jose_embed.cli.program import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        while (line := process.stderr.readline()) and not line.startswith(b"training"):
            pass
        process.send_signal(number)
        _, err = process.communicate(timeout=600)
    return process.returncode, err.decode().splitlines()[-1]


def test_an_interrupt_while_training_without_checkpoints_leaves_nothing(text: Path) -> None:
    arguments = ["train", text, "--output", "m.jose", "--epochs", "100000", "--dim", "16", "--checkpoint-every", "0"]
    assert interrupted(arguments, signal.SIGINT) == (130, "jose: interrupted (no model was written)")
    assert os.listdir() == [text.name]


def test_an_interrupted_training_says_how_to_go_on(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C, then SIGTERM on the way on; a new start and other settings are refused; the end removes what was kept."""
    arguments = ["train", text.name, "--output", "m.jose", "--epochs", "100000", "--dim", "16", "--workers", "1"]
    status, line = interrupted([*arguments], signal.SIGINT)
    assert status == 130
    found = re.fullmatch(
        r"jose: interrupted \(epoch (\d+) of 100000, \d+% of the training is kept in m\.jose\.run\); "
        r"continue with: (jose .*)",
        line,
    )
    assert found is not None
    again = shlex.split(found[2])
    assert again == ["jose", *arguments, "--resume"]
    assert sorted(os.listdir("m.jose.run")) == ["checkpoint-000001", "text"]
    assert "m.jose" not in os.listdir()

    status, line = interrupted(again[1:], signal.SIGTERM)
    assert status == 143
    assert line.startswith("jose: terminated (epoch ")
    assert line.endswith(found[2])
    assert sorted(os.listdir("m.jose.run")) == ["checkpoint-000001", "checkpoint-000002", "text"]

    assert main(arguments) == 2
    refusal = capsys.readouterr().err.splitlines()[-1]
    assert refusal.startswith(
        "jose: m.jose.run: holds the checkpoints of a training that was interrupted; continue it with --resume"
    )
    assert main([*arguments, "--resume", "--window", "3"]) == 2
    refusal = capsys.readouterr().err.splitlines()[-1]
    assert "window is 3, but the training to resume has 2; use the same settings" in refusal
    assert main([*arguments, "--resume", "--window", "3", "--log-json"]) == 2
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(event["event"], event.get("phase")) for event in events[:2]] == [
        ("start", "verifying"),
        ("finish", "verifying"),
    ]
    assert sorted(os.listdir("m.jose.run")) == ["checkpoint-000001", "checkpoint-000002", "text"]


@pytest.mark.parametrize(
    ("time", "seconds"), [("0", 0.0), ("0s", 0.0), ("30s", 30.0), ("10m", 600.0), ("1.5h", 5400.0)]
)
def test_times_are_numbers_with_a_unit(time: str, seconds: float) -> None:
    parser = argparse.ArgumentParser()
    TRAIN.declare(parser)
    assert parser.parse_args(["a.txt", "--checkpoint-every", time]).checkpoint_every == seconds


@pytest.mark.parametrize("time", ["90", "-1s", "1d", "10 m", "m", "", "1e3s", "nan"])
def test_other_times_are_refused(time: str, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", text.name, f"--checkpoint-every={time}"]) == 2
    line = f"argument --checkpoint-every: {time!r} is not a duration; write 30s, 10m or 2h, or 0 for none"
    assert line in capsys.readouterr().err

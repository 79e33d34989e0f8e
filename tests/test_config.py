"""Settings validate themselves; the text of a refusal is the negation of its guard, up to the boundary."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jose_embed import errors
from jose_embed.config import PRESETS, TrainConfig, available_workers, preset_settings
from jose_embed.errors import ConfigError
from jose_embed.model.embeddings import Embeddings

OPTIONS = {option.name: option for option in dataclasses.fields(TrainConfig)}
NUMBERS = {name: option for name, option in OPTIONS.items() if not isinstance(option.default, (str, bool))}
WHOLE = {name: option for name, option in NUMBERS.items() if isinstance(option.default, int)}
FRACTIONS = {name: option for name, option in NUMBERS.items() if name not in WHOLE}
CHOICES = {name: option for name, option in OPTIONS.items() if option.metadata["choices"]}


def refusal(**settings: Any) -> str:
    with pytest.raises(ConfigError) as error:
        TrainConfig(**settings)
    assert isinstance(error.value, ValueError)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_the_preset_paper_has_the_settings_of_the_paper() -> None:
    config = TrainConfig(**preset_settings("paper"))
    assert (config.objective, config.negative_step, config.doc_method) == ("joint", "paper", "trained")
    assert (config.dim, config.window, config.negatives, config.margin) == (100, 5, 2, 0.15)
    assert (config.learning_rate, config.subsample_threshold, config.min_count) == (0.04, 1e-3, 5)
    assert (config.epochs, config.workers, config.noise_exponent) == (10, 0, 0.75)


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_says_what_it_is(name: str) -> None:
    text = OPTIONS[name].metadata["help"]
    assert text
    assert "\n" not in text
    assert not text.endswith(".")


@pytest.mark.parametrize("name", NUMBERS)
def test_bounds_belong_to_the_range_and_what_is_beyond_is_refused(name: str) -> None:
    facts = NUMBERS[name].metadata
    step = 1 if name in WHOLE else 1e-9
    low, high, above = facts["low"], facts["high"], facts["above"]
    assert (low is None) != (above is None)
    if low is not None:
        assert getattr(TrainConfig(**{name: low}), name) == low
        message = refusal(**{name: low - step})
        assert message.startswith(f"{name} is {low - step!r}; it must be a")
        assert f"from {low} " in message
    if above is not None:
        assert refusal(**{name: above}).startswith(f"{name} is {above!r}; it must be a number above {above} to ")
        assert TrainConfig(**{name: above + step})
    if high is not None:
        assert getattr(TrainConfig(**{name: high}), name) == high
        assert refusal(**{name: high + step}).endswith(f" to {high}")
    else:
        assert getattr(TrainConfig(**{name: 10**30}), name) == 10**30
        assert refusal(**{name: low - step}).endswith(f"from {low} up")


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ["5", None, True, math.nan, math.inf, -math.inf, [1], 1j, -(10**400)])
def test_what_is_no_number_is_refused(name: str, value: Any) -> None:
    kind = "a whole number" if name in WHOLE else "a number"
    assert refusal(**{name: value}).startswith(f"{name} is {value!r}; it must be {kind} ")


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_number_has_no_fraction(name: str) -> None:
    assert refusal(**{name: 2.0}).startswith(f"{name} is 2.0; it must be a whole number ")


def test_a_number_far_out_of_range_is_refused_like_any() -> None:
    assert refusal(seed=10**400).endswith(f"it must be a whole number from 0 to {2**63 - 1}")
    assert refusal(margin=10**400).endswith("it must be a number above 0.0 to 2.0")


@pytest.mark.parametrize("value", ["yes", "", 1, 0, None, 0.5])
def test_a_switch_is_true_or_false(value: Any) -> None:
    assert refusal(phrases=value) == f"phrases is {value!r}; it must be True or False"


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("value", ["other", "", 1, None, ["pairwise"]])
def test_a_choice_is_one_of_its_names(name: str, value: Any) -> None:
    choices = CHOICES[name].metadata["choices"]
    assert refusal(**{name: value}) == f"{name} is {value!r}; it must be one of {', '.join(choices)}"
    for choice in choices:
        assert getattr(TrainConfig(**{name: choice}), name) == choice


@pytest.mark.parametrize("value", ["", 3, None])
def test_a_tokenizer_has_a_name(value: Any) -> None:
    assert refusal(tokenizer=value) == f"tokenizer is {value!r}; it must be a name"


@pytest.mark.parametrize(
    ("n_tokens", "epochs", "threshold"),
    [
        (0, 50, 1.0),
        (1, 50, 1.0),
        (150_000, 50, 200 / 150_000),
        (600_000, 17, 200 / 600_000),
        (1_000_000, 10, 2e-4),
        (2_000_000, 10, 1e-4),
        (10**13, 10, 1e-4),
    ],
)
def test_a_small_text_is_passed_more_often_and_thinned_out_less(n_tokens: int, epochs: int, threshold: float) -> None:
    settled = TrainConfig(dim=50).for_text(n_tokens)
    assert settled.epochs == epochs
    assert settled.subsample_threshold == pytest.approx(threshold)
    assert settled == TrainConfig(dim=50, epochs=epochs, subsample_threshold=settled.subsample_threshold)
    assert settled.for_text(123) == settled  # what is settled stays


def test_what_somebody_chose_is_not_changed_by_the_text() -> None:
    chosen = TrainConfig(epochs=3, subsample_threshold=1e-5)
    assert chosen.for_text(1000) == chosen
    paper = TrainConfig(**preset_settings("paper"))
    assert paper.for_text(1000) == paper


def test_the_context_share_grows_with_the_length_of_documents() -> None:
    config = TrainConfig(doc_context_share=0.8)
    assert [config.context_share(length) for length in (0.0, 100.0, 300.0)] == pytest.approx([0.0, 0.4, 0.6])
    assert config.context_share(1e9) == pytest.approx(0.8)
    assert TrainConfig(doc_context_share=0.0).context_share(50.0) == 0.0


def test_numbers_of_other_kinds_become_plain_ones() -> None:
    config = TrainConfig(
        dim=np.int32(50), seed=np.uint64(7), margin=np.float32(0.25), learning_rate=1, noise_exponent=Fraction(1, 2)
    )
    assert config == TrainConfig(dim=50, seed=7, margin=0.25, learning_rate=1.0, noise_exponent=0.5)
    assert type(config.dim) is int
    assert type(config.learning_rate) is float
    assert json.loads(json.dumps(config.to_dict())) == config.to_dict()


def test_a_config_is_its_dict_and_back() -> None:
    config = TrainConfig(dim=32, objective="joint", tokenizer="whitespace", seed=2**63 - 1)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert TrainConfig.from_dict({}) == TrainConfig()
    assert hash(config) == hash(dataclasses.replace(config))
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.dim = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("vector_size", " (gensim's name); use dim instead"),
        ("size", " (gensim's name); use dim instead"),
        ("negative", " (gensim's name); use negatives instead"),
        ("alpha", " (gensim's name); use learning_rate instead"),
        ("sample", " (gensim's name); use subsample_threshold instead"),
        ("iter", " (gensim's name); use epochs instead"),
        ("ws", " (fastText's name); use window instead"),
        ("minCount", " (fastText's name); use min_count instead"),
        ("n_jobs", " (scikit-learn's name); use workers instead"),
        ("sg", "; there is one architecture here, leave it out"),
        ("hs", "; negative sampling is always used here, leave it out"),
        ("widow", "; did you mean window?"),
        ("dimension", "; did you mean dim?"),
        ("xyz", f"; known are {', '.join(sorted(OPTIONS))}"),
        ("topn", f"; known are {', '.join(sorted(OPTIONS))}"),  # its counterpart is no setting
    ],
)
def test_an_unknown_setting_is_refused_with_its_counterpart(name: str, advice: str) -> None:
    with pytest.raises(ConfigError) as error:
        TrainConfig.from_dict({"dim": 5, name: 3})
    assert str(error.value) == f"unknown setting {name}{advice}"


def test_a_setting_with_a_name_of_another_library_is_known() -> None:
    assert all(name not in OPTIONS for name in errors._ELSEWHERE.keys() | errors._NONE_HERE.keys())
    assert {ours for _, ours in errors._ELSEWHERE.values()} - OPTIONS.keys() <= {"k", "max_rank", "documents", "source"}


def test_zero_workers_are_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert TrainConfig(workers=3).resolved_workers() == 3
    assert TrainConfig().resolved_workers() == available_workers() >= 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 3, 5}, raising=False)
    assert available_workers() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_workers() == 1


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_settings_that_differ_from_the_defaults(name: str) -> None:
    settings = preset_settings(name)
    config = TrainConfig.from_dict(settings)
    assert settings
    assert all(getattr(config, key) == value != getattr(TrainConfig(), key) for key, value in settings.items())
    assert not {"seed", "workers", "tokenizer", "min_count", "dim"} & settings.keys()  # the user's affair
    settings.clear()
    assert preset_settings(name)


def test_an_unknown_preset_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"^preset is 'best'; it must be one of words, paper, pairwise$"):
        preset_settings("best")


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("most_similar", {"topn": 5}, r"^most_similar\(\) has no argument topn \(gensim's name\); use k instead$"),
        ("most_similar", {"restrict_vocab": 5}, r"^most_similar\(\) has no argument restrict_vocab .*; use max_rank"),
        ("similar_documents", {"topn": 5}, r"^similar_documents\(\) has no argument topn .*; use k instead$"),
        ("words_of", {"documnet": "1"}, r"^words_of\(\) has no argument documnet; did you mean document\?$"),
    ],
)
def test_an_unknown_argument_of_a_query_is_refused_with_its_counterpart(
    method: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        getattr(Embeddings, method)(None, **arguments)


@pytest.mark.slow
def test_a_wrong_setting_is_an_error_of_type_checkers(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    lines = {
        'jose_embed.train(documents=["a"], dim=5)': "",
        'jose_embed.train(documents=["a"], dimm=5)': "[call-arg]",
        'jose_embed.train(documents=["a"], dim="5")': "[arg-type]",
        "JoseVectorizer(dim=5)": "",
        "JoseVectorizer(dimm=5)": "[call-arg]",
        'settings: TrainSettings = {"dimm": 5}': "[typeddict-unknown-key]",
    }
    imports = (
        "import jose_embed",
        "from jose_embed.adapters.sklearn import JoseVectorizer",
        "from jose_embed.config import TrainSettings",
    )
    (tmp_path / "calls.py").write_text("\n".join((*imports, *lines)))
    environment = os.environ | {"MYPYPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "mypy", "--ignore-missing-imports", "--follow-imports=silent", "calls.py"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    found = {int(line.split(":")[1]): line.split()[-1] for line in ended.stdout.splitlines() if ": error: " in line}
    assert found == {row: code for row, code in enumerate(lines.values(), len(imports) + 1) if code}, ended.stdout

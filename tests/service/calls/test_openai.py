"""OpenAI's own client, unchanged."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from serving import READ_KEY, WRITE_KEY, Served, Starter, start

from jose_embed.model.embeddings import Embeddings

Model = tuple[Path, Embeddings]


@pytest.fixture(scope="module")
def locked(model_a: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    documents = tmp_path_factory.mktemp("documents") / "documents.sqlite3"
    keys = {"JOSE_READ_KEY": READ_KEY, "JOSE_WRITE_KEY": WRITE_KEY}
    running = start(model_a[0], "--documents", str(documents), environment=keys)
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def client(locked: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{locked.url}/v1", api_key=READ_KEY, max_retries=0) as made:
        yield made


def test_one_and_several_texts(client: openai.OpenAI, model_a: Model) -> None:
    texts = ["king queen", "w5 w6 unknown", "man"]
    expected = model_a[1].infer(texts)
    several = client.embeddings.create(input=texts, model="a")  # the client asks for base64 by itself
    assert np.array_equal(np.array([item.embedding for item in several.data], np.float32), expected)
    assert [item.index for item in several.data] == [0, 1, 2]
    assert (several.model, several.object, several.usage.prompt_tokens) == ("a", "list", 6)
    one = client.embeddings.create(input=texts[0], model=model_a[1].id, encoding_format="float")
    assert np.array_equal(np.array(one.data[0].embedding, np.float32), expected[0])
    sized = client.embeddings.create(input=texts[0], model="a", dimensions=24, user="someone")
    assert np.array_equal(np.array(sized.data[0].embedding, np.float32), expected[0])


def test_models(client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert (model.id, model.owned_by) == ("a", "jose-embed")
    assert client.models.retrieve("a").created == model.created


def test_errors_are_the_client_s_own(client: openai.OpenAI, locked: Served) -> None:
    with pytest.raises(openai.NotFoundError, match="text-embedding-3-small"):
        client.embeddings.create(input="king", model="text-embedding-3-small")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nowhere")
    with pytest.raises(openai.UnprocessableEntityError, match="input 1: none of the 1 words") as refused:
        client.embeddings.create(input=["king", "nowhere"], model="a")
    assert (refused.value.code, refused.value.param) == ("no_known_words", "input")
    with pytest.raises(openai.UnprocessableEntityError, match="dimensions is 5; this model has 24"):
        client.embeddings.create(input="king", model="a", dimensions=5)
    with pytest.raises(openai.UnprocessableEntityError):
        client.embeddings.create(input=[[1, 2, 3]], model="a")
    with (
        openai.OpenAI(base_url=f"{locked.url}/v1", api_key="wrong-key-0123456789", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()


def vector_of(embedding: Any) -> list[float] | None:
    """The numbers of an embedding, which may be base64, as float32 holds them."""
    if isinstance(embedding, str):
        embedding = np.frombuffer(base64.b64decode(embedding), "<f4")
    return None if embedding is None else np.array(embedding, np.float32).tolist()


@pytest.mark.parametrize("choice", ["mean", "zeros", "null"])
def test_one_text_without_a_known_word_need_not_fail_the_others(
    model_a: Model, tmp_path: Path, starter: Starter, choice: str
) -> None:
    running = starter(
        model_a[0], "--documents", str(tmp_path / "d.sqlite3"), environment={"JOSE_V1_UNKNOWN_TEXT": choice}
    )
    mean = model_a[1].infer_flagged(["nowhere"]).vectors[0]
    expected = {"mean": mean.tolist(), "zeros": [0.0] * 24, "null": None}[choice]
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client:
        for encoding in ("base64", "float"):
            made = client.embeddings.create(input=["king", "nowhere", ""], model="a", encoding_format=encoding)
            king, *unknown = [vector_of(item.embedding) for item in made.data]
            assert np.array_equal(np.array(king, np.float32), model_a[1].infer(["king"])[0])
            assert unknown == [expected, expected]
        alone = client.embeddings.create(input="nowhere", model="a")
        assert (alone.data[0].embedding is None) == (choice == "null")
        assert alone.usage.prompt_tokens == 1

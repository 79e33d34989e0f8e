"""OpenAI's own client, unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openai
import pytest
from serving import READ_KEY, WRITE_KEY, Served, start

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

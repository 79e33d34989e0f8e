"""Layers of torch, with torch: ``make test-adapters``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import page
import planted
import pytest

import jose_embed
from jose_embed import Embeddings
from jose_embed.adapters.layers import TextToIds
from jose_embed.adapters.torch import document_bag, embedding

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

TEXTS, TOPICS = planted.corpus(160)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Embeddings:
    """A loaded model: its arrays are mapped and read-only."""
    path = tmp_path_factory.mktemp("torch") / "m.jose"
    jose_embed.train(documents=TEXTS, dim=16, epochs=3, workers=1, progress=False).save(path)
    return jose_embed.load(path)


def test_the_page(model: Embeddings) -> None:
    text = TEXTS[0] + " unknown " + TEXTS[0] + " " + TEXTS[1]
    names = page.run_section("torch", model=model, texts=[text, TEXTS[2]])
    words = model.tokenizer(text)
    expected = np.stack([model[word] if word in model else np.zeros(16, np.float32) for word in words])
    assert names["vectors"][0].numpy().tobytes() == expected.tobytes()
    np.testing.assert_allclose(names["documents"].numpy(), model.infer([text, TEXTS[2]]), atol=1e-6)


def test_texts_without_known_words(model: Embeddings) -> None:
    ids, weights = map(torch.from_numpy, TextToIds(model).weighted(["zzz", "", "c1"]))
    sums = document_bag(model)(ids, per_sample_weights=weights)
    assert not sums[:2].any()
    np.testing.assert_allclose(torch.nn.functional.normalize(sums)[2].numpy(), model.infer(["c1"])[0], atol=1e-6)


def trained(layer: Any, model: Embeddings) -> Any:
    """The layer's rows after steps towards the topics of texts; padding takes part."""
    ids = torch.from_numpy(TextToIds(model, length=40)([*TEXTS[:40], "zzz"]))
    head = torch.nn.Linear(16, planted.TOPICS)
    optimizer = torch.optim.SGD([p for p in [*layer.parameters(), *head.parameters()] if p.requires_grad], lr=1.0)
    for _ in range(3):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(layer(ids).mean(1)), torch.tensor([*TOPICS[:40], 0])).backward()
        optimizer.step()
    return layer.weight.detach().clone()


def test_frozen_or_free(model: Embeddings) -> None:
    frozen, free = embedding(model), embedding(model, freeze=False)
    before = frozen.weight.clone()
    assert torch.equal(trained(frozen, model), before)
    after = trained(free, model)
    assert not after[0].any()  # padding
    assert after[1].any()  # the unknown word learns
    assert not torch.equal(after[2:], before[2:])
    np.testing.assert_array_equal(before[2:].numpy(), model.center_vectors)  # the model's own did not change
    assert not document_bag(model).weight.requires_grad
    assert document_bag(model, freeze=False).weight.requires_grad


def test_one_layer_in_several_modules(model: Embeddings) -> None:
    layer = embedding(model, freeze=False)
    first = torch.nn.Sequential(layer, torch.nn.Linear(16, 2))
    second = torch.nn.Sequential(layer, torch.nn.Linear(16, 3))
    ids = torch.from_numpy(TextToIds(model)(TEXTS[:4]))
    before = second(ids).detach().clone()
    optimizer = torch.optim.SGD(first.parameters(), lr=1.0)
    first(ids).sum().backward()
    optimizer.step()
    assert not torch.equal(second(ids), before)
    whole = torch.nn.ModuleList([first, second])
    again = torch.nn.ModuleList(
        [torch.nn.Sequential(shared := torch.nn.Embedding(*layer.weight.shape), torch.nn.Linear(16, 2)),
         torch.nn.Sequential(shared, torch.nn.Linear(16, 3))]
    )  # fmt: skip
    again.load_state_dict(whole.state_dict())
    assert torch.equal(again[0][0].weight, layer.weight)
    assert again[0][0] is again[1][0]


def test_saved_modules_load_without_this_package(model: Embeddings, tmp_path: Path) -> None:
    ids, weights = map(torch.from_numpy, TextToIds(model).weighted(TEXTS[:5]))
    words, bag = embedding(model), document_bag(model)
    torch.save({"words": words, "bag": bag, "ids": ids, "weights": weights}, tmp_path / "m.pt")
    code = (
        "import sys, torch; sys.modules['jose_embed'] = None; saved = torch.load(sys.argv[1], weights_only=False);"
        "found = saved['bag'](saved['ids'], per_sample_weights=saved['weights']);"
        "torch.save([saved['words'](saved['ids']), found], sys.argv[1])"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, tmp_path / "m.pt"], check=True)
    vectors, sums = torch.load(tmp_path / "m.pt")
    assert torch.equal(vectors, words(ids))
    assert torch.equal(sums, bag(ids, per_sample_weights=weights))


def test_data_loader_with_processes(model: Embeddings) -> None:
    loader = torch.utils.data.DataLoader(
        TEXTS, batch_size=32, num_workers=2, collate_fn=TextToIds(model), multiprocessing_context="spawn"
    )
    assert np.concatenate(list(loader)).tolist() == TextToIds(model)(TEXTS).tolist()

"""schemathesis over the whole OpenAPI document: no 5xx, and no answer outside what is promised."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from serving import READ_KEY, WRITE_KEY, Served, start

from jose_embed.model.embeddings import Embeddings

schema = schemathesis.openapi.from_path(str(Path(__file__).resolve().parents[2] / "service" / "openapi.json"))


@schemathesis.serializer("application/x-ndjson")
def lines(ctx: Any, value: Any) -> bytes:
    """Any text as the body of an import: lines that are no documents are refused one by one."""
    return str(value).encode()


# What a request that fits the document may be refused for: things that only the model or the documents can know.
ONLY_THE_MODEL_KNOWS = {"no-known-words", "no-direction", "not-searchable", "no_known_words", "invalid-filter"}

# Bounds over several members, some of which depend on the model, one that a regular expression cannot say in every
# language, and headers, where the generator sends '0' whatever their pattern is.
SEVERAL_MEMBERS = (
    "sum to", "dimensions is", "as a path segment", "header.if-",
    "need text", "keeps no texts", "does not keep", "passage_words needs", "are kept", "source",
)  # fmt: skip


@schemathesis.check
def fitting_requests_are_taken(ctx: Any, response: Any, case: Any) -> None:
    """In the place of schemathesis's own check, which knows statuses only."""
    if response.status_code == 422 and case.meta is not None and case.meta.generation.mode.is_positive:
        body = response.json()
        kind = body["error"]["code"] if "error" in body else body["type"].partition("#")[2]
        shared = any(part in response.text for part in SEVERAL_MEMBERS)
        assert kind in ONLY_THE_MODEL_KNOWS or shared, response.text


def examples(n: int) -> Any:
    """Hypothesis settings for so many examples per call, the same ones in every run."""
    return settings(max_examples=n, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def fuzzed(model_a: tuple[Path, Embeddings], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    documents = tmp_path_factory.mktemp("documents") / "documents.sqlite3"
    keys = {"JOSE_READ_KEY": READ_KEY, "JOSE_WRITE_KEY": WRITE_KEY}
    running = start(model_a[0], "--documents", str(documents), environment=keys)
    yield running
    errors = [line for line in running.lines if "Traceback" in line]
    assert running.stop() == 0
    assert not errors, "".join(running.lines)


def check(case: Any, served: Served) -> None:
    """Asks, with a key that may do everything, and checks the answer against the document."""
    headers = {"Authorization": f"Bearer {WRITE_KEY}"}
    response = case.call(base_url=served.url, headers=headers)
    excluded = [positive_data_acceptance]
    if case.path == "/documents:import":  # each line is refused on its own
        excluded.append(negative_data_rejection)
    case.validate_response(response, excluded_checks=excluded, headers=headers)


@schema.parametrize()
@examples(12)
def test_every_call(case: Any, fuzzed: Served) -> None:
    check(case, fuzzed)


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@schema.parametrize()
@examples(150)
def test_every_call_long(case: Any, fuzzed: Served) -> None:
    check(case, fuzzed)


@pytest.mark.parametrize("n", [10, pytest.param(60, marks=[pytest.mark.slow, pytest.mark.timeout(3_600)])])
def test_calls_one_after_the_other(fuzzed: Served, n: int) -> None:
    """Sequences of calls, following the document's links: what was put is read, replaced, deleted."""

    class Workflow(schema.as_state_machine()):  # type: ignore[misc]
        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            return {"base_url": fuzzed.url, "headers": {"Authorization": f"Bearer {WRITE_KEY}"}}

        def validate_response(self, response: Any, case: Any, *arguments: Any, **options: Any) -> None:
            excluded = [positive_data_acceptance, negative_data_rejection]
            case.validate_response(response, excluded_checks=excluded, recorder=self.recorder)

    Workflow.run(settings=settings(examples(n), stateful_step_count=8))

"""Schemas of requests and answers.

Requests are validated against them. Answers are written as bytes by the calls, for speed; the tests check that they
agree with the schemas.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)
from pydantic_core import PydanticKnownError

from service.settings import MAX_ANSWERS, MAX_BATCH, MAX_K, MAX_QUERY_WORDS, MAX_SUGGESTIONS

MAX_DIM: Final = 4_096
LEFT_OUT: Final[Any] = None  # the default of a parameter or header that is sent or not, but is never null
_DIGITS: Final = re.compile(r"-?[0-9]+")
_NUMBER: Final = re.compile(r"-?[0-9.]+(?:[eE]-?[0-9]+)?")
_DOTS: Final = re.compile(r"(?:^|/)\.{1,2}(?:/|$)")


def _plain_id(id: str) -> str:
    if _DOTS.search(id):
        raise ValueError("an id must not hold '.' or '..' as a path segment, which clients would resolve away")
    return id


def _whole(value: Any) -> Any:
    """10.0 as 10, which JSON does not tell apart; everything else is left for the check.

    In a query a number is text. What Python would read as one and others would not, such as 1_0 or a space before it,
    is refused.
    """
    if isinstance(value, str) and not _DIGITS.fullmatch(value):
        raise PydanticKnownError("int_parsing")
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _plain_number(value: Any) -> Any:
    """As :func:`_whole`, for numbers with a fraction: refuses 0_1, inf, a space before it."""
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        raise PydanticKnownError("float_parsing")
    return value


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Parameters(BaseModel):
    """The parameters of a query string, whose values are text: a number is read from it."""

    model_config = ConfigDict(extra="forbid", strict=False)


def _exactly_one(schemas: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """JSON Schema of a choice: exactly one of several members is given, the others are null or omitted."""
    branches = [
        {
            "required": [name],
            "properties": {other: schema if other == name else _NULL for other, schema in schemas.items()},
        }
        for name in schemas
    ]
    return {"anyOf": branches}


_STRING: Final[dict[str, Any]] = {"type": "string"}
_ARRAY: Final[dict[str, Any]] = {"type": "array"}
_NULL: Final[dict[str, Any]] = {"type": "null"}
_EMPTY: Final[dict[str, Any]] = {"maxItems": 0}


class _Answer(BaseModel):
    """An answer; members with a default are sent only if they say something."""

    model_config = ConfigDict(extra="forbid", json_schema_serialization_defaults_required=False)


Word = Annotated[str, Field(min_length=1, max_length=1_000, description="A word.")]
# Items of a batch have a status each, so that a word, a text or an id of a wrong length must not refuse the batch.
ItemWord = Annotated[str, Field(description="A word, of 1 to 1,000 characters.")]
# Validation of a list stops at the first invalid item.
Words = Annotated[list[ItemWord], Field(max_length=MAX_QUERY_WORDS, fail_fast=True)]
# The validator stands behind the bounds: before them it would hide them from the document.
K = Annotated[int, Field(ge=1, le=MAX_K, description="How many neighbours, at most."), BeforeValidator(_whole)]
Rank = Annotated[int, Field(ge=1, le=2**31 - 1), BeforeValidator(_whole)]
Limit = Annotated[int, Field(ge=1, le=MAX_K), BeforeValidator(_whole)]
Cosine = Annotated[float, Field(ge=-1, le=1), BeforeValidator(_plain_number)]
_MAX_RANK: Final = "Only this number of most frequent words are answers."
_WITHOUT: Final = "Words projected out, so that what remains of the query is orthogonal to all of them."
MAX_WITHOUT: Final = 20  # of a query string, which has at most 32 parameters
_MIN_SCORE: Final = "Only neighbours of at least this cosine."
_MIN_SEARCH_SCORE: Final = (
    "Only answers whose score is at least this. Without mode a text is then compared by vector, so that it is a cosine."
)
MaxRank = Annotated[Rank | None, Field(description=_MAX_RANK)]
MinScore = Annotated[Cosine | None, Field(description=_MIN_SCORE)]
Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e300, le=1e300)]
Vector = Annotated[list[Number], Field(min_length=1, max_length=MAX_DIM, fail_fast=True)]
Text = Annotated[str, Field(min_length=1, description="Any text; the model's own tokenizer makes words of it.")]
ItemText = Annotated[
    str, Field(description="Any text; one without a known word, such as an empty one, gets a status of its own.")
]
DocumentId = Annotated[
    str,
    Field(
        min_length=1,
        max_length=512,
        pattern=r"^[^\x00-\x1f\x7f]+$",
        description="Any printable text without '.' or '..' as a path segment.",
        examples=["report-7"],
    ),
    AfterValidator(_plain_id),
]


MAX_FIELD_BYTES: Final = 65_536
INCLUDE_PATTERN: Final = "^(?:(?:text|fields)(?:,(?:text|fields))?)?$"
INCLUDE_DESCRIPTION: Final = (
    "text, fields or text,fields: show these too. The text of a trained document is null, and its fields are empty, if "
    "the model does not keep them (--keep-text, --keep-fields)."
)
FilterText = Annotated[
    str,
    Field(
        min_length=1,
        max_length=10_000,
        description='Comparisons of fields, joined by "and": =, !=, <, <=, >, >=, in [...], is missing, is not '
        "missing. Text with blanks or signs stands in double quotes.",
        examples=['date >= 2025-01-01 and lang = "de" and rating in [1, 2]'],
    ),
]


# ----------------------------------------------------------------------------------------------------------------------
# the parts of answers


class ProblemDocument(BaseModel):
    """An error in the format of RFC 9457."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(
        description="Which kind of problem; leads to its explanation.", examples=["/problems#unknown-word"]
    )
    title: str
    status: int = Field(ge=400, le=599)
    detail: str = Field(description="What is wrong here: the value and what is allowed.")
    advice: str = Field(description="What to do.")
    suggestions: list[str] | None = Field(None, description="Similar spellings (unknown-word only).")
    errors: list[dict[str, Any]] | None = Field(None, description="Each invalid place (invalid-request only).")


class ModelRef(_Answer):
    """The model that answered."""

    id: str = Field(description="SHA-256 over all that answers depend on.")
    version: str = Field(description="When it was made.")


class Neighbor(_Answer):
    """A word near to the query."""

    word: str
    score: float = Field(ge=-1, le=1, description="The cosine; for words of a document see POST /search.")
    angle_deg: float = Field(ge=0, le=180)
    rank: int = Field(ge=1, description="Its place by frequency; 1 is the most frequent word.")
    count: int = Field(ge=1, description="How often it occurs in the training text.")


class Respelling(_Answer):
    """A word of the query that the vocabulary has in another spelling."""

    asked: str
    matched: str


Respelled = Annotated[
    list[Respelling] | None,
    Field(description="Words that matched in another spelling: lower case, composed letters, one apostrophe."),
]


Composed = Annotated[
    Literal[True] | None,
    Field(
        description="Sent if a vector is composed of n-grams of characters, because the vocabulary lacks the word, or "
        "all words of the text. Only a model trained with --subwords does so."
    ),
]


class Failed(_Answer):
    """An item of a batch that could not be answered."""

    status: int = Field(ge=400, le=599)
    problem: ProblemDocument


# ----------------------------------------------------------------------------------------------------------------------
# similar


class SimilarQuery(_Parameters):
    """The parameters of ``GET /similar``."""

    word: Word
    without: Annotated[
        list[Word], Field(max_length=MAX_WITHOUT, description=f"{_WITHOUT} Repeat the parameter for each word.")
    ] = []
    k: K = 10
    max_rank: Annotated[Rank, Field(description=_MAX_RANK)] = LEFT_OUT
    min_score: Annotated[Cosine, Field(description=_MIN_SCORE)] = LEFT_OUT


class SimilarAnswer(_Answer):
    """The neighbours of one word."""

    word: str
    without: list[str] | None = Field(None, description="The words projected out, if there are such.")
    neighbors: list[Neighbor]
    respelled: Respelled = None
    composed: Composed = None
    model: ModelRef


class SimilarItem(_Request):
    """One query: exactly one of ``word``, ``positive``/``negative``, or ``vector``."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {
                    "required": ["word"],
                    "properties": {"word": _STRING, "vector": _NULL, "positive": _EMPTY, "negative": _EMPTY},
                },
                {
                    "required": ["vector"],
                    "properties": {"word": _NULL, "vector": _ARRAY, "positive": _EMPTY, "negative": _EMPTY},
                },
                {"required": ["positive"], "properties": {"word": _NULL, "vector": _NULL, "positive": {"minItems": 1}}},
                {"required": ["negative"], "properties": {"word": _NULL, "vector": _NULL, "negative": {"minItems": 1}}},
            ]
        }
    )

    word: ItemWord | None = None
    positive: Words = Field(default=[], description="Words whose directions are added.", examples=[["king", "woman"]])
    negative: Words = Field(default=[], description="Words whose directions are subtracted.", examples=[["man"]])
    vector: Vector | None = Field(
        None,
        description="Any finite vector of the model's dimension but zero, in the space of words, as GET /words/{word} "
        "gives it; for a vector of a text or a document ask POST /search.",
    )
    without: Words = Field(default=[], description=_WITHOUT)
    among: Words | None = Field(None, description="Only these words are answers.")
    k: K = 10
    max_rank: MaxRank = None
    min_score: MinScore = None

    @model_validator(mode="after")
    def _one_query(self) -> SimilarItem:
        given = (self.word is not None) + (self.vector is not None) + bool(self.positive or self.negative)
        if given != 1:
            raise ValueError("give exactly one of word, positive/negative words, or vector")
        return self


class SimilarBatch(_Request):
    """Queries that are answered one by one, each with a status of its own."""

    queries: list[SimilarItem] = Field(
        min_length=1,
        max_length=MAX_BATCH,
        fail_fast=True,
        description=f"Over all queries, k must sum to at most {MAX_ANSWERS:,}, and the words of positive, negative, "
        f"without and among to at most {MAX_QUERY_WORDS}. The answer holds at most {MAX_SUGGESTIONS} suggestions.",
    )


class SimilarFound(_Answer):
    """An answered item."""

    status: Literal[200]
    neighbors: list[Neighbor]
    respelled: Respelled = None
    composed: Composed = None


class SimilarBatchAnswer(_Answer):
    """One result per query, in order."""

    results: list[SimilarFound | Failed]
    model: ModelRef


# ----------------------------------------------------------------------------------------------------------------------
# embed-doc


class EmbedRequest(_Request):
    """A text, or several."""

    model_config = ConfigDict(json_schema_extra=_exactly_one({"text": _STRING, "texts": _ARRAY}))

    text: Text | None = None
    texts: Annotated[list[ItemText], Field(min_length=1, max_length=MAX_BATCH, fail_fast=True)] | None = None
    truncate: Literal["none", "start", "end"] = Field(
        "none", description="What is cut off a text that is too long; none refuses it."
    )
    encoding_format: Literal["float", "base64"] = Field("float", description="base64: little-endian float32.")
    explain: bool = Field(False, description="Also say which words made the vector.")

    @model_validator(mode="after")
    def _one_of_both(self) -> EmbedRequest:
        if (self.text is None) == (self.texts is None):
            raise ValueError("give exactly one of text and texts")
        return self


class Contribution(_Answer):
    """A word's part in a text's vector."""

    word: str
    count: int = Field(ge=1, description="How often it occurs in the text.")
    score: float = Field(ge=-1, le=1, description="The cosine between the word and the text's vector.")


class Embedded(_Answer):
    """A text's vector and what it was made of."""

    embedding: list[float] | str = Field(description="Of norm 1; numbers, or base64 of little-endian float32.")
    tokens: int = Field(ge=0, description="Words of the text.")
    known: int = Field(ge=0, description="Those in the vocabulary; 0 only if the vector is composed.")
    coverage: float = Field(ge=0, le=1, description="known / tokens.")
    unknown: list[str] = Field(description="Different unknown words, at most 100, in the order of the text.")
    concentration: float = Field(
        ge=0, le=1, description="Mean resultant length of the known words' vectors: 1 if all have one direction."
    )
    truncated: bool = Field(description="Whether a part was cut off.")
    explain: list[Contribution] | None = Field(None, description="The words that weigh most, at most 20.")
    composed: Composed = None


class EmbedAnswer(Embedded):
    """The answer to ``text``."""

    model: ModelRef


class EmbeddedItem(Embedded):
    """An answered item."""

    status: Literal[200]


class EmbedBatchAnswer(_Answer):
    """The answer to ``texts``: one result per text, in order."""

    results: list[EmbeddedItem | Failed]
    model: ModelRef


# ----------------------------------------------------------------------------------------------------------------------
# words


class WordListQuery(_Parameters):
    """The parameters of ``GET /words``."""

    prefix: str = Field("", max_length=1_000)
    limit: Limit = 20


class WordEntry(_Answer):
    """A word of the vocabulary."""

    word: str
    rank: int = Field(ge=1)
    count: int = Field(ge=1)


class WordList(_Answer):
    """The most frequent words of a prefix."""

    prefix: str
    words: list[WordEntry]
    total: int = Field(ge=0, description="How many words have the prefix.")
    respelled: Respelled = None
    model: ModelRef


class WordAnswer(_Answer):
    """A word with its vector."""

    word: str
    rank: int | None = Field(ge=1, description="Null if the vector is composed.")
    count: int = Field(ge=0, description="Occurrences in the training text; 0 if the vector is composed.")
    embedding: list[float]
    respelled: Respelled = None
    composed: Composed = None
    model: ModelRef


class DistanceQuery(_Request):
    """The parameters of ``GET /distance``."""

    a: Word
    b: Word


class Distance(_Answer):
    """How far two words are apart."""

    a: str
    b: str
    score: float = Field(ge=-1, le=1, description="The cosine.")
    cosine_distance: float = Field(ge=0, le=2, description="1 - score.")
    angle_deg: float = Field(ge=0, le=180)
    respelled: Respelled = None
    composed: Composed = None
    model: ModelRef


# ----------------------------------------------------------------------------------------------------------------------
# search


class SearchRequest(_Request):
    """One query: exactly one of ``text``, ``word``, ``vector`` or ``document_id``."""

    model_config = ConfigDict(
        json_schema_extra=_exactly_one({"text": _STRING, "word": _STRING, "vector": _ARRAY, "document_id": _STRING})
    )

    text: Text | None = None
    word: Word | None = None
    vector: Vector | None = None
    document_id: str | None = Field(
        None, min_length=1, max_length=1_000, description="A document, added or trained, which is itself no answer."
    )
    k: K = 10
    target: Literal["documents", "words"] = "documents"
    space: Literal["documents", "words"] = Field(
        "documents",
        description="With vector and words as the target: documents for a vector of a text or a document, whose words "
        "are wanted; words for a vector of words, as GET /words/{word} gives it.",
    )
    source: Literal["all", "added", "trained"] = Field(
        "all", description="Which documents are answers, and where document_id is looked up (all: added first)."
    )
    document_source: Literal["added", "trained"] | None = Field(
        None, description="Where document_id is looked up, if the answers are to be of another source."
    )
    min_score: Annotated[Cosine | None, Field(description=_MIN_SEARCH_SCORE)] = None
    include: list[Literal["text", "fields"]] = Field(
        default=[],
        max_length=2,
        description="Also show this of each found document. The text of a trained document is null, and its fields are "
        "empty, if the model does not keep them (--keep-text, --keep-fields). Without effect on words.",
        examples=[["text", "fields"]],
    )

    mode: Literal["hybrid", "vector", "words"] | None = Field(
        None,
        description="With text: how documents are compared with it. hybrid: by meaning and exact words; words: by "
        "exact words; vector: by meaning, with a direction made for short questions. hybrid and words need a model "
        "that keeps texts. Without mode it is hybrid if the model keeps texts, and vector if it keeps none, if there "
        "is a min_score, or while the service still reads the words of documents; the answer says which. With neither "
        "mode, filter, facets nor passages, vector then compares as POST /embed-doc does.",
    )
    filter: FilterText | None = Field(
        None,
        description="Only documents whose fields fit, those of added documents or those that the model keeps of "
        'trained ones, such as: rating >= 3 and lang = "de"',
    )
    facets: list[str] = Field(
        [], max_length=8, description="With text: count the values of these fields over the filter's documents."
    )
    passage_words: Annotated[int | None, BeforeValidator(_whole)] = Field(
        None, ge=1, le=1_000, description="With text and k up to 50: also the part of each text that fits best."
    )

    @property
    def is_question(self) -> bool:
        """Whether a mode, facets or passages are asked for, or a filter for a text."""
        filtered = self.text is not None and self.filter is not None
        return filtered or (self.mode, self.passage_words) != (None, None) or bool(self.facets)

    @model_validator(mode="after")
    def _one_query(self) -> SearchRequest:
        if sum(value is not None for value in (self.text, self.word, self.vector, self.document_id)) != 1:
            raise ValueError("give exactly one of text, word, vector, document_id")
        if self.is_question and (self.text is None or self.target != "documents"):
            raise ValueError("mode, facets and passage_words need text, and documents as the target")
        if self.filter is not None and self.target != "documents":
            raise ValueError("filter needs documents as the target")
        if self.passage_words is not None and self.k > 50:
            raise ValueError("passage_words needs a k of at most 50")
        return self


class FoundPassage(_Answer):
    """A part of a text, where it begins and ends in it, and where words of the question stand in the part."""

    text: str
    start: int = Field(ge=0, description="In characters.")
    end: int = Field(ge=0)
    highlights: list[tuple[int, int]]


class DocumentNeighbor(_Answer):
    """A document near to the query."""

    id: str
    source: Literal["added", "trained"]
    score: float = Field(
        ge=-1,
        le=1,
        description="Best first. What it is, the answer's mode says. vector: the cosine of both vectors; for a text "
        "with mode, filter, facets or passages, the cosine without the reliability matrix. words: BM25 as a share of "
        "the best answer's, which has 1. hybrid: three quarters of BM25 as a share of the largest of all documents, "
        "and one quarter of the cosine above the mean as a share of the largest; 1 for a document that is best in "
        "both. Scores of words and hybrid are comparable within one answer only.",
    )
    angle_deg: float = Field(
        ge=0,
        le=180,
        description="The angle between the document's vector and the query's, whatever the mode; with text that of "
        "POST /embed-doc, and 90 if no word of it is known.",
    )
    text: str | None = Field(None, description="Only if the request includes it.")
    fields: dict[str, Any] = Field(default={}, description="Only if the request includes them.")
    passage: FoundPassage | None = Field(None, description="Only if the request asks for it.")


class FacetCount(_Answer):
    """A value of a field, null for a missing one, and how many documents have it."""

    value: Any
    count: int = Field(ge=1)


class SearchAnswer(_Answer):
    """The neighbours of the query, of the kind of ``target``."""

    target: Literal["documents", "words"]
    neighbors: list[DocumentNeighbor] | list[Neighbor]
    respelled: Respelled = None
    composed: Composed = None
    mode: Literal["hybrid", "vector", "words"] = Field(
        description="How the query was compared with the answers; vector for all queries but texts."
    )
    facets: dict[str, list[FacetCount]] = Field(default={}, description="Only if the request asks for them.")
    model: ModelRef


# ----------------------------------------------------------------------------------------------------------------------
# documents


Fields = Annotated[
    dict[str, Any],
    Field(
        description=f"Facts about it by name, at most {MAX_FIELD_BYTES:,} bytes of JSON; filters compare them.",
        examples=[{"date": "2025-06-30", "rating": 2}],
    ),
]


class DocumentPut(_Request):
    """A document's text and fields; fields that are omitted are empty."""

    text: Text
    fields: Fields = {}


class DocumentListQuery(_Parameters):
    """The parameters of ``GET /documents``."""

    after: str = Field("", max_length=1_000, description="The last id of the page before.")
    limit: Limit = 100
    source: Literal["added", "trained"] = Field("added", description="Added documents, or those of the training.")
    include: str = Field("", pattern=INCLUDE_PATTERN, description=INCLUDE_DESCRIPTION)

    @property
    def included(self) -> tuple[str, ...]:
        """What is included."""
        return tuple(filter(None, self.include.split(",")))


class DocumentWritten(_Answer):
    """A document that is on the disk and in the index."""

    id: str
    revision: int = Field(ge=1, description="Its version; the ETag is this number in quotes.")
    created: str
    updated: str
    tokens: int = Field(ge=0)
    known: int = Field(ge=0)
    coverage: float = Field(ge=0, le=1)
    composed: Composed = None
    model: ModelRef


class Document(_Answer):
    """A stored document, or a trained document of a model that keeps texts or fields."""

    id: str
    source: Literal["added", "trained"]
    revision: int | None = Field(ge=1, description="Null for a trained document.")
    text: str | None = Field(description="Null for a trained document of a model that keeps fields only.")
    fields: dict[str, Any] = Field(description="Those it was stored with, or that the model keeps.")
    created: str | None = Field(description="Null for a trained document.")
    updated: str | None = Field(description="Null for a trained document.")
    searchable: bool = Field(description="Whether the present model has a vector for it.")


class DocumentEntry(_Answer):
    """A document of a list; revision, characters and dates of a trained document are null."""

    id: str
    revision: int | None = Field(ge=1)
    characters: int | None = Field(ge=1)
    created: str | None
    updated: str | None
    text: str | None = Field(None, description="Only if the request includes it.")
    fields: dict[str, Any] = Field(default={}, description="Only if the request includes them.")


class DocumentList(_Answer):
    """Documents: added ones in the order of their ids, trained ones in that of the training."""

    documents: list[DocumentEntry]
    next: str | None = Field(description="What to send as after= for the next page; null on the last.")


ItemId = Annotated[str, Field(description="As the id of PUT /documents/{id}; another text gets a status of its own.")]


class PutOperation(_Request):
    """Add or replace."""

    op: Literal["put"]
    id: ItemId
    text: ItemText
    fields: Fields = {}


class DeleteOperation(_Request):
    """Delete."""

    op: Literal["delete"]
    id: ItemId


Operation = Annotated[PutOperation | DeleteOperation, Field(discriminator="op")]


class DocumentBatch(_Request):
    """Changes that are made in order and written together; each has a status of its own."""

    operations: list[Operation] = Field(min_length=1, max_length=MAX_BATCH, fail_fast=True)


class ImportLine(_Request):
    """A line of ``POST /documents:import``; what an export adds to it is passed over."""

    id: ItemId
    text: ItemText
    fields: Fields = {}
    source: Any = None
    revision: Any = None
    created: Any = None
    updated: Any = None


class ExportQuery(_Parameters):
    """The parameters of ``GET /documents:export``."""

    source: Literal["added", "trained"] = Field("added", description="Added documents, or those of the training.")
    after: str = Field("", max_length=1_000, description="The last id that a broken export delivered.")
    filter: FilterText = LEFT_OUT


class DeleteRequest(_Request):
    """Which documents are deleted: all, or those that a filter fits."""

    model_config = ConfigDict(json_schema_extra=_exactly_one({"all": {"const": True}, "filter": _STRING}))

    all: Literal[True] | None = Field(None, description="Delete all added documents.")
    filter: FilterText | None = None
    dry_run: bool = Field(False, description="Only count them.")

    @model_validator(mode="after")
    def _one_of_both(self) -> DeleteRequest:
        if (self.all is None) == (self.filter is None):
            raise ValueError("give exactly one of all and filter")
        return self


class Deleted(_Answer):
    """The result of a deletion of many documents."""

    matched: int = Field(ge=0, description="Documents that were meant.")
    deleted: int = Field(ge=0, description="Those of them that were deleted: not those changed meanwhile.")
    model: ModelRef


class PutDone(_Answer):
    """A document of a batch that was added (201) or replaced (200)."""

    status: Literal[200, 201]
    id: str
    revision: int = Field(ge=1)
    tokens: int = Field(ge=0)
    known: int = Field(ge=0)
    composed: Composed = None


class DeleteDone(_Answer):
    """A document of a batch that was deleted."""

    status: Literal[204]
    id: str


class FailedOperation(Failed):
    """An operation that was refused."""

    id: str


class DocumentBatchAnswer(_Answer):
    """One result per operation, in order; all that succeeded is on the disk."""

    results: list[PutDone | DeleteDone | FailedOperation]
    model: ModelRef


# ----------------------------------------------------------------------------------------------------------------------
# /v1


class OpenAIRequest(BaseModel):
    """The body of OpenAI's ``/v1/embeddings``; unknown members are ignored, as OpenAI does."""

    model_config = ConfigDict(extra="ignore", strict=True)

    input: Annotated[
        Annotated[Text, Tag("text")]
        | Annotated[list[ItemText], Field(min_length=1, max_length=2_048, fail_fast=True), Tag("texts")],
        Discriminator(lambda value: "texts" if isinstance(value, list) else "text"),
    ]
    model: str = Field(description="The served model's name or id; GET /v1/models lists it.")
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Rank | None = Field(None, description="Must be the model's own, if given.")
    user: str | None = None


class OpenAIVector(_Answer):
    """One vector."""

    object: Literal["embedding"]
    index: int = Field(ge=0)
    embedding: list[float] | str | None = Field(description="Null only by the setting JOSE_V1_UNKNOWN_TEXT=null.")
    composed: Composed = None


class OpenAIUsage(_Answer):
    """Words read."""

    prompt_tokens: int = Field(ge=0)
    total_tokens: int = Field(ge=0)


class OpenAIEmbeddings(_Answer):
    """Vectors, in the order of the inputs."""

    object: Literal["list"]
    data: list[OpenAIVector]
    model: str
    usage: OpenAIUsage


class OpenAIModel(_Answer):
    """A served model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class OpenAIModels(_Answer):
    """The served models."""

    object: Literal["list"]
    data: list[OpenAIModel]


class OpenAIErrorBody(_Answer):
    """The facts of an error."""

    message: str
    type: str
    param: str | None
    code: str


class OpenAIError(_Answer):
    """An error in OpenAI's shape."""

    error: OpenAIErrorBody


# ----------------------------------------------------------------------------------------------------------------------
# operations


class Ready(_Answer):
    """The result of the readiness probe."""

    status: Literal["ready", "alive"]
    checks: dict[str, float] = Field(description="Seconds per part.")
    warnings: list[str] = Field(description="Notes for the operator; the service answers nevertheless.")


class Reloaded(_Answer):
    """The result of a reload."""

    model: ModelRef
    previous: ModelRef
    changed: bool = Field(description="Whether it is another model than before.")
    documents: int = Field(ge=0, description="Stored documents whose texts were made vectors of again.")
    seconds: float = Field(ge=0)


class Card(_Answer):
    """The card of the served model."""

    name: str
    lines: list[str]
    model: ModelRef


class SnapshotTaken(_Answer):
    """A snapshot: what its snapshot.json holds."""

    format: int
    created: str
    path: str = Field(description="Its directory on the service's machine.")
    model: ModelRef
    documents: int = Field(ge=0)
    last_revision: int = Field(ge=0)
    bytes: int = Field(ge=0)
    sha256: str = Field(description="Of documents.sqlite3.")


class Job(_Answer):
    """Work that goes on behind the answer."""

    id: str
    kind: Literal["reload", "snapshot"]
    status: Literal["running", "done", "failed"]
    stage: str = Field(description="What it is doing.")
    done: int = Field(ge=0, description="How much of the stage is done.")
    total: int = Field(ge=0, description="Of how much; 0 if that is not known.")
    started: str
    seconds: float = Field(ge=0)
    result: Reloaded | SnapshotTaken | None
    problem: ProblemDocument | None = Field(description="Why it failed.")


class JobList(_Answer):
    """The last hundred jobs, the newest first."""

    jobs: list[Job]


class Wait(_Parameters):
    """The parameter of calls that begin a job."""

    wait: Annotated[float, Field(ge=0, le=3_600), BeforeValidator(_plain_number)] = Field(
        0.0, description="Answer when the job has ended, after so many seconds at the latest."
    )


class Info(_Answer):
    """The served model and its settings."""

    name: str
    model: ModelRef
    dim: int
    words: int
    keeps_texts: bool = Field(description="Whether the model keeps the texts of its documents, for exact words.")
    trained_documents: int
    tokenizer: dict[str, Any]
    training: dict[str, Any]
    index: dict[str, Any]
    documents: dict[str, Any]
    access: dict[str, bool] = Field(description="Whether reading and whether writing needs a key.")
    map: bool = Field(description="Whether /map shows a map of the documents.")
    map_of_another_model: bool = Field(description="Whether the map that is there was not made of this model.")
    limits: dict[str, Any]
    versions: dict[str, str]
    started: str
    uptime_seconds: float

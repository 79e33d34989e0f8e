"""The GPU backend: the same training as in cpu/backend.py, with a warp of a CUDA device for each worker.

The kernels are in kernels.cu, the device and its memory in device.py. This module does the work of the host. It copies
the vectors to the device once, and the text too if there is room; :meth:`GpuBackend.collect` copies the vectors back.
While a chunk of documents is trained, the next one's starts of pieces and stretches (and its words, if the text is not
on the device) are copied through pinned memory. The sums of a chunk are copied back after it.

Rows of words are shared by all warps without locks (Hogwild, Recht et al. 2011). A move that another warp overwrites is
lost, so no more documents are trained at a time than the vocabulary allows, see :func:`documents_in_flight`. And warps
that read and write one row all the time wait for each other in the second cache, so the most frequent words have a few
rows each, shared by a group of warps and merged after a chunk (DESIGN.md, decision 27).
"""

from __future__ import annotations

from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt

from jose_embed.compute.documents import gathered, give_back
from jose_embed.compute.gpu.device import CHUNK, STRETCH, WARP, Bundle, Layout, open_device, padded_dim
from jose_embed.compute.sampling import SamplingTables, keep_probability, noise_distribution
from jose_embed.compute.tables import DOCUMENT_BLOCK, LANES, PIECE, ChunkResult, Tables, Text, document_step
from jose_embed.config import TrainConfig

#: The fewest and the most running words of a chunk: some ten to a hundred milliseconds of work.
CHUNK_LIMITS = (1 << 22, 1 << 23)

_WARPS_PER_PROCESSOR = 6
_MOST_COLLISIONS = 4.0  # other warps that hold a row while it is moved, on the average over all moves
_COPIED, _COPIES = 64, 4  # words that have a center row for each group of warps, and groups
_FEW = 32  # warps that may as well share all rows
_TOKEN_BYTES = 16  # what a running word of a chunk takes: itself, kept, and its share of the lists
_DOCUMENT_BYTES = 64  # a document's share of the lists; it matters only for very short documents


def layout_of(config: TrainConfig) -> Layout:
    """The compile-time constants of the kernels in a training with these settings."""
    pairwise = config.objective == "pairwise"
    return Layout(
        padded_dim(config.dim),
        config.objective,
        config.negative_step,
        min(LANES, _in_fours(max(2 * config.window, DOCUMENT_BLOCK if pairwise else 0))),
        _in_fours(max(config.negatives, config.doc_negatives if pairwise else 0)),
        _kept_slots(max(config.window, DOCUMENT_BLOCK) + WARP + config.window),
    )


def _in_fours(n: int) -> int:
    """The next multiple of four, so that few layouts are compiled and kept."""
    return -(-n // 4) * 4


def _kept_slots(n: int) -> int:
    """Size of the ring buffer in shared memory that holds n kept words of a document; 0 if n is too large for it."""
    return 64 if n <= 64 else 256 if n <= 256 else 0


def needed_bytes(config: TrainConfig, n_words: int, n_documents: int, longest: int = 0, n_tokens: int = 0) -> int:
    """Memory of the device that a training takes: the vectors, the sampling tables, two chunks of the text.

    Args:
        config: The settings.
        n_words: Size of the vocabulary.
        n_documents: Number of documents.
        longest: Running words of the longest document, which is never divided between chunks.
        n_tokens: Running words of all documents.
    """
    rows = 2 * n_words + n_documents
    chunk = max(CHUNK_LIMITS[1], longest)
    documents = min(n_documents, chunk * n_documents // max(1, n_tokens))
    chunk_bytes = max(_TOKEN_BYTES * chunk, (8 * chunk + _DOCUMENT_BYTES * documents) * 5 // 4)
    return 4 * padded_dim(config.dim) * rows + 12 * n_words + 2 * chunk_bytes


def documents_in_flight(config: TrainConfig, counts: npt.NDArray[np.int64], n_processors: int) -> int:
    """How many documents are trained at a time.

    A position is a chain of steps that mostly wait, so a few warps for each multiprocessor keep the device busy. In
    flight together, W warps meet in the rows of frequent words. With a(w) the places that the word w takes on the
    average in the contrasts of a position, and c(w) its rows, one or :data:`_COPIES`, a row that is being moved is held
    by

        W  sum_w a(w)^2 / c(w)  /  sum_w a(w)

    other warps on the average over all moves, if contrasts filled all of their time; W is kept so small that this is at
    most :data:`_MOST_COLLISIONS`.

    Args:
        config: The settings; ``workers`` other than 0 is the answer.
        counts: int64 (n_words,), falling.
        n_processors: Multiprocessors of the device.
    """
    if config.workers:
        return config.workers
    places = _places(config, counts)
    meetings = places**2
    for n_copied in (_COPIED, 0):
        alone = meetings.copy()
        alone[:n_copied] /= _COPIES
        bearable = int(_MOST_COLLISIONS * float(places.sum()) / float(alone.sum()))
        in_flight = max(1, min(_WARPS_PER_PROCESSOR * n_processors, bearable))
        if copied_words(in_flight) == n_copied:
            break
    return in_flight


def copied_words(in_flight: int) -> int:
    """Number of the most frequent words, which have a center row for each group of warps."""
    return _COPIED if in_flight >= _COPIES * _FEW else 0


def _places(config: TrainConfig, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """float64 (n_words,): in how many slots of a position's contrasts each word stands on the average."""
    config = config.for_text(int(counts.sum()))
    kept = counts * keep_probability(counts, config.subsample_threshold)
    kept = kept / kept.sum()
    noise = noise_distribution(counts, config.noise_exponent)
    places = (config.window + 1) * kept + config.negatives * noise
    if config.objective == "pairwise":
        places = places + kept + config.doc_negatives / DOCUMENT_BLOCK * noise
    return np.asarray(places, np.float64)


class GpuBackend:
    """Trains on a CUDA device; up to ``threads`` calls of :meth:`train_chunk` at a time.

    Args:
        text: The encoded corpus.
        samples: The sampling tables of its vocabulary.
        tables: The vectors. They move on the device; :meth:`collect` brings them here.
        config: The settings. With one worker, one document is trained at a time, in the order of the CPU.
        total_tokens: Running words of all epochs together.
        counts: int64 (n_words,), how often each word occurs.
        first_document: The number of the first document in the whole text, of which this machine may have a part.

    Raises:
        MissingExtraError: CuPy is not installed.
        DeviceError: no device, or one without room for the vectors.
    """

    name = "gpu"
    chunk_limits = CHUNK_LIMITS

    def __init__(
        self,
        text: Text,
        samples: SamplingTables,
        tables: Tables,
        config: TrainConfig,
        total_tokens: int,
        counts: npt.NDArray[np.int64],
        first_document: int = 0,
    ) -> None:
        self._first_document = first_document
        self._device = device = open_device()
        self._text, self._config, self._total_tokens = text, config, total_tokens
        n_words = len(samples.keep)
        self._tables = Tables(tables.center[:n_words], tables.context[:n_words], tables.document)
        self.workers = documents_in_flight(config, counts, device.n_processors)
        self.threads = 1 if self.workers == 1 else 2  # one packs the next chunk while the device trains
        n_bytes = sum(array.nbytes for array in (*self._tables, *samples))
        self._n_copied = min(copied_words(self.workers), n_words)
        self._n_copies = _COPIES if self._n_copied else 0
        with device.allocating("the vectors", n_bytes):
            # By their names in struct Chunk, which are those of both tuples.
            self._there = {
                name: device.uploaded(array)
                for name, array in {
                    "context": self._tables.context,
                    "document": self._tables.document,
                    "keep": samples.keep,
                    "columns": np.stack((samples.threshold, samples.alias), axis=1),
                }.items()
            }
            n_rows = n_words + self._n_copies * self._n_copied
            self._there["center"] = device.cupy.empty((n_rows, tables.center.shape[1]), np.float32)
            self._load_center()
        # A text stays on the device if it needs at most half of the memory that is free beside the vectors.
        self._resident = 2 * text.tokens.nbytes <= device.free_bytes - 2 * _TOKEN_BYTES * CHUNK_LIMITS[1]
        if self._resident:
            try:
                self._there["tokens"] = self._uploaded_tokens()
            except MemoryError:  # another process was quicker; the text travels
                self._resident = False
        self._bundles: SimpleQueue[Bundle] = SimpleQueue()
        for _ in range(self.threads):
            self._bundles.put(Bundle(device))
        self._copying = device.cupy.cuda.Stream(non_blocking=True)
        self._training = device.cupy.cuda.Stream(non_blocking=True)
        self._thin: Any = None
        self._train: Any = None
        self._merge: Any = None
        device.cupy.cuda.runtime.deviceSynchronize()

    def prepare(self) -> None:
        """Compile kernels.cu."""
        module = self._device.kernels(layout_of(self._config))
        self._thin, self._train, self._merge = map(module.get_function, ("thin", "train", "merge"))

    def train_chunk(self, documents: npt.NDArray[np.int64], epoch: int, first_token: int) -> ChunkResult:
        """Train these documents, as the CPU kernel does. Waits for the device without the interpreter's lock."""
        if not (self._text.offsets[documents + 1] > self._text.offsets[documents]).any():
            return ChunkResult(0.0, 0, 0, 0)  # a device refuses to be started for nothing
        bundle = self._bundles.get()
        try:
            n_stretches = self._pack(bundle, documents, epoch, first_token)
            bundle.send(self._copying)
            self._training.wait_event(self._copying.record())
            with self._training:
                self._thin((min(len(documents), 32 * self._device.n_processors),), (WARP,), (bundle.there,))
                self._train((min(n_stretches, self.workers),), (WARP,), (bundle.there,))
                if self._n_copied:
                    self._merge((self._n_copied,), (WARP,), (bundle.there,))
                for name in ("loss", "counts"):
                    bundle.fetch(name, self._training)
                self._training.record().synchronize()
            active, pairs, positions = bundle.result("counts").tolist()
            return ChunkResult(float(bundle.result("loss")[0]), active, pairs, positions)
        finally:
            self._bundles.put(bundle)

    def _uploaded_tokens(self) -> Any:
        tokens = self._text.tokens
        there = self._device.cupy.empty(tokens.shape, np.int32)
        for start in range(0, len(tokens), CHUNK_LIMITS[0]):
            end = min(start + CHUNK_LIMITS[0], len(tokens))
            there[start:end].set(tokens[start:end])
            give_back(tokens, start, end)
        return there

    def collect(self) -> None:
        """Bring the vectors from the device into the tables."""
        self._training.synchronize()
        for name, here in self._tables._asdict().items():
            self._there[name][: len(here)].get(out=here)

    def load(self) -> None:
        """Bring the vectors of the words from the tables to the device."""
        self._training.synchronize()
        self._there["context"].set(self._tables.context)
        self._load_center()
        self._device.cupy.cuda.runtime.deviceSynchronize()

    def _load_center(self) -> None:
        center, n_words = self._there["center"], len(self._tables.center)
        center[:n_words].set(self._tables.center)
        for start in range(n_words, center.shape[0], max(1, self._n_copied)):
            center[start : start + self._n_copied].set(self._tables.center[: self._n_copied])

    def _pack(self, bundle: Bundle, documents: npt.NDArray[np.int64], epoch: int, first_token: int) -> int:
        """Lay a chunk out, see struct Chunk of kernels.cu; its number of stretches."""
        text, config = self._text, self._config
        if self._resident:
            begins = text.offsets[documents]
            ends = np.concatenate(([0], np.cumsum(text.offsets[documents + 1] - begins)))
            travelling = {}
        else:
            tokens, ends = gathered(*text, documents)
            begins = ends[:-1]
            travelling = {"tokens": tokens}
        lengths = np.diff(ends)
        n_pieces = -(-lengths // PIECE)
        pieces = np.concatenate(([0], np.cumsum(n_pieces)))
        places = np.repeat(np.arange(len(documents)), n_pieces)
        piece_begins = ends[places] + (np.arange(len(places)) - pieces[places]) * PIECE
        past = (float(first_token) + piece_begins) / float(self._total_tokens)
        rates = np.float32(config.learning_rate) * np.maximum(1.0 - past, 1e-4).astype(np.float32)
        visit, longest_step = document_step(config)
        steps = np.minimum(longest_step, visit / np.maximum(lengths, 1).astype(np.float32))
        piece_lengths = np.minimum(PIECE, ends[places + 1] - piece_begins)
        n_stretches = -(-piece_lengths // STRETCH)
        stretches = np.repeat(np.arange(len(places)), n_stretches)
        firsts = np.cumsum(n_stretches) - n_stretches
        starts = (np.arange(len(stretches)) - firsts[stretches]) * STRETCH
        if self.workers > 1:  # long ones first, so that the device does not wait for one of them in the end
            spare = STRETCH - np.clip(piece_lengths[stretches] - starts, STRETCH // 8, STRETCH)
            order = np.argsort(spare.astype(np.uint16), kind="stable")  # numbers of two bytes are sorted by counting
            stretches, starts = stretches[order], starts[order]
        bundle.pack(
            CHUNK,
            {
                **{name: array.data.ptr for name, array in self._there.items()},
                "n_words": len(self._tables.center),
                "seed": config.seed,
                "epoch": epoch,
                "first_document": self._first_document,
                "n_copied": self._n_copied,
                "n_copies": self._n_copies,
                **{name: getattr(config, name) for name in ("context_weight", "doc_weight", "margin", "window")},
                **{name: getattr(config, name) for name in ("negatives", "positions_per_draw", "doc_negatives")},
                "n_documents": len(documents),
                "n_stretches": len(stretches),
            },
            {
                "next": np.zeros(2, np.int32),
                "loss": np.zeros(1, np.float64),
                "counts": np.zeros(3, np.uint64),
                "begins": begins,
                "offsets": ends,
                "documents": np.asarray(documents, np.int64),
                "pieces": pieces,
                "rates": rates,
                "steps": steps,
                "places": places.astype(np.int32),
                "stretches": stretches.astype(np.int32),
                "starts": starts.astype(np.int32),
                **travelling,
            },
            there={
                "kept": (np.uint32, int(ends[-1])),
                "n_kept": (np.int32, len(places)),
                "numbers": (np.int64, len(places)),
            },
        )
        return len(stretches)

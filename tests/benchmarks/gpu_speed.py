"""What does a CUDA device bring? Prints the tables of tests/benchmarks/RESULTS.md about the GPU backend.

    python tests/benchmarks/gpu_speed.py                    words/s, bytes moved, occupancy, time to the CPU's quality
    python tests/benchmarks/gpu_speed.py --compiled         registers and occupancy by NVRTC; no device needed
    python tests/benchmarks/gpu_speed.py --in-flight 1 64 160 512 --epochs 3 --seeds 2
                                                            documents in flight against quality; no device needed

With ``--in-flight`` the kernels run on the processor behind tests/gpu_shim.h, all warps in step: each reads its rows,
then each writes them. That is the most that moves can be lost; on a device warps are anywhere.

Bytes moved are counted, not measured: every row of a contrast is read and, where a hinge was active, written. The floor
is the time that the memory of the device would need for all of them, had it no caches.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import corpora
import numpy as np
from ledger import header, markdown_table

from jose_embed.analysis import measures as evaluation
from jose_embed.compute.gpu import device as gpu_device
from jose_embed.compute.gpu.backend import layout_of
from jose_embed.compute.tables import DOCUMENT_BLOCK
from jose_embed.config import TrainConfig, available_workers, preset_settings
from jose_embed.model.embeddings import Embeddings
from jose_embed.text.corpus import EncodedCorpus
from jose_embed.text.encode import encode
from jose_embed.training.train import fit

sys.path.append(str(Path(__file__).resolve().parent.parent))  # for nvrtc.py and fake_cupy.py

PAIRWISE = preset_settings("pairwise")
EPOCHS_TRIED = (1, 2, 3, 5, 7, 10, 15, 20)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    options = _parser().parse_args(arguments)
    facts = header()
    print(f"measured at {facts['commit']}, {facts['date']}, {facts['machine']}")
    if options.compiled:
        _print_compiled()
        return 0
    if not corpora.DATA.is_dir():
        print(f"no development corpora at {corpora.DATA}; JOSE_SHARED_DATA may name their place", file=sys.stderr)
        return 2
    if options.in_flight:
        return _print_in_flight(options)
    reason = gpu_device.missing()
    if reason is not None:
        print(f"nothing to measure: {reason}; --compiled and --in-flight need no device", file=sys.stderr)
        return 2
    _print_speed(options)
    _print_time_to_quality(options)
    return 0


# ---- on a device ----------------------------------------------------------------------------------------------------


def _print_speed(options: argparse.Namespace) -> None:
    device = gpu_device.open_device()
    print(f"{device.name}, {device.n_processors} multiprocessors, {device.memory_bytes / 1e9:.0f} GB\n")
    rows = []
    for name, recipe in itertools.product(options.corpora, (PAIRWISE, {})):
        corpus = corpora.load(name)
        config = TrainConfig(tokenizer="whitespace", epochs=options.epochs or corpus.description.epochs, **recipe)
        with encode([str(corpus.write())], tokenizer="whitespace") as text:
            on_cpu = _rate(text, dataclasses.replace(config, backend="cpu", epochs=1))
            for repetition in range(options.repetitions):
                print(f"  {name}, repetition {repetition + 1} ...", file=sys.stderr, flush=True)
                model = fit(text, dataclasses.replace(config, backend="gpu"))
                rows.append([
                    f"{corpora.KNOWN[name].title}, {config.objective}, {config.negatives} negatives",
                    model.manifest["training"]["workers"],
                    f"{model.manifest['training']['words_per_second'] / 1e6:.1f}",
                    f"{on_cpu / 1e6:.2f}",
                    f"{model.manifest['training']['words_per_second'] / on_cpu:.1f} times",
                    *_memory_cells(model, config, device),
                ])  # fmt: skip
    columns = ["", "documents at a time", "M words/s", f"CPU, {available_workers()} cores", "against them"]
    print(markdown_table([*columns, "GB moved", "GB/s", "floor, s", "share of the floor reached"], rows))
    layout = layout_of(TrainConfig(**PAIRWISE))
    kernel = device.kernels(layout).get_function("train")
    resident = device.resident_warps(kernel)
    print(
        f"\ntrain: {kernel.num_regs} registers, {kernel.shared_size_bytes} bytes of shared memory; a multiprocessor "
        f"could hold {resident} of {device.most_warps} warps ({resident / device.most_warps:.0%})\n"
    )


def _rate(text: EncodedCorpus, config: TrainConfig) -> float:
    """Words per second of the training phase."""
    return float(fit(text, config).manifest["training"]["words_per_second"])


def _memory_cells(model: Embeddings, config: TrainConfig, device: gpu_device.Device) -> list[str]:
    """What moved between the multiprocessors and memory, and how that compares with what memory could do."""
    training = model.manifest["training"]
    moved = bytes_moved(training["epochs"], config)
    seconds = training["phases"]["training"]
    floor = moved / device.bandwidth if device.bandwidth else float("nan")
    return [f"{moved / 1e9:.0f}", f"{moved / seconds / 1e9:.0f}", f"{floor:.2f}", f"{floor / seconds:.0%}"]


def bytes_moved(epochs: Sequence[dict[str, Any]], config: TrainConfig) -> float:
    """Bytes of rows that the contrasts of some epochs read, and write if each has an active hinge for every row."""
    positions = sum(epoch["positions"] for epoch in epochs)
    rows = config.window + 1 + config.negatives + 1  # on the average half of 2 (1 + window) words stand around
    blocks = (DOCUMENT_BLOCK + config.doc_negatives + 1) / DOCUMENT_BLOCK if config.objective == "pairwise" else 1
    return float(positions * (rows + blocks) * 2 * 4 * gpu_device.padded_dim(config.dim))


def _print_time_to_quality(options: argparse.Namespace) -> None:
    """Seconds of training until the neighbours of 20 Newsgroups are as good as those of ten epochs on the CPU."""
    corpus = corpora.load("20news")
    config = TrainConfig(tokenizer="whitespace", epochs=10)
    rows = []
    with encode([str(corpus.write())], tokenizer="whitespace") as text:
        model = fit(text, dataclasses.replace(config, backend="cpu"))
        wanted = _neighbours(model, corpus)
        seconds = model.manifest["training"]["phases"]["training"]
        rows.append(["cpu, 10 epochs", f"{wanted:.3f}", f"{_clusters(model, corpus):.3f}", f"{seconds:.2f}"])
        for epochs in EPOCHS_TRIED:
            model = fit(text, dataclasses.replace(config, backend="gpu", epochs=epochs))
            found, seconds = _neighbours(model, corpus), model.manifest["training"]["phases"]["training"]
            rows.append([f"gpu, {epochs} epochs", f"{found:.3f}", f"{_clusters(model, corpus):.3f}", f"{seconds:.2f}"])
            if found >= wanted - 0.001:
                break
    print("### Time to the CPU's quality, 20 Newsgroups\n")
    print(markdown_table(["", "kNN(3)", "NMI", "training, s"], rows))


def _neighbours(model: Embeddings, corpus: corpora.Corpus) -> float:
    assert corpus.labels is not None
    vectors = corpus.in_file_order(np.asarray(model.doc_vectors))
    n_train = corpus.description.n_train
    return float(evaluation.classify(vectors, corpus.labels, n_train=n_train).accuracy.mean)


def _clusters(model: Embeddings, corpus: corpora.Corpus) -> float:
    assert corpus.labels is not None
    vectors = corpus.in_file_order(np.asarray(model.doc_vectors))
    return float(evaluation.cluster(vectors, corpus.labels, seeds=(0, 1, 2)).nmi.mean)


# ---- without one ----------------------------------------------------------------------------------------------------


def _print_compiled() -> None:
    import nvrtc

    if nvrtc.library() is None:
        print('NVRTC is not installed; run: pip install "nvidia-cuda-nvrtc-cu12"', file=sys.stderr)
        return
    rows = []
    for title, config in (
        ("default, d = 100", TrainConfig()),
        ("pairwise, d = 100", TrainConfig(**PAIRWISE)),
        ("pairwise, d = 300", TrainConfig(**PAIRWISE, dim=300)),
        ("pairwise, d = 1024", TrainConfig(**PAIRWISE, dim=1024)),
    ):
        for architecture in nvrtc.ARCHITECTURES:
            for name, kernel in nvrtc.compile_for(architecture, layout_of(config)).items():
                if name == "train" or config == TrainConfig():
                    limits = nvrtc.LIMITS[architecture]
                    resident = gpu_device.resident_warps(kernel.registers, kernel.shared_bytes, *limits)
                    most = limits[2] // gpu_device.WARP
                    rows.append([
                        f"{name}, {title}", architecture, kernel.registers, f"{kernel.shared_bytes:,}",
                        kernel.spilled_bytes, f"{resident} of {most}", f"{resident / most:.0%}",
                    ])  # fmt: skip
    columns = ["kernel", "for", "registers", "shared memory, bytes", "spilled, bytes", "warps resident", "occupancy"]
    print(markdown_table(columns, rows))


def _print_in_flight(options: argparse.Namespace) -> int:
    import fake_cupy

    if fake_cupy.COMPILER is None:
        print("no C++ compiler for the kernels (g++, c++ or clang++)", file=sys.stderr)
        return 2
    corpus = corpora.load(options.corpora[0])
    rows = []
    with (
        encode([str(corpus.write())], tokenizer="whitespace") as text,
        fake_cupy.installed(fake_cupy.FakeCupy(free_bytes=1 << 34, options=("-O3", "-march=native"))),
    ):
        for at_a_time in options.in_flight:
            found: dict[str, list[float]] = {"knn": [], "nmi": [], "loss": []}
            started = time.perf_counter()
            for seed in range(1, options.seeds + 1):
                config = TrainConfig(tokenizer="whitespace", backend="gpu", workers=at_a_time, seed=seed)
                model = fit(text, dataclasses.replace(config, epochs=options.epochs or 3))
                found["knn"].append(_neighbours(model, corpus))
                found["nmi"].append(_clusters(model, corpus))
                found["loss"].append(model.manifest["training"]["epochs"][-1]["loss"])
            seconds = time.perf_counter() - started
            print(f"  {at_a_time}: {found}, {seconds:.0f} s", file=sys.stderr, flush=True)
            rows.append([at_a_time, *(_spread(values) for values in found.values())])
    print(
        f"\n### Documents in flight, {corpus.description.title}, {options.epochs or 3} epochs, {options.seeds} seeds\n"
    )
    print(markdown_table(["documents in flight", "kNN(3)", "NMI", "loss"], rows))
    return 0


def _spread(values: Sequence[float]) -> str:
    """Mean and range."""
    return f"{np.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})" if len(values) > 1 else f"{values[0]:.4f}"


@cache
def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = list(corpora.KNOWN)
    parser.add_argument("--corpora", nargs="+", choices=names, default=["wiki", "20news"], metavar="NAME")
    parser.add_argument("--repetitions", type=int, default=3, help="trainings of each corpus (default: 3)")
    parser.add_argument("--epochs", type=int, help="default: 10, on Wikipedia 5; with --in-flight 3")
    parser.add_argument("--seeds", type=int, default=1, help="seeds of --in-flight (default: 1)")
    parser.add_argument("--compiled", action="store_true", help="only what NVRTC says of the kernels")
    parser.add_argument("--in-flight", type=int, nargs="+", metavar="N", help="only quality by documents in flight")
    return parser


if __name__ == "__main__":
    os.environ.setdefault("CUPY_CACHE_IN_MEMORY", "1")  # a cold start compiles
    sys.exit(main())

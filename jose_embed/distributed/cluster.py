"""Groups of actors of Ray: where the shards and owners of a training live, and what happens when one is lost.

Ray is an extra and is imported when a cluster is asked for. Actors and their placement group are removed at the end,
whatever happens; those of a driver that is killed are removed by Ray.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple

from jose_embed.config import TrainConfig, available_workers
from jose_embed.distributed.dealing import dealt
from jose_embed.distributed.exchange import Owner
from jose_embed.distributed.group import RESUME, Group, LostResultError
from jose_embed.distributed.shard import Shard
from jose_embed.distributed.training import Job, train_on
from jose_embed.errors import ConfigError, CorpusError, JoseError, MissingExtraError, TrainingError
from jose_embed.model.embeddings import Embeddings
from jose_embed.progress import Reporter
from jose_embed.text.kept import is_encoded
from jose_embed.text.records import TextOptions
from jose_embed.text.sources import Sources, find_sources, listed
from jose_embed.training.checkpoints import Checkpoints
from jose_embed.training.engine import EngineOptions

_MOST_LOSSES: Final = 8  # of one member in one call
_PATIENCE: Final = 300.0  # seconds in which another machine must take the place of one that is lost


class Machines(NamedTuple):
    """The members of a training.

    Attributes:
        shards: The part of the text on each machine.
        owners: The owners of rows; None for a single machine.
        threads: Threads of a machine without a GPU.
    """

    shards: Group
    owners: Group | None
    threads: int


def train_on_ray(
    sources: Sources,
    config: TrainConfig,
    options: EngineOptions,
    text_options: TextOptions,
    reporter: Reporter,
    checkpoints: Checkpoints | None = None,
    temporary_directory: str | None = None,
) -> Embeddings:
    """Train on the machines of a Ray cluster; see :func:`jose_embed.train`."""
    with job_on_ray(sources, config, options, text_options, reporter, temporary_directory) as job:
        return train_on(job, checkpoints)


@contextlib.contextmanager
def job_on_ray(
    sources: Sources,
    config: TrainConfig,
    options: EngineOptions,
    text_options: TextOptions,
    reporter: Reporter,
    temporary_directory: str | None = None,
) -> Iterator[Job]:
    """A job on the machines of a Ray cluster; before one is started, the files are found to be such as can be dealt.

    Args:
        sources: As for :func:`jose_embed.train`.
        config, options, text_options, reporter, temporary_directory: As for :class:`Job`.

    Raises:
        ConfigError, CorpusError, MissingExtraError: too few files or machines, an encoded corpus, or no Ray.
    """
    for name in listed(sources):
        if name != "-" and isinstance(name, (str, os.PathLike)) and is_encoded(name):
            raise CorpusError(f"{name}: is an encoded corpus; engine='ray' reads the text itself; name its files")
    found = find_sources(sources, reporter.note)
    dealt(found, options.nodes)
    with machines(options, config) as group:
        shards, owners, threads = group
        yield Job(shards, owners, found, config, options, text_options, reporter, threads, temporary_directory)


@contextlib.contextmanager
def connected(address: str | None, nodes: int = 1) -> Iterator[Any]:
    """The module ``ray``, connected to a cluster; one on this machine is started, and stopped at the end.

    Args:
        address: "auto" or HOST:PORT; None for a cluster on this machine, if the process is not connected already.
        nodes: How many actors a cluster on this machine must have room for.

    Raises:
        MissingExtraError: Ray is not installed.
        ConfigError: no cluster answers, or ``address`` is not such a one.
    """
    try:
        ray = import_module("ray")
    except ImportError:
        raise MissingExtraError("engine='ray'", "ray") from None
    if ray.is_initialized():
        yield ray
        return
    if address is not None:
        _check_address(address)
    how: dict[str, Any] = {"address": address or "local", "log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        # Listening on the loopback alone: whoever reaches a Ray cluster can run programs there.
        how |= {"num_cpus": max(available_workers(), nodes), "include_dashboard": False}
        how |= {"_node_ip_address": "127.0.0.1"}
        os.environ.setdefault("RAY_worker_niceness", "0")  # a training is not a background job: 15 is the default
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(**how)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise _no_cluster(address, reason) from None
    finally:  # Ray replaces them
        for number, handler in handlers.items():
            with contextlib.suppress(ValueError, TypeError):
                signal.signal(number, handler)
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Refuse an address at which nothing listens: Ray itself tries for minutes.

    Raises:
        ConfigError: not ``auto`` or ``HOST:PORT``, or no answer.
    """
    found = address
    if address == "auto":  # as Ray finds it; the file stays behind when a cluster dies
        current = Path(os.environ.get("RAY_TMPDIR") or "/tmp", "ray", "ray_current_cluster")
        found = os.environ.get("RAY_ADDRESS") or (current.read_text().strip() if current.is_file() else "auto")
    if found == "auto":  # Ray looks for a cluster on this machine
        return
    host, _, port = found.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"address is {found!r}; it must be auto or HOST:PORT, as ray start --head shows it")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise _no_cluster(found, str(error)) from None


def _no_cluster(address: str | None, reason: str) -> ConfigError:
    return ConfigError(
        f"address is {address!r}, and no Ray cluster answers there ({reason}); start one with ray start --head, or "
        "leave address out to use this machine alone"
    )


@contextlib.contextmanager
def machines(options: EngineOptions, config: TrainConfig) -> Iterator[Machines]:
    """The members of a training on a Ray cluster: one shard and one owner on each machine, which has all its cores.

    Raises:
        MissingExtraError: Ray is not installed.
        ConfigError: no cluster answers, or it has fewer machines.
    """
    n = options.nodes
    with connected(options.address, n) as ray:
        alone = len([node for node in ray.nodes() if node["Alive"]]) == 1
        bundle, strategy = _bundle(ray, n, config, alone)
        util = import_module("ray.util")
        scheduling = import_module("ray.util.scheduling_strategies")
        place = util.placement_group([bundle] * n, strategy=strategy)
        groups: list[RayGroup] = []
        try:
            if not place.wait(timeout_seconds=60):
                raise ConfigError(
                    f"nodes is {n}, but the cluster has no {n} machines with {bundle['CPU']:.0f} free cores each; "
                    "wait for other programs to end, or lower nodes"
                )

            def options_of(number: int) -> dict[str, Any]:
                strategy = scheduling.PlacementGroupSchedulingStrategy(place, placement_group_bundle_index=number)
                return {"scheduling_strategy": strategy, "max_concurrency": 2, "max_restarts": 0}

            def of_shard(number: int) -> dict[str, Any]:
                return {**options_of(number), "num_cpus": bundle["CPU"], "num_gpus": bundle.get("GPU", 0)}

            def of_owner(number: int) -> dict[str, Any]:
                return {**options_of(number), "num_cpus": 0}

            groups.append(RayGroup(ray, Shard, lambda number: (number, n), of_shard, n))
            if n > 1:
                groups.append(RayGroup(ray, Owner, lambda _: (options.int8,), of_owner, n))
            threads = max(1, available_workers() // n) if options.address is None and alone else int(bundle["CPU"])
            yield Machines(groups[0], groups[1] if n > 1 else None, threads)
        finally:
            for group in groups:
                group.close()
            with contextlib.suppress(Exception):
                util.remove_placement_group(place)


def _bundle(ray: Any, n: int, config: TrainConfig, alone: bool) -> tuple[dict[str, float], str]:
    """The resources of each machine of a training, and how they are spread."""
    found: list[Mapping[str, float]] = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    found.sort(key=lambda resources: -resources.get("CPU", 0))
    if alone:
        cores = int(found[0].get("CPU", 0)) // n
        if cores < 1:
            raise ConfigError(f"nodes is {n}, but the cluster has one machine with {found[0].get('CPU', 0):.0f} cores")
        bundle, strategy = {"CPU": float(cores)}, "PACK"
    else:
        able = [resources for resources in found if resources.get("CPU", 0) >= 1]
        if len(able) < n:
            raise ConfigError(f"nodes is {n}, but the cluster has {len(able)} machines; add machines, or lower nodes")
        bundle, strategy = {"CPU": float(int(able[n - 1]["CPU"]))}, "STRICT_SPREAD"
    gpus = [resources.get("GPU", 0) for resources in found[:n]]
    if config.backend != "cpu" and (sum(gpus) >= n if alone else min(gpus) >= 1):
        bundle["GPU"] = 1.0
    return bundle, strategy


class _Member:
    """The actor: an object whose methods are called by name."""

    def __init__(self, make: Callable[..., Any], arguments: Sequence[Any]) -> None:
        self._inner = make(*arguments)

    def pid(self) -> int:
        return os.getpid()

    def call(self, method: str, *arguments: Any) -> Any:
        return getattr(self._inner, method)(*arguments)

    def call_kept(self, method: str, *arguments: Any) -> tuple[Any, ...]:
        # The first value is small: it tells whether the call has failed, without fetching the others.
        return (None, *getattr(self._inner, method)(*arguments))


class RayGroup:
    """Actors of Ray; methods as in :class:`~jose_embed.distributed.group.Group`.

    Args:
        ray: The module, connected.
        make: The class of the members.
        arguments: The arguments of a member.
        options: The options of the actor of a member.
        n: The number of members.
    """

    def __init__(
        self,
        ray: Any,
        make: Callable[..., Any],
        arguments: Callable[[int], Sequence[Any]],
        options: Callable[[int], Mapping[str, Any]],
        n: int,
    ) -> None:
        self.on_wait: Callable[[], None] | None = None
        self._ray, self._make, self._arguments, self._options = ray, make, arguments, options
        self._errors = import_module("ray.exceptions")
        self._actors = [self._started(number) for number in range(n)]
        self._kept: list[tuple[str, Callable[[int], Sequence[Any] | None]]] = []
        self._anew: list[int] = []
        self._asked: list[Any] = [None] * n
        self._answers: list[Any] = [None] * n

    def __len__(self) -> int:
        return len(self._actors)

    def values(
        self, method: str, *arguments: Any, each: Sequence[Sequence[Any]] | None = None, keep: bool = False
    ) -> list[Any]:
        shared = [self._stored(argument) for argument in arguments]

        def of(number: int) -> Sequence[Any]:
            return (*shared, *(each[number] if each is not None else ()))

        found = self._called(lambda number: [self._actors[number].call.remote(method, *of(number))], range(len(self)))
        if keep:
            self.keep_call(method, of)
        return [values[0] for values, _ in found]

    def handles(
        self,
        method: str,
        *arguments: Any,
        each: Sequence[Sequence[Any]] | None = None,
        returns: int = 1,
        only: Collection[int] | None = None,
    ) -> list[list[Any]]:
        shared = [self._stored(argument) for argument in arguments]

        def submit(number: int) -> list[Any]:
            call = self._actors[number].call_kept.options(num_returns=returns + 1)
            found = call.remote(method, *shared, *(each[number] if each is not None else ()))
            return list(found)

        numbers = [number for number in range(len(self)) if only is None or number in only]
        found: list[list[Any]] = [[] for _ in range(len(self))]
        for number, (_, references) in zip(numbers, self._called(submit, numbers), strict=True):
            found[number] = references[1:]
        return found

    def value(self, handle: Any) -> Any:
        try:
            return self._ray.get(handle)
        except self._errors.RayError:
            raise LostResultError from None

    def keep_call(self, method: str, arguments: Callable[[int], Sequence[Any] | None]) -> None:
        self._kept.append((method, arguments))

    def ask(self, member: int, method: str, *arguments: Any) -> Any:
        try:
            return self._ray.get(self._actors[member].call.remote(method, *arguments), timeout=_PATIENCE)
        except self._errors.RayTaskError as error:
            raise self._cause(error) from None
        except self._errors.RayError:
            return None

    def poll(self, method: str) -> list[Any]:
        for number, reference in enumerate(self._asked):
            if reference is not None:
                if not self._ray.wait([reference], timeout=0)[0]:
                    continue
                with contextlib.suppress(self._errors.RayError):
                    self._answers[number] = self._ray.get(reference)
            self._asked[number] = self._actors[number].call.remote(method)
        return self._answers

    def send(self, method: str) -> None:
        for actor in self._actors:
            actor.call.remote(method)

    def taken_anew(self) -> list[int]:
        anew, self._anew = self._anew, []
        return anew

    def close(self) -> None:
        """Remove the actors."""
        for actor in self._actors:
            with contextlib.suppress(Exception):
                self._ray.kill(actor)

    def _started(self, number: int) -> Any:
        actor = self._ray.remote(_Member).options(**self._options(number))
        return actor.remote(self._make, tuple(self._arguments(number)))

    def _stored(self, argument: Any) -> Any:
        """An argument of all members, which travels once; numbers and the like travel with the call."""
        if argument is None or isinstance(argument, (int, float, str, self._ray.ObjectRef)):
            return argument
        return self._ray.put(argument)

    def _called(self, submit: Callable[[int], list[Any]], numbers: Sequence[int]) -> list[tuple[list[Any], list[Any]]]:
        """Of each member, the first value (in a list) and all references, once all calls have succeeded."""
        references = {number: submit(number) for number in numbers}
        waiting = {references[number][0]: number for number in numbers}
        found: dict[int, Any] = {}
        losses = dict.fromkeys(numbers, 0)
        while waiting:
            ready, _ = self._ray.wait(list(waiting), num_returns=1, timeout=0.25)
            if self.on_wait is not None:
                self.on_wait()
            for reference in ready:
                number = waiting.pop(reference)
                try:
                    found[number] = self._ray.get(reference)
                except self._errors.RayTaskError as error:
                    raise self._cause(error) from None
                except self._errors.RayActorError as error:
                    losses[number] += 1
                    self._replace(number, error, losses[number])
                    references[number] = submit(number)
                    waiting[references[number][0]] = number
                except self._errors.RayError:
                    raise LostResultError from None
        return [([found[number]], references[number]) for number in numbers]

    def _cause(self, error: Any) -> Exception:
        """The error of a member as the caller should see it."""
        cause = error.cause
        if isinstance(cause, self._errors.RayError):  # an argument was lost
            return LostResultError()
        if isinstance(cause, (JoseError, LostResultError)):
            return cause
        if isinstance(cause, (MemoryError, OSError)):
            return TrainingError(f"a machine ran into: {type(cause).__name__}: {cause}; {RESUME}")
        return cause if isinstance(cause, Exception) else RuntimeError(str(error))

    def _replace(self, number: int, error: Exception, losses: int) -> None:
        """Make a member anew and repeat what was to be kept."""
        while True:
            if losses > _MOST_LOSSES:
                reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
                raise TrainingError(f"machine {number + 1} was lost {losses} times at one step ({reason}); {RESUME}")
            with contextlib.suppress(Exception):
                self._ray.kill(self._actors[number])
            self._actors[number], self._asked[number] = self._started(number), None
            try:
                for method, arguments in self._kept:
                    if (values := arguments(number)) is not None:
                        self._ray.get(self._actors[number].call.remote(method, *values), timeout=_PATIENCE)
                self._anew.append(number)
                return
            except self._errors.RayTaskError as task_error:
                raise self._cause(task_error) from None
            except self._errors.GetTimeoutError:
                raise TrainingError(
                    f"a machine was lost, and no other took its place within {_PATIENCE:.0f} seconds; {RESUME}"
                ) from None
            except self._errors.RayActorError as another:
                error, losses = another, losses + 1

"""What happens after each epoch: words are pulled to given vectors, held-out documents measured, the caller is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jose_embed.progress import Reporter
from jose_embed.training.held_out import HeldOut
from jose_embed.training.schedule import RunState

#: Called with the report of each epoch; False ends the training.
OnEpoch = Callable[[Mapping[str, Any]], object]


class EpochEnd:
    """Called after each epoch of a training; see :func:`~jose_embed.training.epochs.train_epochs`.

    Args:
        pull: Moves vectors; called with the number of the epoch, from 0.
        held_out: Measures the held-out loss.
        patience: Epochs without a lower held-out loss that end the training; 0 for no such end.
        on_epoch: Called with the report of each epoch, a dictionary: ``epoch`` (from 1), ``loss``, ``active``,
            ``pairs``, ``positions``, ``seconds``, ``words_per_second`` and, with held-out documents, ``held_out_loss``.
            If it returns False, the training ends and the model is made.
        reporter: Receives a note about the held-out loss, and why the training ends early.

    Attributes:
        keep: Writes a checkpoint if ``on_epoch`` raises; None for none.
    """

    def __init__(
        self,
        pull: Callable[[int], None] | None,
        held_out: HeldOut | None,
        patience: int,
        on_epoch: OnEpoch | None,
        reporter: Reporter,
    ) -> None:
        self._pull, self._held_out, self._patience = pull, held_out, patience
        self._on_epoch, self._reporter = on_epoch, reporter
        self.keep: Callable[[RunState], None] | None = None

    def __call__(self, state: RunState) -> None:
        """Do it; may set ``state.stopped``."""
        report = state.epochs[-1]
        if self._pull is not None:
            self._pull(state.epoch - 1)
        if self._held_out is not None:
            report["held_out_loss"] = self._held_out.loss()
            self._reporter.note(
                f"epoch {state.epoch}: loss {report['loss']:.4g}, held-out loss {report['held_out_loss']:.4g}"
            )
            losses = [each["held_out_loss"] for each in state.epochs]
            best = losses.index(min(losses))
            if self._patience and state.epoch - 1 - best >= self._patience:
                state.stopped = True
                self._reporter.note(f"stopped early: the held-out loss was lowest in epoch {best + 1}")
        if self._on_epoch is not None and self._told(state) is False:
            state.stopped = True
            self._reporter.note(f"stopped after epoch {state.epoch}, as on_epoch asked")

    def _told(self, state: RunState) -> object:
        assert self._on_epoch is not None
        try:
            return self._on_epoch(dict(state.epochs[-1]))
        except BaseException:
            if self.keep is not None:
                self.keep(state)
            raise

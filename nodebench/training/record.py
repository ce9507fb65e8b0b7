"""The record of a running trial: checkpoints, history, log, and at its end the result."""

from __future__ import annotations

import statistics
import time
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import Any

from nodebench.errors import TrialOutcome
from nodebench.models.build import parameter_count
from nodebench.ode.block import ode_blocks
from nodebench.planning import RunOptions
from nodebench.planning.missing import limit_of
from nodebench.spec import Trial
from nodebench.spec.data import Dataset
from nodebench.spec.identity import canonical
from nodebench.store import Result, TrialFolder
from nodebench.store.rows import INCIDENTAL, Row
from nodebench.training.checkpoint import TrainState


class Record:
    """The record of one attempt at a trial, kept in the trial's folder.

    `was_finished` says whether an earlier attempt finished the training. A finished result stays,
    whatever happens in the evaluation after it, or when the trial is retrained for its weights:
    retraining has its own checkpoint until it ends, and leaves the record unchanged.
    """

    def __init__(self, trial: Trial, folder: TrialFolder, options: RunOptions):
        self.trial, self.folder, self.options = trial, folder, options
        self._before = folder.result()
        self.was_finished = self._before is not None and self._before.is_finished
        self._is_finished = self.was_finished
        self._started, self._clock = time.time(), time.monotonic()
        self._saved, self._epochs_saved = self._clock, 0
        self._recorded = folder.history()
        self._epoch_end: float | None = None
        self._state: TrainState | None = None
        self._chance: float | None = None

    def follow(self, state: TrainState, chance: float | None) -> None:
        """Records this state from now on."""
        self._state, self._chance = state, chance
        state.started = self._started  # unless a checkpoint says otherwise

    @property
    def state(self) -> TrainState:
        """The state that is recorded; there is none before `follow`."""
        assert self._state is not None
        return self._state

    def resumed(self) -> None:
        """Notes that the state is from the trial's own checkpoint."""
        self._epochs_saved = self.state.epoch

    def start_clock(self) -> float:
        """Starts the clock; returns when training would have begun without interruptions."""
        self._saved = time.monotonic()
        self._clock = self._saved - self.state.elapsed_s
        return self._clock

    def keep_step(self) -> None:
        """Writes a checkpoint between two steps of a long epoch."""
        if time.monotonic() - self._saved >= 60 * self.options.checkpoint_minutes:
            self._save()

    def keep_epoch(self) -> None:
        """Logs the last epoch, and writes a checkpoint unless the last one is only seconds old.

        An epoch that is trained again, as after a limit, keeps its first row, and so its seconds.
        If its numbers differ, as on another machine, later rows on record belong to other weights.
        """
        self._epoch_end = time.monotonic()
        history = self.state.history
        self.folder.log(_line(history[-1]))
        epoch = len(history)
        if epoch <= len(self._recorded):
            before = self._recorded[epoch - 1]
            if _agree(before, history[-1]):
                history[-1] = before
            else:
                self._recorded = []
        if time.monotonic() - self._saved >= self.options.checkpoint_s:
            self._save()

    def keep_end(self) -> None:
        """Writes the last checkpoint and the result of a finished training."""
        if self.was_finished:
            self._keep_retraining()
            return
        if self._epochs_saved < self.state.epoch or not self.folder.checkpoint.exists():
            self._save()
        self.folder.checkpoint_before.unlink(missing_ok=True)
        self.end(TrialOutcome.FINISHED)

    def _keep_retraining(self) -> None:
        """Puts the retrained weights in place of the missing ones.

        If they give other numbers, as on another machine, result and history are replaced, and the
        points of the earlier weights are deleted. The result is written after the other records, so
        that this is repeated if the process is killed in between.
        """
        if self.folder.checkpoint.exists():
            return
        self._save()
        assert self._before is not None
        result = self._result(TrialOutcome.FINISHED, "")
        if not _agree(self._before.summary, result.summary):
            self.folder.log("training again gave other numbers: all points are evaluated again")
            for path in (self.folder.evaluations_file, self.folder.trajectories_file):
                path.unlink(missing_ok=True)
            self.folder.write_history(self.state.history)
            self.folder.write_result(result)
        self.folder.retraining.replace(self.folder.checkpoint)

    def end(self, outcome: TrialOutcome, reason: str = "") -> None:
        """Writes the result; if the training had finished before, only logs the reason."""
        if reason:
            with suppress(OSError):
                self.folder.log(f"{outcome}: {reason}")
        if self._is_finished:
            return
        if self._state is not None:
            # After a failure, it may be ahead of the checkpoint: all trained epochs are shown.
            with suppress(OSError) if outcome == TrialOutcome.ERROR else nullcontext():
                self._write_history(self._state.history)
        self.folder.write_result(self._result(outcome, reason))
        self._is_finished = outcome == TrialOutcome.FINISHED

    def _save(self) -> None:
        """Writes the checkpoint before the history, so that no recorded epoch is lost again."""
        state = self.state
        state.elapsed_s = time.monotonic() - self._clock
        if self.was_finished:
            state.save(self.folder.retraining)
        else:
            state.save(self.folder.checkpoint, aside=self.folder.checkpoint_before)
            self._write_history(state.history)
        self._saved, self._epochs_saved = time.monotonic(), state.epoch

    def _write_history(self, history: list[Row]) -> None:
        """Writes the history; while old epochs are trained again, later rows on record are kept."""
        self.folder.write_history(history + self._recorded[len(history) :])

    def _result(self, outcome: TrialOutcome, reason: str) -> Result:
        unprepared = Result(
            outcome=outcome,
            reason=reason,
            epoch=0,
            summary={},
            environments=[],
            started=self._started,
            finished=time.time(),
            limit=limit_of(outcome, self.options.limits),
            recipe=self.trial.recipe_id,
            tags=self.options.tags,
            trained_s=self._trained_s(outcome),
        )
        if self._state is None:
            return unprepared
        return replace(
            unprepared,
            epoch=self._state.epoch,
            summary=_summary(self._state, self.trial.spec.data, self._chance),
            environments=self._state.environments,
            started=self._state.started,
            tags=self.options.tags | _how(self._state),
        )

    def _trained_s(self, outcome: TrialOutcome) -> float:
        """Seconds of training in this attempt and in those that it resumed.

        A finished one ended with its last epoch: others of its pack may have been evaluated since.
        """
        end = time.monotonic()
        if outcome == TrialOutcome.FINISHED and self._epoch_end is not None:
            end = self._epoch_end
        elsewhere = self._state.continued_s if self._state else 0.0
        return max(0.0, end - self._clock - elsewhere)


def _how(state: TrainState) -> dict[str, str]:
    """Tags with decisions that were made during training and do not follow from the spec."""
    how = {"continues": state.continues} if state.continues else {}
    blocks = ode_blocks(state.model)
    if forms := {form for block in blocks for form in block.exact_forms.values()}:
        how["exact_gradient"] = ", ".join(sorted(forms))
    return how


def _summary(state: TrainState, data: Dataset, chance: float | None) -> dict[str, Any]:
    """The last epoch's metrics, the best epoch's, chance, and the number of parameters.

    The best epoch is chosen on the validation data, or on the test data if there are none.
    """
    summary: dict[str, Any] = {"parameters": parameter_count(state.model)}
    if chance is not None:
        summary["chance"] = chance
    if state.history:
        headline, sign = data.headline, 1 if data.higher_is_better else -1
        tested = [row for row in state.history if headline in row]
        judge = f"val_{data.metric}" if tested and f"val_{data.metric}" in tested[0] else headline
        best: Row = max(tested, key=lambda row: sign * row[judge], default={})
        summary |= {k: v for k, v in state.history[-1].items() if k not in ("epoch", "time")}
        if best:
            summary |= {f"best_{headline}": best[headline], "best_epoch": best["epoch"]}
        if "epoch_s" in summary:
            rows = state.history[1:] or state.history  # the first may include compilation
            summary["epoch_s"] = statistics.median(row["epoch_s"] for row in rows)
        if "nfe_forward" in summary:
            summary["nfe_forward_mean"] = statistics.fmean(r["nfe_forward"] for r in state.history)
    return summary


def _agree(before: Row, now: Row) -> bool:
    """Whether two trainings gave the same numbers, where both have them; NaN equals NaN."""
    shared = before.keys() & now.keys() - INCIDENTAL
    return all(canonical(before[name]) == canonical(now[name]) for name in shared)


def _line(row: Row) -> str:
    shown = {k: v for k, v in row.items() if k not in ("time", "peak_memory_bytes")}
    return "  ".join(
        f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items()
    )

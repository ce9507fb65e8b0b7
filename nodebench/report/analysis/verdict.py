"""Is a trained model still an ODE? A verdict from its evaluation points.

A model whose accuracy falls when a finer solver integrates the same weights has learned its
solver's error along with its task: it is a residual network in disguise (Ott et al. 2021). Gusak
et al. 2020 state this as the (S, n)-criterion: a model trained with n steps of solver S has smooth
dynamics if no more powerful solver lowers its accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from nodebench.errors import TrialOutcome
from nodebench.spec import Trial
from nodebench.spec.point import is_training_solver, known_point, limit_point
from nodebench.spec.solver import Solver
from nodebench.spec.vocabulary import METHODS, VERDICT_NUMBERS
from nodebench.store import Store
from nodebench.store.rows import Row
from nodebench.sweep import Sweep
from nodebench.sweep.points import points


class VerdictWord(StrEnum):
    """The verdict on a trained model, in a word."""

    ODE = "ODE"
    RESNET = "ResNet in disguise"
    UNDECIDED = "undecided"

    @property
    def text(self) -> str:
        """The words after a count of such models in a sentence."""
        return self.value


CHANCE_LEVEL = 0.05
"""Below this probability of an ODE's losses, or of correct guesses, a result is called clear."""

ACCURACY_ROUNDING = 1e-9
"""Rounding error of differences between accuracies: 0.95 - 0.94 is a little more than 0.01."""


@dataclass(frozen=True)
class Verdict:
    """The verdict on one trained model, and the numbers that it rests on.

    `own` and `limit` are the headline metric under the training solver and under the finest one.
    `drop` is the loss under the worst of the solvers finer than the training solver, unless one of
    these failed or the model has learned nothing: then it is unknown. `reason` says why the verdict
    is undecided. `sufficient_steps` is the smallest evaluated number of steps of
    the training method from which on the metric stays within the margin of the limit; None for a
    model that loses more than the margin or is not better than chance, since none suffices. `order`
    is the method's observed order of convergence, from the training step size down.
    """

    word: VerdictWord
    reason: str = ""
    own: float | None = None
    limit: float | None = None
    drop: float | None = None
    sufficient_steps: int | None = None
    order: float | None = None

    @property
    def numbers(self) -> dict[str, float]:
        """The numbers that are known, by name."""
        return {n: float(getattr(self, n)) for n in VERDICT_NUMBERS if getattr(self, n) is not None}


@dataclass(frozen=True)
class _Evaluated:
    """An evaluation point, as far as verdicts need it; `error` is its solver's, if known.

    `samples` is the number of a classifier's test samples, and `changes` are those lost and gained
    since the training solver; None in older rows.
    """

    solver: Solver
    steps: int | None
    outcome: str
    value: float
    nfe: float
    error: float | None
    samples: int | None
    changes: tuple[int, int] | None
    is_limit: bool

    @property
    def is_finished(self) -> bool:
        return self.outcome == TrialOutcome.FINISHED

    @property
    def correct(self) -> int:
        """The number of samples that are classified correctly."""
        return round(self.value * (self.samples or 0))

    @property
    def order(self) -> int:
        """The method's order, or the lowest possible if it varies."""
        return self.solver.order or 1


def judge(trial: Trial, sweep: Sweep, store: Store) -> Verdict | None:
    """The verdict on a trial's model, from the points that its sweep wants."""
    wanted = set(points(trial, sweep.evaluate))
    if not wanted:
        return None
    folder = store.folder(trial.id)
    result = folder.result()
    rows = [row for row in folder.evaluations() if known_point(row) in wanted]
    chance = result.summary.get("chance") if result else None
    found = verdict(trial, rows, sweep.margin, chance)
    lacking = [p for p in wanted - set(map(known_point, rows)) if not p.gradient]
    if lacking and result and result.is_finished and (crash := folder.crash()):
        reason = f"its evaluation ended in an error: {crash}"
        return replace(
            found or Verdict(VerdictWord.UNDECIDED), word=VerdictWord.UNDECIDED, reason=reason
        )
    return found


def verdict(
    trial: Trial, rows: Iterable[Row], margin: float, chance: float | None = None
) -> Verdict | None:
    """The verdict on a trial's model; None if it was never evaluated under its own solver.

    `margin` is `SweepFile.margin`, 0.01 by default. `chance` is the metric of a model that has
    learned nothing; a model not clearly better than that is undecided.
    """
    rows = _comparable_rows(trial, rows)
    own_row = next((r for r in rows if is_training_solver(trial, known_point(r))), None)
    if own_row is None or own_row.get("nfe") == 0:  # a network without ODE blocks
        return None
    if own_row["outcome"] != TrialOutcome.FINISHED:
        return Verdict(VerdictWord.UNDECIDED, f"under the training solver: {own_row['outcome']}")
    evaluated, own = [_evaluated(trial, row) for row in rows], _evaluated(trial, own_row)
    limit = _finest(evaluated)
    finer = [p for p in evaluated if _is_finer(p, own) or (p is limit and not own.is_limit)]
    sign = 1 if trial.spec.data.higher_is_better else -1
    drop = max((sign * (own.value - p.value) for p in finer if p.is_finished), default=None)
    end = limit.value if limit and limit.is_finished else None
    found = Verdict(
        VerdictWord.UNDECIDED, own=own.value, limit=end, drop=drop, order=own_row.get("order")
    )
    allowed = margin + ACCURACY_ROUNDING
    if guesses := _why_chance(own_row, own_row.get("chance", chance), allowed):
        return replace(found, reason=guesses, drop=None)
    if limit is None:
        return replace(found, reason="the limit has not been evaluated", drop=None)
    if not limit.is_finished:
        return replace(found, reason=f"at the limit: {limit.outcome}", drop=None)
    if drop is not None and drop > allowed:  # whatever else failed
        losing = [p for p in finer if p.is_finished and sign * (own.value - p.value) > allowed]
        may_be_chance = _why_loss_is_unclear(own, losing, len(finer))
        word = VerdictWord.UNDECIDED if may_be_chance else VerdictWord.RESNET
        return replace(found, word=word, reason=may_be_chance)
    found = replace(found, sufficient_steps=_sufficient_steps(own, evaluated, limit.value, allowed))
    if failure := _why_undecided(finer):
        return replace(found, reason=failure, drop=None)
    return replace(found, word=VerdictWord.ODE)


def _why_chance(own: Row, chance: float | None, margin: float) -> str:
    """Why a classifier may have learned nothing; empty if it is clearly better than chance.

    Within the margin of chance, no loss could exceed the margin. Beyond it, guesses could be right
    as often on few test samples (exact binomial test, one-sided). An older row does not say how
    many samples were tested.
    """
    if chance is None or "accuracy" not in own:
        return ""
    if own["accuracy"] - chance <= margin:
        return f"no better than chance, {chance:.3g}"
    if (tested := own.get("samples")) is None:
        return ""
    from scipy import stats

    correct = round(own["accuracy"] * tested)
    if stats.binomtest(correct, tested, chance, alternative="greater").pvalue < CHANCE_LEVEL:
        return ""
    return f"not clearly better than chance, {chance:.3g}, on {tested} test samples"


def _why_loss_is_unclear(own: _Evaluated, losing: Sequence[_Evaluated], finer: int) -> str:
    """Why a loss of accuracy may be chance on the test samples; empty if a losing point is clear.

    The worst of several finer solvers may lose by chance as many times as likely (Bonferroni). An
    older row does not say how many samples were tested, and a trajectory has none to lose.
    """
    if own.samples is None:
        return ""
    if any(finer * _probability_of_loss(own, point) < CHANCE_LEVEL for point in losing):
        return ""
    worst = min(losing, key=lambda point: point.value)
    net = own.correct - worst.correct
    text = f"a loss of {net} of {own.samples} test samples may be chance"
    if worst.changes is None:
        return text
    lost, gained = worst.changes
    return f"{text}: {lost} became wrong and {gained} right"


def _probability_of_loss(own: _Evaluated, point: _Evaluated) -> float:
    """The probability that an ODE loses at least as many samples under a point's solver.

    An ODE's samples may change under a finer solver, but as many for the better as for the worse:
    McNemar's exact test, one-sided. Where it is not known how many became right, as many as
    possible did: all that were wrong, which makes the loss least clear.
    """
    from scipy import stats

    if point.changes is not None:
        lost, gained = point.changes
    else:
        gained = min((own.samples or 0) - own.correct, point.correct)
        lost = own.correct - point.correct + gained
    return float(stats.binom.sf(lost - 1, lost + gained, 0.5))


def _why_undecided(finer: Sequence[_Evaluated]) -> str:
    """Why a model that keeps its accuracy cannot be called an ODE; empty if it can."""
    failed = [point.outcome for point in finer if not point.is_finished]
    if failed:
        return f"under a finer solver: {failed[0]}"
    return "" if finer else "no finer solver was evaluated"


def _comparable_rows(trial: Trial, rows: Iterable[Row]) -> list[Row]:
    """The points on the largest part of the test set, with learned statistics if there are any."""
    points = [(row, known_point(row)) for row in rows]
    solves = [row for row, point in points if point.is_about_accuracy]

    def rank(row: Row) -> tuple[float, bool]:
        point = known_point(row)
        return point.test_size or math.inf, point.batch_norm == "running"

    best = max(
        (rank(row) for row in solves if is_training_solver(trial, known_point(row))), default=None
    )
    return [row for row in solves if rank(row) == best]


def _evaluated(trial: Trial, row: Row) -> _Evaluated:
    solver = Solver(**row["solver"])
    steps = trial.spec.steps_of(solver)
    value, nfe = row.get(trial.spec.data.metric, math.nan), row.get("nfe", math.nan)
    limit = limit_point(trial.spec)
    is_limit = steps is not None and steps >= (limit.steps or 0) and solver.facts.kind == "fixed"
    is_limit = is_limit and (solver.order or 0) >= (METHODS[limit.method].order or 0)
    return _Evaluated(
        solver,
        steps,
        row["outcome"],
        value,
        nfe,
        error=row.get("solver_error"),
        samples=row.get("samples") if "accuracy" in row else None,
        changes=(row["lost"], row["gained"]) if "lost" in row else None,
        is_limit=is_limit,
    )


def _finest(found: Iterable[_Evaluated]) -> _Evaluated | None:
    """The finest point, if it is no coarser than the limit's definition.

    A tolerance does not say how fine its solve is compared with a number of steps.
    """
    enough = [p for p in found if p.is_limit]
    return max(enough, key=lambda p: (p.order, p.steps or 0), default=None)


def _is_finer(point: _Evaluated, own: _Evaluated) -> bool:
    """Whether a solver is closer to the ODE than the training solver.

    By their errors, if both are known. Otherwise, its order must not be lower and its work must be
    greater.
    """
    if point.error is not None and own.error is not None:
        return point.error < own.error
    if point.order < own.order:
        return False
    if not point.is_finished:  # its evaluations are not known
        return point.steps is not None and own.steps is not None and point.steps > own.steps
    return point.nfe > own.nfe


def _sufficient_steps(
    own: _Evaluated, found: Iterable[_Evaluated], limit: float, margin: float
) -> int | None:
    values = {p.steps: p.value for p in found if p.solver.method == own.solver.method}
    sufficient = None
    for steps in sorted((n for n in values if n is not None), reverse=True):
        if not abs(values[steps] - limit) <= margin:  # true for nan too, where a solve failed
            break
        sufficient = steps
    return sufficient

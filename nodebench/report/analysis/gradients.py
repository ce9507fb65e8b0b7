"""The costs and errors of gradients: error, memory and seconds, compared with backprop's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from nodebench.errors import TrialOutcome
from nodebench.report.analysis import frames
from nodebench.report.analysis.columns import BUDGET, CELL, METHOD, OUTCOME, TRIAL
from nodebench.spec import Trial
from nodebench.spec.vocabulary import GRADIENT_NUMBERS, METHODS
from nodebench.sweep import Sweep

EXACT = 1e-5
"""A gradient within this distance of backprop's, through the same solve, is exact in float32."""

COSTS = ("error", "memory", "seconds")
"""The quantities of a gradient that should be small."""

FEWEST_STEPS = 3
"""How many numbers of steps a power is fitted to."""

NO_GROWTH = 0.02
"""Relative difference up to which memory counts as constant."""

MOST_POWER = 4.0
"""The powers that are fitted lie between 0 and this one."""

MOMENTS = ("end", "start")
"""The moments at which gradients are measured, the preferred one first."""


def with_own_gradients(sweep: Sweep, results: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """The table of results with the numbers of each trial's own gradient, if it was measured.

    They are from the end of training or, failing that, from its start. `memory_power` is the power
    with which bytes grow with the steps, over the trials that differ only in their steps.
    """
    if measured.empty or not measured["own"].any():
        return results
    own = measured[measured["own"] & (measured[OUTCOME] == TrialOutcome.FINISHED)]
    own = own.loc[_preference(own).sort_values(kind="stable").index].drop_duplicates(TRIAL)
    own = own.rename(columns={"memory_bytes": "gradient_memory_bytes"})
    names = [name for name in GRADIENT_NUMBERS if name in own]
    found = results.merge(own[[TRIAL, *names]], on=TRIAL, how="left")
    return found.assign(memory_power=found[TRIAL].map(_powers(sweep, found)))


def _preference(measured: pd.DataFrame) -> pd.Series[int]:
    """The place of each row's moment in `MOMENTS`."""
    return measured["at"].map(MOMENTS.index)


def _powers(sweep: Sweep, results: pd.DataFrame) -> dict[str, float]:
    """Trial -> power of the memory over the number of steps."""
    memory = results.set_index(TRIAL)["gradient_memory_bytes"].dropna().to_dict()
    alike: dict[str, dict[str, tuple[float, float]]] = {}
    for trial in sweep.trials:
        solver = trial.spec.solver
        if trial.id in memory and solver and solver.steps:
            rest = trial.spec.model_copy(update={"solver": solver.model_copy(update={"steps": 1})})
            pair = (trial.spec.steps_of(solver) or 1, memory[trial.id])
            alike.setdefault(rest.model_dump_json(), {})[trial.id] = pair
    powers: dict[str, float] = {}
    for pairs in alike.values():
        power = fitted_power(sorted(pairs.values()))
        powers |= {trial: power for trial in pairs if power is not None}
    return powers


def fitted_power(pairs: Sequence[tuple[float, float]]) -> float | None:
    """The power p of bytes = c + a steps^p through the three largest numbers of steps.

    The `pairs` are (steps, bytes), in order of their steps. The power is the slope in log-log of
    the growing part, without the part c that does not depend on the steps. 0 if memory hardly
    changes. None for fewer than three pairs, and if no power between 0 and `MOST_POWER` fits, as
    where something else sets the memory of the fewer steps.
    """
    if len(pairs) < FEWEST_STEPS:
        return None
    (n1, m1), (n2, m2), (n3, m3) = pairs[-FEWEST_STEPS:]
    if max(m1, m2, m3) - min(m1, m2, m3) <= NO_GROWTH * m1:
        return 0.0
    if m2 <= m1:
        return None

    def growth(p: float) -> float:  # grows with p
        return (n3**p - n2**p) / (n2**p - n1**p)

    found = (m3 - m2) / (m2 - m1)
    least = math.log(n3 / n2) / math.log(n2 / n1)  # its limit for p = 0
    if not least < found < growth(MOST_POWER):
        return None
    low, high = 0.0, MOST_POWER
    while high - low > 1e-6:
        p = (low + high) / 2
        low, high = (p, high) if growth(p) < found else (low, p)
    return (low + high) / 2


def memory_by_steps(sweep: Sweep, results: pd.DataFrame) -> pd.DataFrame:
    """One row per trial whose power of memory is known: `way`, `steps`, `memory`, `power`."""
    if "memory_power" not in results or results["memory_power"].isna().all():
        return pd.DataFrame()
    known = results[results["memory_power"].notna()].set_index(TRIAL)
    rows = [
        {
            "way": _way(trial),
            "steps": trial.spec.solver.steps,
            "memory": known.loc[trial.id, "gradient_memory_bytes"],
            "power": known.loc[trial.id, "memory_power"],
        }
        for trial in sweep.trials
        if trial.id in known.index and trial.spec.solver
    ]
    return pd.DataFrame(rows).drop_duplicates(["way", "steps"])


def gradient_costs(sweep: Sweep, measured: pd.DataFrame, timed: pd.DataFrame) -> pd.DataFrame:
    """One row per measured gradient, aggregated over seeds: its errors, costs, and the front.

    `way` is the gradient with its settings; `problem` is named by the varying settings other than
    solver and gradient. `memory` and `seconds` are those of a training step if all cells were timed
    on one machine and only own gradients were measured; otherwise those on the samples that
    gradients are measured on. `of_memory` and `of_seconds` are ratios to backprop with the same
    solver, in the same cell if it has both. `is_front` marks the Pareto front of a problem in
    error, memory and seconds. The table is empty if only one gradient was measured.
    """
    if measured.empty:
        return measured
    ways = {trial.id: _way(trial) for trial in sweep.trials if trial.spec.gradient}
    rows = measured.assign(
        way=[
            ways[i] if own else name
            for i, own, name in measured[[TRIAL, "own", "gradient"]].itertuples(index=False)
        ],
        problem=measured[TRIAL].map(_problems(sweep)),
        solve=measured[TRIAL].map({t.id: _solve(t) for t in sweep.trials}),
    )
    if rows["way"].nunique() < 2:
        return rows[:0]
    preference = _preference(rows)
    rows = rows[preference == preference.groupby(rows[CELL]).transform("min")]
    timed = frames.on_one_machine(timed)
    rows["is_timed"] = bool(rows["own"].all()) and {*rows[CELL]} <= {*timed.get(CELL, ())}
    if rows["is_timed"].any():
        taken = timed.reindex(columns=[CELL, "step_s", "step_memory_bytes"]).astype({CELL: str})
        steps = taken.groupby(CELL).median()
        rows["seconds"] = rows[CELL].map(steps["step_s"])
        rows["memory_bytes"] = rows[CELL].map(steps["step_memory_bytes"])
    return _with_fronts(_joined(rows))


NUMBERS = {
    "error": "gradient_error",
    "state_error": "state_gradient_error",
    "from_backprop": "backprop_error",
    "memory": "memory_bytes",
    "seconds": "seconds",
    "nfe_forward": "nfe_forward",
    "nfe_backward": "nfe_backward",
}


def _joined(rows: pd.DataFrame) -> pd.DataFrame:
    """Medians over seeds, and how many solves failed."""
    rows = rows.reindex(columns=rows.columns.union(list(NUMBERS.values()), sort=False))
    rows = rows.assign(budget=rows[BUDGET].map(str), failed=rows[OUTCOME] != TrialOutcome.FINISHED)
    rows[list(NUMBERS.values())] = rows[list(NUMBERS.values())].astype(float)
    keys = [CELL, "problem", METHOD, "budget", "solve", "way", "is_timed"]
    found = rows.groupby(keys, sort=False, dropna=False).agg(
        **{name: (column, "median") for name, column in NUMBERS.items()},
        failed=("failed", "sum"),
        outcome=(OUTCOME, lambda words: ", ".join(sorted(set(words) - {TrialOutcome.FINISHED}))),
    )
    return found.reset_index()


def _with_fronts(rows: pd.DataFrame) -> pd.DataFrame:
    same = ["problem", METHOD, "budget", "solve"]
    plain = rows[rows["way"] == "backprop"]
    for name in ("memory", "seconds"):
        unit = _looked_up(plain, name, rows, [CELL, *same])
        rows[f"of_{name}"] = rows[name] / unit.fillna(_looked_up(plain, name, rows, same))
    rows["is_front"] = False
    for _, group in rows.groupby("problem", sort=False):
        known = group[group[[*COSTS]].notna().all(axis=1)]
        points = list(known[[*COSTS]].itertuples(index=False, name=None))
        rows.loc[known.index, "is_front"] = [not _is_surpassed(p, points) for p in points]
    return rows


def _looked_up(
    table: pd.DataFrame, name: str, rows: pd.DataFrame, keys: list[str]
) -> pd.Series[float]:
    """For each row, the number of the first row in `table` with the same keys."""
    known = table.drop_duplicates(keys).set_index(keys)[name]
    return pd.Series(known.reindex(pd.MultiIndex.from_frame(rows[keys])).to_numpy(), rows.index)


def _is_surpassed(point: tuple[float, ...], others: Sequence[tuple[float, ...]]) -> bool:
    """Whether another point is larger in no coordinate, and smaller in one."""
    return any(
        other != point and all(a <= b for a, b in zip(other, point, strict=True))
        for other in others
    )


def ways(costs: pd.DataFrame) -> pd.DataFrame:
    """One row per gradient method with its settings, over all problems and solvers, exact first.

    `fixed` is the largest distance from backprop's gradient under fixed steps, `adaptive` that
    under other steps, which rounding moves. `from_backprop` is `fixed` if known, else `adaptive`.
    `is_exact` is None if neither is known and no solve failed. `of_memory` and `of_seconds` are
    medians of ratios.
    """
    is_fixed = costs[METHOD].map(lambda method: METHODS[method].kind == "fixed")
    costs = costs.assign(
        fixed=costs["from_backprop"].where(is_fixed),
        adaptive=costs["from_backprop"].where(~is_fixed),
    )
    found = costs.groupby("way", sort=False).agg(
        error=("error", "median"),
        worst=("error", "max"),
        fixed=("fixed", "max"),
        adaptive=("adaptive", "max"),
        of_memory=("of_memory", "median"),
        of_seconds=("of_seconds", "median"),
        failed=("failed", "sum"),
        n=("way", "size"),
    )
    found["from_backprop"] = found["fixed"].fillna(found["adaptive"])
    is_exact = (found["from_backprop"] <= EXACT) & (found["failed"] == 0)
    is_known = found["from_backprop"].notna() | (found["failed"] > 0)
    found["is_exact"] = is_exact.astype(object).where(is_known, None)
    return found.iloc[(~is_exact).argsort(kind="stable")].reset_index()


def _way(trial: Trial) -> str:
    """A trial's gradient with its settings; a reversible one also with its solver."""
    gradient, solver = trial.spec.gradient, trial.spec.solver
    assert gradient is not None
    assert solver is not None
    settings = gradient.model_dump(exclude_defaults=True, exclude_none=True)
    told = [gradient.name]
    told += [_setting(name, value) for name, value in settings.items() if name != "name"]
    if gradient.name == "reversible":
        told += [solver.method, *(["coupled"] if solver.coupling else [])]
    return " ".join(told)


def _setting(name: str, value: object) -> str:
    if isinstance(value, dict):
        return " ".join(map(str, value.values()))
    return str(value) if isinstance(value, str) else f"{name} {value}"


def _solve(trial: Trial) -> str:
    """The settings that distinguish solvers of one method and budget."""
    solver = trial.spec.solver
    if solver is None:
        return ""
    rest = solver.model_dump(include={"coupling", "damping"})
    return " ".join(f"{k} {v:g}" for k, v in rest.items() if v is not None)


def _problems(sweep: Sweep) -> dict[str, str]:
    """Trial -> its problem: the varying settings that are not of solver or gradient."""
    paths = [p for p in sweep.varying if p.partition(".")[0] not in ("solver", "gradient")]
    first = sweep.trials[0].settings
    named = sorted(paths, key=lambda path: isinstance(first.get(path), float))  # floats last
    return {
        trial.id: " ".join(_text(trial.settings[p]) for p in named if p in trial.settings)
        for trial in sweep.trials
    }


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)

"""Tables of trained networks under other solvers, and of their gradients, as text."""

from __future__ import annotations

from collections import Counter

import pandas as pd

from nodebench.errors import TrialOutcome
from nodebench.report import notes
from nodebench.report.analysis.columns import BUDGET, CELL, METHOD, OUTCOME, TRIAL
from nodebench.report.analysis.formatting import (
    NO_VALUE,
    count_and_interval,
    magnitude,
    mean_and_interval,
    measured,
    measured_difference,
    samples_text,
    unit,
)
from nodebench.report.analysis.statistics import ANY
from nodebench.report.tables import CONFIGURATION, cell_text, verdict_words
from nodebench.spec.solver import Solver
from nodebench.spec.vocabulary import VERDICT_NUMBERS
from nodebench.sweep import Sweep


def verdicts_table(sweep: Sweep, frame: pd.DataFrame) -> pd.DataFrame:
    """One row per configuration: the verdicts on its models and the numbers behind them, as text.

    `frame` is the table of `frames.verdict_frame`.
    """
    rows = []
    solvers = {trial.id: trial.spec.solver for trial in sweep.trials}
    for cell, group in frame.groupby(CELL, sort=False):
        metric = group["metric"].iloc[0]
        numbers = {name: group[name].astype(float) for name in VERDICT_NUMBERS}
        reasons = sorted(set(group["why"]) - {""})
        rows.append(
            {
                CONFIGURATION: str(cell),
                "verdict": verdict_words(group["verdict"]),
                f"own solver{unit(metric)}": measured(metric, numbers["own"]),
                f"limit{unit(metric)}": measured(metric, numbers["limit"]),
                f"drop{unit(metric)}": measured_difference(metric, numbers["drop"]),
                "sufficient steps": _steps_text(numbers["sufficient_steps"]),
                "order": _order_text(numbers["order"], solvers[group[TRIAL].iloc[0]]),
                "n": str(len(group)),
                "why undecided": "; ".join(reasons) or NO_VALUE,
            }
        )
    table = pd.DataFrame(rows)
    return table.drop(columns=[c for c in table if (table[c] == NO_VALUE).all()])


def _order_text(observed: pd.Series[float], solver: Solver | None) -> str:
    """The observed order of convergence, `of` the method's order on smooth vector fields."""
    text = mean_and_interval(observed, 2, possible=ANY)
    return text if text == NO_VALUE or solver is None else f"{text} of {solver.order}"


def _steps_text(steps: pd.Series[float]) -> str:
    """The number of steps of every seed, or one number if all agree; a dash for none."""
    values = [cell_text(value) for value in steps]
    return values[0] if len(set(values)) == 1 else ", ".join(values)


def gradients_table(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per configuration, moment, solver and gradient method: fidelity and costs, as text.

    `frame` is the table of `frames.gradient_frame`.
    """
    if frame.empty:
        return frame
    columns = [CELL, "at", METHOD, BUDGET, "gradient"]
    frame = frame.reindex(
        columns=frame.columns.union([*columns, *GRADIENT_COST_COLUMNS], sort=False)
    )
    rows = []
    for key, group in frame.groupby(columns, dropna=False, sort=False):
        done = group[group[OUTCOME] == TrialOutcome.FINISHED]
        names = [CONFIGURATION, "weights at", "solver", BUDGET, "gradient"]
        failed = Counter(group.loc[group[OUTCOME] != TrialOutcome.FINISHED, OUTCOME])
        error = magnitude(done["gradient_error"].astype(float))
        rows.append(
            {
                **dict(zip(names, map(cell_text, key), strict=True)),
                "error of dL/dθ": ", ".join([error, *(f"{n} {o}" for o, n in failed.items())]),
                "of dL/dy0": magnitude(done["state_gradient_error"].astype(float)),
                "from backprop": magnitude(done["backprop_error"].astype(float)),
                "cosine": mean_and_interval(
                    done["gradient_cosine"].astype(float), 4, possible=(-1.0, 1.0)
                ),
                "NFE forward": count_and_interval(done["nfe_forward"].astype(float)),
                "NFE backward": count_and_interval(done["nfe_backward"].astype(float)),
                "ms": mean_and_interval(done["seconds"].astype(float) * 1e3, 1),
                "MB": mean_and_interval(done["memory_bytes"].astype(float) / 1e6, 2),
                "n": str(len(done)),
            }
        )
    table = pd.DataFrame(rows)
    optional = [name for name in ("of dL/dy0", "from backprop") if name in table]
    return table.drop(columns=[name for name in optional if (table[name] == NO_VALUE).all()])


GRADIENT_COST_COLUMNS = (
    "gradient_error",
    "state_gradient_error",
    "backprop_error",
    "gradient_cosine",
    "nfe_forward",
    "nfe_backward",
    "seconds",
    "memory_bytes",
)


HEADINGS = {CELL: CONFIGURATION, METHOD: "test solver"}


def robustness_table(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per configuration and test method, a column per budget: the headline metric, as text.

    Only the points in `frame` that the sweep's file asks for are used.

    A column is a number of evaluations (`NFE 32`, summed over ODE blocks) for methods with a fixed
    number of stages, a number of steps for other methods on a grid, a multiple of the training
    step size (`h × 0.5`) if the sweep asks for one, and otherwise a tolerance. `n` is the number
    of seeds in a row; a mean over fewer seeds says so. `test_size` is shown if it varies.
    """
    frame = frame[frame["asked"]]
    columns = [CELL, METHOD]
    if frame["batch_norm"].nunique() > 1:
        columns.append("batch_norm")
    if frame["test_size"].nunique(dropna=False) > 1:
        columns.append("test_size")
        frame = frame.assign(test_size=[samples_text(size) for size in frame["test_size"]])
    # A tolerance can equal a multiple of the training tolerance: such points count once.
    frame = frame.drop_duplicates([TRIAL, METHOD, "test_size", "batch_norm", BUDGET])
    budgets = sorted(set(frame[BUDGET]))
    rows = []
    for key, group in frame.groupby(columns, dropna=False, sort=False):
        row = {HEADINGS.get(name, name): cell_text(v) for name, v in zip(columns, key, strict=True)}
        n = group[TRIAL].nunique()
        of_budget = dict(iter(group.groupby(BUDGET, sort=False)))
        values = {str(b): _headline_values(of_budget.get(b, group[:0]), n) for b in budgets}
        rows.append({**row, "n": str(n), **values})
    return pd.DataFrame(rows)


def budgets_text(frame: pd.DataFrame) -> str:
    """An example of each kind of budget in a frame that its heading does not explain."""
    headings = {str(budget) for budget in frame[BUDGET]}
    told = [
        text
        for start, text in notes.BUDGETS.items()
        if any(heading.startswith(f"{start} ") for heading in headings)
    ]
    return f"{'; '.join(told)}." if told else ""


def _headline_values(points: pd.DataFrame, n: int) -> str:
    """Mean and interval over the points that finished, and how many of `n` did if not all."""
    if points.empty:
        return NO_VALUE
    text = measured(points["metric"].iloc[0], points["value"].astype(float))
    finished = int((points[OUTCOME] == TrialOutcome.FINISHED).sum())
    if 0 < finished < n:
        text += f" ({finished} of {n})"
    failed = Counter(points.loc[points[OUTCOME] != TrialOutcome.FINISHED, OUTCOME])
    return ", ".join([text, *(f"{count} {name}" for name, count in failed.items())])

"""The main table of a report, narrow enough to read at a glance, and the details behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from nodebench.errors import TrialOutcome
from nodebench.report.analysis import frames, published
from nodebench.report.analysis.columns import CELL, OUTCOME, TIMED_SECONDS, TRIAL
from nodebench.report.analysis.formatting import (
    NO_VALUE,
    count_and_interval,
    mean_and_interval,
    measured,
    measured_difference,
    three_digits_and_interval,
    unit,
    whole,
)
from nodebench.report.analysis.statistics import column
from nodebench.report.analysis.verdict import VerdictWord
from nodebench.report.markdown import markdown_table
from nodebench.report.tables import CONFIGURATION, cells, megabytes, three_digits
from nodebench.spec.training import REGULARIZER_TERMS
from nodebench.sweep import Sweep

MOST_COLUMNS, WIDEST = 8, 100
"""Limits of the main table: columns, and characters per line of Markdown."""

MOST_SETTINGS = 4
"""Up to this many varying settings have a column each; otherwise one column has the label."""

NFE, N, PARAMETERS, DROP, IS_ODE, SECONDS = "NFE", "n", "parameters", "drop", "ODE?", "s/epoch"
HARDWARE = "hardware"
LEAVES_IF_CONSTANT = (N, NFE, PARAMETERS)


@dataclass(frozen=True)
class ResultTables:
    """One row per configuration, aggregated over seeds, as text.

    `main` has the settings that vary, the headline metric, and as many columns of verdicts and
    costs as fit. `constant` has the values that its rows share. `details` has everything else.
    """

    main: pd.DataFrame
    constant: dict[str, str]
    details: pd.DataFrame


def result_tables(
    sweep: Sweep, frame: pd.DataFrame, judged: pd.DataFrame, timed: pd.DataFrame
) -> ResultTables:
    """The main table and its details.

    Metrics and costs are means ± half their 95 % confidence intervals over the seeds that finished.
    Seconds per epoch are those of the timing pass, or of training if there was none.
    """
    groups = cells(sweep, frame)
    done = [group[group[OUTCOME] == TrialOutcome.FINISHED] for _, group in groups]
    settings = pd.DataFrame([key for key, _ in groups])
    labels = pd.DataFrame({CONFIGURATION: [group[CELL].iloc[0] for _, group in groups]})
    outcomes = pd.DataFrame([_outcome_columns(group) for _, group in groups])
    shown = [_result_columns(sweep, each, judged, timed) for each in done]
    results = pd.DataFrame(shown)
    results.insert(1, N, outcomes[N])
    if HARDWARE in frame and frame[HARDWARE].nunique() > 1:
        results[HARDWARE] = [_hardware(each) for each in done]
    constant = _constant(results)
    named = labels if len(settings.columns) > MOST_SETTINGS else settings
    main = _fitted(named, results.drop(columns=list(constant)))
    details = pd.DataFrame(
        [_detail_columns(sweep, *each, timed) for each in zip(done, shown, strict=True)]
    )
    details.insert(0, "published", _published(sweep, done))
    details = details.join(results[[HARDWARE]]) if HARDWARE in results else details
    details = _informative(details.assign(outcomes=outcomes["outcomes"]), main)
    return ResultTables(main, constant, labels.join(details) if len(details.columns) else details)


def _hardware(done: pd.DataFrame) -> str:
    """The hardware that the trials of a configuration ran on."""
    return ", ".join(sorted(set(done[HARDWARE].dropna()))) or NO_VALUE


def _constant(results: pd.DataFrame) -> dict[str, str]:
    """The counts that all rows share; empty if there is only one row."""
    if len(results) < 2:
        return {}
    return {
        name: str(results[name].iloc[0])
        for name in LEAVES_IF_CONSTANT
        if name in results and results[name].nunique() == 1 and results[name].iloc[0] != NO_VALUE
    }


def _fitted(named: pd.DataFrame, results: pd.DataFrame) -> pd.DataFrame:
    """The settings, the headline metric, and as many of the other results as fit."""
    results = results.drop(columns=_empty(results.iloc[:, 1:]))
    while True:
        table = named.join(results)
        lines = markdown_table(table).splitlines()
        is_narrow = len(table.columns) <= MOST_COLUMNS and len(lines[0]) <= WIDEST
        if is_narrow or len(results.columns) == 1:
            return table
        results = results.drop(columns=_least_important(results))


def _least_important(results: pd.DataFrame) -> str:
    """The least important column other than the headline metric.

    Seconds that are not comparable, marked ‡, are less important than evaluations.
    """
    names = list(results.columns[1:])
    doubtful = [name for name in names if name.startswith(SECONDS) and name.endswith("‡")]
    order = (PARAMETERS, *doubtful, HARDWARE, NFE, SECONDS, DROP, N, IS_ODE)
    return next(name for first in order for name in names if name.startswith(first))


def _empty(table: pd.DataFrame) -> list[str]:
    return [name for name in table.columns if (table[name] == NO_VALUE).all()]


def _informative(details: pd.DataFrame, main: pd.DataFrame) -> pd.DataFrame:
    """Drops columns that are empty, in the main table, or the same in all of several rows."""
    known = [*_empty(details), *(name for name in details if name in main)]
    constant = [n for n in details if len(details) > 1 and details[n].nunique() == 1]
    finished = ["outcomes"] if (details["outcomes"] == TrialOutcome.FINISHED).all() else []
    return details.drop(columns=list({*known, *constant, *finished}))


def _result_columns(
    sweep: Sweep, done: pd.DataFrame, judged: pd.DataFrame, timed: pd.DataFrame
) -> dict[str, str]:
    """Heading -> text for the columns that the main table may have, the headline first."""
    headline = f"{str(sweep.metric).replace('_', ' ')}{unit(sweep.metric)}"
    seconds = seconds_columns(done, timed)
    first = next(iter(seconds))
    return {
        headline: measured(sweep.metric, column(done, sweep.headline)),
        **_verdict_columns(judged, done[TRIAL]),
        first: seconds[first],
        NFE: count_and_interval(column(done, "nfe_forward")),
        PARAMETERS: whole(column(done, "parameters")),
    }


def _detail_columns(
    sweep: Sweep, done: pd.DataFrame, shown: Mapping[str, str], timed: pd.DataFrame
) -> dict[str, str]:
    """Heading -> text for all columns, including those that the main table may have."""
    metric = sweep.metric
    name = f"{str(metric).replace('_', ' ')}{unit(metric)}"
    return {
        f"validation {name}": measured(metric, column(done, f"val_{metric}")),
        f"train {name}": measured(metric, column(done, f"train_{metric}")),
        f"best epoch {name} †": measured(metric, column(done, f"best_test_{metric}")),
        **shown,
        **seconds_columns(done, timed),
        "MB/step": megabytes(column(done, "step_memory_bytes")),
        "NFE backward": count_and_interval(column(done, "nfe_backward")),
        **_regularizer_columns(done),
        **_adaptation_columns(done),
    }


def _published(sweep: Sweep, done: Sequence[pd.DataFrame]) -> list[str]:
    """The published accuracies of each configuration that has a finished trial."""
    specs = {trial.id: trial.spec for trial in sweep.trials}
    firsts = [specs[each[TRIAL].iloc[0]] if len(each) else None for each in done]
    texts = ("" if spec is None else published.published_text(sweep.name, spec) for spec in firsts)
    return [text or NO_VALUE for text in texts]


def _verdict_columns(judged: pd.DataFrame, ids: pd.Series[str]) -> dict[str, str]:
    """The drop under a finer solver, and whether the models of a configuration are ODEs."""
    if judged.empty:
        return {}
    metric, found = judged["metric"].iloc[0], judged[judged[TRIAL].isin(ids)]
    heading = f"{DROP}{unit(metric)}"
    if found.empty:  # keeps the columns in their place
        return {heading: NO_VALUE, IS_ODE: NO_VALUE}
    drop = measured_difference(metric, found["drop"].astype(float))
    return {heading: drop, IS_ODE: _is_ode_text(found["verdict"])}


def _is_ode_text(verdicts: pd.Series[str]) -> str:
    """`yes`, `no` or `undecided` if all seeds agree; otherwise counts of ODEs and undecided."""
    words = {
        VerdictWord.ODE.value: "yes",
        VerdictWord.RESNET.value: "no",
        VerdictWord.UNDECIDED.value: "undecided",
    }
    counts = Counter(words[verdict] for verdict in verdicts)
    if len(counts) == 1:
        return next(iter(counts))
    undecided = f", {counts['undecided']} undecided" if counts["undecided"] else ""
    return f"{counts['yes']} of {len(verdicts)}{undecided}"


def seconds_columns(done: pd.DataFrame, timed: pd.DataFrame) -> dict[str, str]:
    """Seconds per epoch from the timing pass, by kind of machine; otherwise from training."""
    if timed.empty:
        return {f"{SECONDS} ‡": mean_and_interval(column(done, "epoch_s"), 2)}
    found = timed[timed[TRIAL].isin(done[TRIAL])]
    machines = list(dict.fromkeys(timed["machine"]))
    where = {machine: f" on {machine}" if len(machines) > 1 else "" for machine in machines}
    mark = " ‡" if frames.timed_busy(timed) else ""
    seconds = {m: found.loc[found["machine"] == m, TIMED_SECONDS] for m in machines}
    return {
        f"{SECONDS}{where[m]}{mark}": three_digits(values.median()) if len(values) else NO_VALUE
        for m, values in seconds.items()
    }


def _regularizer_columns(done: pd.DataFrame) -> dict[str, str]:
    """Each regularizer's unweighted term in the last epoch, and the evaluations of all of them."""
    return {
        "NFE for regularizers": count_and_interval(column(done, "nfe_regularization")),
        **{
            f"{name.replace('_', ' ')} term": three_digits_and_interval(
                column(done, f"regularizer_{name}")
            )
            for name in REGULARIZER_TERMS
        },
    }


def _adaptation_columns(done: pd.DataFrame) -> dict[str, str]:
    """The final state of an adapted solver, and its evaluations over the whole training."""
    adapted = done.dropna(subset=["nfe_adaptation"]) if "nfe_adaptation" in done else done[:0]
    at_limit = int(column(adapted, "at_step_limit").fillna(0).sum())
    note = f", {at_limit} at the limit" if at_limit else ""
    return {
        "NFE over training": mean_and_interval(column(adapted, "nfe_forward_mean"), 1),
        "final step size": mean_and_interval(column(adapted, "step_size"), 4) + note,
        "final tol": ", ".join(f"{tol:.2g}" for tol in column(adapted, "tol").dropna()) or NO_VALUE,
    }


def _outcome_columns(group: pd.DataFrame) -> dict[str, str]:
    counts: Sequence[tuple[str, int]] = list(Counter(group["ending"]).items())
    finished, total = int((group[OUTCOME] == TrialOutcome.FINISHED).sum()), len(group)
    return {
        N: f"{finished}" if finished == total else f"{finished} of {total}",
        "outcomes": TrialOutcome.FINISHED
        if finished == total
        else ", ".join(f"{count} {ending}" for ending, count in counts),
    }

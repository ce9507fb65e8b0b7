"""Machines: the hardware that trials ran on, and merged runs of the same trials elsewhere."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import Any

import pandas as pd

from nodebench.errors import TrialOutcome
from nodebench.report import notes
from nodebench.report.analysis.columns import CELL, MISSING, OUTCOME, TRIAL
from nodebench.report.analysis.formatting import margin_text, mean_and_interval, measured, unit
from nodebench.report.analysis.statistics import Untested, paired
from nodebench.report.markdown import Section, bold, bullets
from nodebench.report.tables import CONFIGURATION, cell_text
from nodebench.store import Result, Store
from nodebench.store.rows import machine_text
from nodebench.sweep import Sweep

MACHINES_TITLE = "The same trial on other machines"

HERE, THERE = "here", "there"
MACHINE = "machine"


class MachineAgreement(StrEnum):
    """Whether the trials of a configuration agree on two machines."""

    IDENTICAL = "identical"
    YES = "yes"
    NO = "no"
    UNCERTAIN = "too uncertain to say"
    ALIKE = Untested.ALIKE.value
    TOO_FEW = Untested.TOO_FEW.value

    @property
    def text(self) -> str:
        """The words after a count in a sentence: `3 agreeing and 1 too uncertain to say`."""
        return AGREEMENT_IN_A_SENTENCE[self]


AGREEMENT_IN_A_SENTENCE = {
    MachineAgreement.IDENTICAL: "identical",
    MachineAgreement.YES: "agreeing",
    MachineAgreement.NO: "differing",
    MachineAgreement.UNCERTAIN: "too uncertain to say",
    MachineAgreement.ALIKE: "with the same difference in every pair (not tested)",
    MachineAgreement.TOO_FEW: "with too few seeds",
}


def machine_frame(sweep: Sweep, store: Store) -> pd.DataFrame:
    """One row per trial and other machine: the headline metric and seconds, here and there.

    Columns: `trial_id`, `cell`, `seed`, `machine` (hardware, threads and torch there), `outcome_*`,
    `<headline>_*` and `epoch_s_*`, with `here` or `there` for `*`.
    """
    rows: list[dict[str, Any]] = []
    found = store.results(trial.id for trial in sweep.trials)
    for trial in sweep.trials:
        if (ours := found.get(trial.id)) is None:
            continue
        for theirs in store.folder(trial.id).elsewhere():
            row: dict[str, Any] = {
                TRIAL: trial.id,
                CELL: sweep.cell_label(trial),
                "seed": trial.spec.seed,
                MACHINE: _machine(theirs),
                "machine_here": _machine(ours),
            }
            for place, result in ((HERE, ours), (THERE, theirs)):
                row |= {f"outcome_{place}": str(result.outcome)}
                for name in (trial.spec.data.headline, "epoch_s"):
                    row[f"{name}_{place}"] = result.summary.get(name)
            rows.append(row)
    return pd.DataFrame(rows)


def _machine(result: Result) -> str:
    """The machine of a run, as far as seconds depend on it."""
    return machine_text(result.environments[-1] if result.environments else {})


def machines_note(sweep: Sweep) -> str:
    """How to read the table."""
    return notes.MACHINES.format(margin=margin_text(sweep.metric, sweep.margin))


def machines_table(sweep: Sweep, frame: pd.DataFrame) -> pd.DataFrame:
    """One row per configuration and other machine, as text.

    `agree?` compares the headline metric of the trials that finished on both.
    """
    metric = f"{str(sweep.metric).replace('_', ' ')}{unit(sweep.metric)}"
    rows = []
    for (cell, machine), group in frame.groupby([CELL, MACHINE], sort=False) if len(frame) else ():
        both = finished_on_both(group)
        rows.append(
            {
                CONFIGURATION: cell,
                "other machine": machine,
                "n": str(len(both)),
                f"{metric} here": measured(sweep.metric, _numbers(both, sweep.headline, HERE)),
                f"{metric} there": measured(sweep.metric, _numbers(both, sweep.headline, THERE)),
                "agree?": agreement_text(sweep, group),
                "s/epoch here": mean_and_interval(_numbers(both, "epoch_s", HERE), 2),
                "s/epoch there": mean_and_interval(_numbers(both, "epoch_s", THERE), 2),
            }
        )
    return pd.DataFrame(rows)


def finished_on_both(group: pd.DataFrame) -> pd.DataFrame:
    """The trials that finished both here and there; the last one of several runs there."""
    is_here, is_there = (
        group[f"outcome_{place}"] == TrialOutcome.FINISHED for place in (HERE, THERE)
    )
    return group[is_here & is_there].drop_duplicates(TRIAL, keep="last")


def machine_agreement(sweep: Sweep, group: pd.DataFrame) -> MachineAgreement:
    """Whether the finished trials of a configuration agree on two machines.

    They agree if the whole 95 % interval of the difference, paired by seed, lies within the sweep's
    margin. They disagree if it excludes zero and reaches beyond the margin. An interval that
    contains zero only because it is wide decides nothing. Differences that are not tested against
    the baseline are not tested here either.
    """
    both = finished_on_both(group).set_index("seed")
    here, there = (_numbers(both, sweep.headline, place) for place in (HERE, THERE))
    difference = paired(there, here)
    if difference is None:
        return MachineAgreement.TOO_FEW
    if difference.is_none:
        return MachineAgreement.IDENTICAL
    if difference.untested:
        return MachineAgreement(difference.untested.value)
    low, high = difference.low, difference.high
    if -sweep.margin <= low and high <= sweep.margin:
        return MachineAgreement.YES
    return MachineAgreement.NO if low > 0 or high < 0 else MachineAgreement.UNCERTAIN


def agreement_text(sweep: Sweep, group: pd.DataFrame) -> str:
    """The agreement, and how many trials had different outcomes on the two machines."""
    other = int((group[f"outcome_{HERE}"] != group[f"outcome_{THERE}"]).sum())
    word = str(machine_agreement(sweep, group))
    return f"{word}; {other} with another outcome" if other else word


def _numbers(frame: pd.DataFrame, name: str, place: str) -> pd.Series[float]:
    return pd.to_numeric(frame[f"{name}_{place}"], errors="coerce")


def provenance(results: pd.DataFrame) -> Section:
    """The code, hardware and versions of the trials; several values if they differ."""
    ran = results[results[OUTCOME] != MISSING]
    if {"commit", "dirty"} <= {*ran.columns}:
        changed = ran["dirty"].map({"yes": " (with uncommitted changes)"}).fillna("")
        ran = ran.assign(commit=ran["commit"] + changed)
    facts = {
        "commit": "commit",
        "hardware": "hardware",
        "device": "device",
        "threads per trial": "threads",
        "seeds packed into one run": "packed",
        "torch": "torch",
        "numba": "numba",
        "torchdiffeq": "torchdiffeq",
        "python": "python",
        "nodebench": "nodebench",
    }
    lines = [
        f"{label}: {', '.join(sorted({cell_text(v) for v in ran[column].dropna()}))}"
        for label, column in facts.items()
        if column in ran and ran[column].notna().any()
    ]
    if "started" in ran and len(ran):
        first, last = _day(ran["started"].min()), _day(ran["finished"].max())
        lines.append(f"trained: {first}" + (f" to {last}" if last != first else ""))
    if "environments" in ran and (ran["environments"] > 1).any():
        mixed = ", ".join(ran.loc[ran["environments"] > 1, TRIAL])
        lines.append(f"{bold('resumed under other versions, threads or hardware:')} {mixed}")
    return Section("Provenance", [bullets(lines)])


def _day(stamp: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(stamp))

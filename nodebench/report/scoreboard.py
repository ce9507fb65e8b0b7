"""Every published number and claim of the studies, and what the committed reports found."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from nodebench.errors import InputError
from nodebench.planning.lookup import load_sweep
from nodebench.report.analysis.agreement import PublishedReading
from nodebench.report.analysis.claims import Judgement, asked_text, checked_claim
from nodebench.report.analysis.columns import TIMED_SECONDS, TRIAL, read_results
from nodebench.report.analysis.formatting import NO_VALUE
from nodebench.report.analysis.published import (
    Compared,
    PublishedNumber,
    compared_numbers,
    published_table,
    studies,
    why_not_comparable,
)
from nodebench.report.analysis.sizes import caveat
from nodebench.report.markdown import escaped
from nodebench.sweep import Sweep
from nodebench.sweep.compose import sizes_of
from nodebench.sweep.file import Claim, SizeName
from nodebench.sweep.partial_cells import agrees


class LineVerdict(StrEnum):
    """The verdict on a published number or claim."""

    MATCHES = "matches"
    DIFFERS = "differs"
    UNDECIDED = "undecided"
    NOT_COMPARABLE = "not comparable"
    NOT_RUN = "not run"


VERDICT_OF_READING = {
    PublishedReading.MATCHES: LineVerdict.MATCHES,
    PublishedReading.DIFFERS: LineVerdict.DIFFERS,
}
VERDICT_OF_JUDGEMENT = {
    Judgement.HOLDS: LineVerdict.MATCHES,
    Judgement.FAILS: LineVerdict.DIFFERS,
    Judgement.UNDECIDED: LineVerdict.UNDECIDED,
    Judgement.NOT_RUN: LineVerdict.NOT_RUN,
}

OPENING_OF_SCOREBOARD = """\
# Scoreboard

Every published number and every published claim that a sweep reproduces, next to the result in this
folder's reports. If several sizes of a sweep have run, the largest one counts. A small form decides
only parameter counts. For a medium form, the settings that differ from the study's are named.
`nodebench scoreboard` writes this page from the sweep files and the `results.csv` of each report;
[docs/reports.md](../docs/reports.md#the-scoreboard) explains it, and
[docs/studies.md](../docs/studies.md) lists the studies."""


@dataclass(frozen=True)
class Line:
    """A published number or claim: its sweep and source, our result, and the report that has it."""

    sweep: str
    what: str
    theirs: str
    source: str
    ours: str = NO_VALUE
    size: str = NO_VALUE
    verdict: LineVerdict = LineVerdict.NOT_RUN
    why: str = ""


class Found(NamedTuple):
    """The result of a report on a number or a claim."""

    ours: str
    verdict: LineVerdict
    why: str


@dataclass(frozen=True)
class ScoredReport:
    """The content of a report's folder: the sweep as it ran, and the table of its trials."""

    sweep: Sweep
    results: pd.DataFrame

    @cached_property
    def compared(self) -> list[Compared]:
        """The published numbers, compared with the report's table."""
        judged = self.results if "limit" in self.results else pd.DataFrame()
        return compared_numbers(self.sweep, self.results, judged)

    @property
    def link(self) -> str:
        """The sweep's size, as a link to the report's page."""
        return f"[{self.sweep.made.size}]({self.sweep.name}/README.md)"


@dataclass(frozen=True)
class ScoredStudy:
    """A sweep file in all its sizes, and the reports on them, the largest first."""

    sizes: dict[SizeName, Sweep]
    reports: list[ScoredReport]

    @property
    def full(self) -> Sweep:
        """The sweep in its full size."""
        return self.sizes["full"]

    def needs(self, cell: Mapping[str, Any]) -> str:
        """The command that would run a cell: in the medium size if that has it, or the full one."""
        medium = self.sizes.get("medium")
        if medium and any(agrees(trial.spec, cell) for trial in medium.trials):
            return f"needs `make {medium.made.size}-{self.full.name}`"
        where = " on a GPU" if self.full.resources.gpus else ""
        return f"needs `make sweep-{self.full.name}`{where}"


def scoreboard_page(sweeps: Path, reports: Path) -> str:
    """The page, in Markdown: a table for each study, and how often each verdict was reached.

    Raises:
        InputError: if there are no sweeps, or a sweep file or a report cannot be read.
    """
    files = sorted(sweeps.glob("*.yaml"))
    if not files:
        raise InputError(f"`{sweeps.absolute()}` has no sweep files to make a scoreboard of")
    lines: dict[str, list[Line]] = {}
    for file in files:
        study = _read_study(file, reports)
        name = re.search(r"\bS\d\b", study.full.about)
        lines.setdefault(name[0] if name else "Others", []).extend(_lines(study))
    tables = {name: _table(found) for name, found in sorted(lines.items()) if found}
    counts = pd.DataFrame(_counted(name, lines[name]) for name in tables)
    sections = [f"## {name}\n\n{_markdown(table)}" for name, table in tables.items()]
    return "\n\n".join([OPENING_OF_SCOREBOARD, _markdown(counts), *sections]) + "\n"


def _read_study(file: Path, reports: Path) -> ScoredStudy:
    sizes = {size: load_sweep(file, size=size) for size in sizes_of(file)}
    folders = [reports / sweep.name for sweep in sizes.values()]
    found = [_read_report(folder) for folder in folders if (folder / "results.csv").exists()]
    return ScoredStudy(sizes, [report for report in found if not report.results.empty])


def _read_report(folder: Path) -> ScoredReport:
    """A report, with only those trials in its table that its sweep still plans."""
    sweep = load_sweep(folder)
    table = read_results(folder / "results.csv")
    return ScoredReport(sweep, table[table[TRIAL].isin([trial.id for trial in sweep.trials])])


def _lines(study: ScoredStudy) -> Iterator[Line]:
    full = study.full
    if published := studies().get(full.name):
        for number in published.numbers:
            of_number = (t for t in full.trials if published.has(number, t.spec))
            if trial := next(of_number, None):  # a user's file may have fewer cells
                yield _number_line(number, full.cell_label(trial), study)
    for claim in full.claims:
        if claim.source:
            yield _claim_line(claim, study)


def _number_line(number: PublishedNumber, cell: str, study: ScoredStudy) -> Line:
    what, why = f"`{cell}`: {number.what}", number.obstacle or study.needs(number.cell)
    line = Line(study.full.name, what, str(number), number.source, why=why)
    if number.obstacle:
        line = replace(line, verdict=LineVerdict.NOT_COMPARABLE)
    for report in study.reports:
        if found := _compared(number, report):
            [row] = _records(published_table([found]))
            ours = Found(f"{row['ours']} (n = {row['n']})", _verdict(found), found.why)
            return _with_findings(line, report, ours, study.needs(number.cell))
    return line


def _verdict(found: Compared) -> LineVerdict:
    """The verdict on a number that was measured; undecided if another run could decide."""
    if found.entry.obstacle:
        return LineVerdict.NOT_COMPARABLE
    return VERDICT_OF_READING.get(found.reading, LineVerdict.UNDECIDED)


def _compared(number: PublishedNumber, report: ScoredReport) -> Compared | None:
    """A published number compared with a report's table, if it was measured there."""
    return next(
        (c for c in report.compared if c.entry == number and c.reading != PublishedReading.NOT_RUN),
        None,
    )


def _claim_line(claim: Claim, study: ScoredStudy) -> Line:
    why = study.needs(claim.of)
    if claim.metric == TIMED_SECONDS and study.reports:
        sweep = study.reports[0].sweep
        size = "" if sweep.made.size == "full" else f" --size {sweep.made.size}"
        why = f"needs `nodebench time {study.full.name}{size}`"
    line = Line(study.full.name, claim.says, asked_text(claim), claim.source, why=why)
    for report in study.reports:
        found = _found_of_claim(claim, report)
        if found.verdict is not LineVerdict.NOT_RUN:
            return _with_findings(line, report, found, study.needs(claim.of))
    return line


def _with_findings(line: Line, report: ScoredReport, found: Found, needs: str) -> Line:
    """A line with a report's result; if a small form left it undecided, also what would decide."""
    why = found.why
    if found.verdict is LineVerdict.UNDECIDED and report.sweep.made.size == "small":
        why = f"{why}; {needs}"
    return replace(line, ours=found.ours, size=report.link, verdict=found.verdict, why=why)


def _found_of_claim(claim: Claim, report: ScoredReport) -> Found:
    """The result of a report's table on a claim."""
    sweep = report.sweep
    found = checked_claim(claim, sweep, report.results)
    about_it = {t.id for t in sweep.trials for c in claim.cells.values() if agrees(t.spec, c)}
    verdict = VERDICT_OF_JUDGEMENT[found.judgement]
    why = ", ".join(filter(None, [str(found.basis), caveat(sweep, about_it)]))
    if verdict is not LineVerdict.NOT_RUN and (hindrance := why_not_comparable(sweep)):
        verdict, why = LineVerdict.UNDECIDED, hindrance
    return Found(found.numbers_text, verdict, why)


def _records(table: pd.DataFrame) -> list[dict[str, str]]:
    """The rows of a table of texts."""
    return [{str(name): str(text) for name, text in row.items()} for _, row in table.iterrows()]


def _table(lines: Sequence[Line]) -> pd.DataFrame:
    rows = []
    for line in lines:
        row, word = asdict(line), line.verdict.value
        word = f"**{word}**" if line.verdict is LineVerdict.DIFFERS else word
        del row["why"]
        rows.append({**row, "verdict": f"{word}: {line.why}" if line.why else word})
    return pd.DataFrame(rows)


def _counted(name: str, lines: Sequence[Line]) -> dict[str, str]:
    counts = Counter(line.verdict for line in lines)
    return {"study": name} | {verdict: str(counts[verdict]) for verdict in LineVerdict}


def _markdown(table: pd.DataFrame) -> str:
    """A table in Markdown without padding, since one long cell would widen every line."""
    rows = [["---"] * len(table.columns), *table.map(escaped).values.tolist()]
    return "\n".join(f"| {' | '.join(row)} |" for row in (list(table.columns), *rows))

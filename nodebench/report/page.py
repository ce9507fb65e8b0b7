"""The report page: Markdown that reads well as plain text and rendered."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from nodebench.errors import TrialOutcome, counted
from nodebench.files import write
from nodebench.report import gradient_tables, notes, solver_tables, step_tables, tables
from nodebench.report.analysis import frames, published, sizes
from nodebench.report.analysis.baseline import baseline_table, more_seeds_text
from nodebench.report.analysis.claims import Judgement, claims_table
from nodebench.report.analysis.columns import MISSING, OUTCOME, write_table
from nodebench.report.analysis.findings import Findings
from nodebench.report.analysis.formatting import margin_text
from nodebench.report.analysis.gradients import memory_by_steps
from nodebench.report.analysis.statistics import column
from nodebench.report.answer import AnswerLine, answer, listed
from nodebench.report.figures.drawing import Figures, draw_all
from nodebench.report.figures.style import Drawn
from nodebench.report.folder import shown_figures
from nodebench.report.html.data import Explored
from nodebench.report.html.document import write_page
from nodebench.report.html.trials import trials_table
from nodebench.report.machines import MACHINES_TITLE, machines_note, machines_table, provenance
from nodebench.report.markdown import (
    HtmlOnly,
    Section,
    all_rows_text,
    bold,
    bullets,
    joined,
    markdown_table,
    plain_text,
    table_parts,
    table_section,
)
from nodebench.report.result_tables import ResultTables, result_tables
from nodebench.store import Store
from nodebench.sweep import Sweep

SETTINGS_OF_A_REPORT = (
    "data.name",
    "data.train_size",
    "model.name",
    "solver.method",
    "solver.steps",
    "solver.step_size",
    "solver.tol",
    "gradient.name",
    "train.epochs",
    "train.iterations",
    "train.batch_size",
    "train.optimizer.name",
    "train.optimizer.lr",
    "train.schedule.name",
)


@dataclass(frozen=True)
class Report:
    """A report that was written."""

    page: Path

    answer: list[str]
    """The list that opens the page, as plain text."""

    undrawn: list[str]
    """The figures that are missing, and why."""


def write_report_folder(sweep: Sweep, store: Store, folder: Path) -> Report:
    """Writes the page, its figures and `sweep.yaml`.

    `report.html` is the same in one file, with sortable tables and charts. The data is next to it:
    `results.csv`, and `evaluations.csv`, `batches.csv`, `gradients.csv`, `timings.csv` and
    `machines.csv` unless they would be empty. If a figure cannot be drawn, the page names it and
    is written without it.
    """
    found = Findings(sweep, store)
    for name, frame in found.tables.items():  # `folder.FIRST` comes first
        write_table(name, frame, folder)
    write(folder / "sweep.yaml", sweep.text)
    page = folder / "README.md"
    shown_before = shown_figures(page)
    figures, explored = draw_all(found, store, folder / "figures"), Explored(found)
    lines = answer(found)
    sections = _sections(found, figures, explored, lines, folder)
    undrawn = [*figures.problems, *write_page(sections, folder, explored)]
    write(page, joined(section.for_markdown() for section in sections))
    # Only now, because the previous page showed them until it was replaced.
    figures.remove_others(shown_before)
    return Report(page, [plain_text(f"{what}: {text}") for what, text in lines], undrawn)


def draw_figures(
    sweep: Sweep, store: Store, folder: Path, on_problem: Callable[[str], None]
) -> dict[str, Path]:
    """Draws only the report's figures; returns name -> SVG."""
    figures = draw_all(Findings(sweep, store), store, folder)
    for problem in figures.problems:
        on_problem(problem)
    return {name: folder / f"{name}.svg" for name in figures.names}


def _sections(
    found: Findings,
    figures: Figures,
    explored: Explored,
    lines: Iterable[AnswerLine],
    folder: Path,
) -> list[Section]:
    sweep, results = found.sweep, found.results
    table = result_tables(sweep, results, found.judged, found.timed)
    opening = [
        *(f"# {sweep.name}", bold(sizes.opening(sweep)), sweep.about, _state(results)),
        *(listed(lines), markdown_table(table.main), _common(table.constant)),
        *explored.place("costs"),
        *_images(figures.frontier),
    ]
    return [
        Section("", opening),
        _trials_section(sweep, results),
        Section("Learned trajectories", _images(figures.trajectories)),
        table_section("Not finished", notes.NOT_FINISHED, tables.failures(sweep, results)),
        table_section("Details", "", table.details),
        _baseline_section(found),
        _claims_section(found, "Claims", notes.CLAIMS, has_source=True),
        _claims_section(found, "Expectations", notes.EXPECTATIONS, has_source=False),
        table_section(
            "Published numbers", notes.PUBLISHED_NUMBERS, published.published_table(found.published)
        ),
        _verdicts_section(sweep, found.judged, found.evaluated),
        Section("Trajectories in the plane", _images(figures.paths)),
        _robustness_section(found, figures, explored),
        *_curve_sections(figures, explored),
        Section("The solver over training", _images(figures.adaptation)),
        _gradients_section(found, figures, explored),
        _memory_section(sweep, found, figures),
        _steps_section(results),
        table_section(
            "Steps by test batch", notes.TEST_BATCHES, step_tables.batches_table(found.batches)
        ),
        _timings_section(found),
        table_section(MACHINES_TITLE, machines_note(sweep), machines_table(sweep, found.machines)),
        Section("Figures that failed", [bullets(" ".join(p.split()) for p in figures.problems)]),
        _setting(sweep),
        _notes(found, table, folder),
        provenance(results),
        _reproduce(folder),
    ]


def _common(constant: Mapping[str, str]) -> str:
    """The values that all rows of the main table have in common."""
    rest = "Each seed's numbers: [results.csv](results.csv). Terms and marks: [Notes](#notes)."
    return f"{all_rows_text(constant)} {rest}".strip()


def _trials_section(sweep: Sweep, results: pd.DataFrame) -> Section:
    table = markdown_table(trials_table(sweep, results))
    return Section("Trials", [HtmlOnly(notes.TRIALS_TABLE), HtmlOnly(table)])


def _baseline_section(found: Findings) -> Section:
    text = f"{notes.BASELINE} {more_seeds_text(found.compared)}".strip()
    return table_section("Against the baseline", text, baseline_table(found.sweep, found.compared))


def _claims_section(found: Findings, title: str, text: str, *, has_source: bool) -> Section:
    """The results of claims, or of expectations; those that do not hold are in bold."""
    checked = [each for each in found.checked if each.has_source is has_source]
    why = published.why_not_comparable(found.sweep) or sizes.caveat(found.sweep)
    doubt = " " + bold(f"The conditions are not those of the full sweep: {why}.") if why else ""
    results = [bold(c.text) if c.judgement is Judgement.FAILS else c.text for c in checked]
    return table_section(title, text + doubt, claims_table(checked).assign(result=results))


def _setting(sweep: Sweep) -> Section:
    """The settings that all trials share: the most important ones, and those that were set."""
    known = dict.fromkeys(
        (*SETTINGS_OF_A_REPORT, *(p for t in sweep.trials for p in t.cell.set_paths))
    )
    shared = {}
    for path in known:
        values = [trial.settings[path] for trial in sweep.trials if path in trial.settings]
        if values and len({str(value) for value in values}) == 1 and path not in sweep.varying:
            where = "" if len(values) == len(sweep.trials) else " (where applicable)"
            shared[path] = tables.cell_text(values[0]) + where
    limits = sweep.limits.model_dump(exclude_defaults=True, exclude_none=True)
    shared |= {f"limits.{name}": tables.cell_text(value) for name, value in limits.items()}
    seeds = sorted({trial.spec.seed for trial in sweep.trials})
    shared["seeds"] = ", ".join(map(str, seeds))
    lines = [f"{path}: {value}" for path, value in shared.items()]
    return Section("Shared settings", [bullets(lines)])


def _state(results: pd.DataFrame) -> str:
    counts = results[OUTCOME].value_counts()
    finished = int(counts.get(TrialOutcome.FINISHED, 0))
    if finished == len(results):
        return "The trial finished." if finished == 1 else f"All {finished} trials finished."
    rest = ", ".join(
        f"{count} {'not run yet' if name == MISSING else name}"
        for name, count in counts.items()
        if name != TrialOutcome.FINISHED
    )
    return bold(f"{finished} of {counted(len(results), 'trial')} finished; {rest}.")


def _notes(found: Findings, table: ResultTables, folder: Path) -> Section:
    """The terms and marks that the page uses, in one place."""
    metric = str(found.sweep.metric).replace("_", " ")
    headline = f"the test {metric} after the last epoch, by which configurations are compared."
    terms = {"headline metric": headline, **notes.NOTES}
    if found.judged.empty:
        terms = {
            term: text for term, text in terms.items() if term in ("headline metric", "±", "NFE")
        }
    else:
        columns = {*solver_tables.verdicts_table(found.sweep, found.judged)}
        terms |= {term: text for term, text in notes.VERDICT_TERMS.items() if term in columns}
    marks = [notes.BEST_EPOCH] if any("†" in str(name) for name in table.details) else []
    if found.timed.empty:
        marks.append(notes.AS_TRAINED)
        if (column(found.results, "epochs") == 1).any():
            marks[-1] += f" {notes.ONE_EPOCH}"
        if "packed" in found.results and (found.results["packed"] > 1).any():
            marks[-1] += f" {notes.PACKED}"
    elif frames.timed_busy(found.timed):
        marks.append(notes.TIMED_BUSY)
    is_in_clone = (folder / notes.METHODS_FILE).exists()
    methods = notes.METHODS_PAGE if is_in_clone else notes.METHODS_ELSEWHERE
    defined = [f"{bold(term)}: {text}" for term, text in terms.items()]
    return Section("Notes", [bullets([*defined, *marks, methods])])


def _curve_sections(figures: Figures, explored: Explored) -> list[Section]:
    """A section for each metric; the first also has the chart of all metrics."""
    sections: list[Section] = []
    for number, drawn in enumerate(figures.curves):
        chart = explored.place("epochs") if number == 0 else []
        sections.append(Section(drawn.caption, [*chart, *_images([drawn])]))
    return sections


def _verdicts_section(sweep: Sweep, judged: pd.DataFrame, evaluated: pd.DataFrame) -> Section:
    title = "Is it still an ODE?"
    if judged.empty:
        return Section(title, [])
    text = f"{notes.VERDICTS} The margin is {margin_text(sweep.metric, sweep.margin)}."
    own = evaluated[evaluated["own"]]
    sizes = own.get("samples", own["test_size"]).dropna().unique()  # older rows have no `samples`
    if len(sizes):
        text += f" Judged on {' or '.join(f'{size:g}' for size in sizes)} test samples."
    return table_section(title, text, solver_tables.verdicts_table(sweep, judged), once=("n",))


def _robustness_section(found: Findings, figures: Figures, explored: Explored) -> Section:
    title = "Under other solvers"
    if found.evaluated.empty:
        return Section(title, [])
    table = solver_tables.robustness_table(found.evaluated)
    text = f"{notes.OTHER_SOLVERS} {solver_tables.budgets_text(found.evaluated)}".strip()
    drawn = [*explored.place("solvers"), *_images(figures.under_other_solvers)]
    return Section(title, [text, *drawn, *table_parts(table, once=("n",))])


def _gradients_section(found: Findings, figures: Figures, explored: Explored) -> Section:
    """The costs of each gradient method if there are several, and every measured gradient."""
    title, every = "Which gradient to trust", solver_tables.gradients_table(found.gradients)
    if every.empty:
        return Section(title, [])
    by_way = gradient_tables.ways_table(found.costs)
    ways = [] if by_way.empty else [notes.WAYS, markdown_table(by_way)]
    drawn = [*explored.place("gradients"), *_images(figures.gradients)]
    parts = table_parts(every, once=("weights at", "solver", "budget", "gradient", "n"))
    return Section(title, [notes.GRADIENT_TABLE, *ways, *drawn, *parts])


def _memory_section(sweep: Sweep, found: Findings, figures: Figures) -> Section:
    table = gradient_tables.memory_table(memory_by_steps(sweep, found.results))
    section = table_section("Memory by the number of steps", notes.MEMORY_BY_STEPS, table)
    return Section(section.title, [*section.parts, *_images(figures.memory_by_steps)])


def _steps_section(results: pd.DataFrame) -> Section:
    table = step_tables.steps_table(results)
    is_per_sample = set(step_tables.OF_SAMPLES) & set(table)
    text = (
        f"{notes.TRAINING_STEPS} {notes.STEPS_PER_SAMPLE}"
        if is_per_sample
        else notes.TRAINING_STEPS
    )
    return table_section("Steps of adaptive solvers", text, table, once=("n",))


def _timings_section(found: Findings) -> Section:
    table, once = tables.timings_table(found.timed), ("machine", "rounds × steps")
    return table_section("Cost of a training step", notes.TIMINGS, table, once)


def _images(figures: Iterable[Drawn]) -> list[str]:
    """Figures, each with how to read it; the names of files are their alternative texts."""
    parts: list[str] = []
    for names, note, caption in figures:
        parts += [f"![{caption or name.replace('-', ' ')}](figures/{name}.svg)" for name in names]
        parts.append(note)
    return parts


def _reproduce(folder: Path) -> Section:
    here = Path.cwd()
    file = folder.resolve() / "sweep.yaml"
    shown = file.relative_to(here) if file.is_relative_to(here) else Path(file.name)
    text = (
        "[sweep.yaml](sweep.yaml) is the sweep as it ran; [results.csv](results.csv) has a row "
        "for every trial. Trials that are already in `runs/` are not trained again."
    )
    return Section("Reproduce", [text, f"    nodebench run {shlex.quote(shown.as_posix())}"])

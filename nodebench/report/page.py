"""The report page: Markdown that reads well as plain text and rendered."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from nodebench.atomic import write
from nodebench.report import frames, plots, solver_plots, tables
from nodebench.store import Store
from nodebench.sweep import Sweep
from nodebench.trial_folder import FINISHED
from nodebench.verdict import NUMBERS

NOTES = """\
Metrics and costs are mean ± sample standard deviation over the seeds that finished (n). A cell
of which nothing finished shows a dash. NFE is evaluations of the right-hand side per pass, summed
over ODE blocks, averaged over the last epoch.

† The best epoch is chosen by validation data, or where there are none by the test data, which
flatters; the headline is the last epoch.
‡ Median over epochs, measured while other trials may have shared the machine: not for comparing
speeds."""

SETTING = (
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

OTHER_SOLVERS = """\
The headline metric (accuracies in %) of the trained weights under other solvers: mean ± sample
standard deviation over n seeds, or over those said to have finished. NFE is what a forward pass
takes by plan, summed over ODE blocks; h is the step size in training."""

PUBLISHED = """\
Published numbers are those of the study at its full size and on its hardware; ~ marks one read off
a figure. The limit is the accuracy under the finest fixed-step solver that was evaluated."""

VERDICTS = """\
A model that loses more than a margin of its headline metric under a solver finer than that of its
training has learned its solver's error: it is a ResNet in disguise. The limit is classic RK4 with
128 steps, or a finer point if one was evaluated. The drop is what the worst of the finer solvers
loses. Sufficient steps are the fewest of the training method's, of those evaluated, from which on
the metric stays within the margin of the limit; the order is that method's observed order of
convergence on the trained field, over the training step size, a half and a quarter of it."""

PATHS = """\
States of some test samples in the plane, one colour a class, from dots to crosses: under the
training solver and at the limit, for cells from the largest to the smallest drop. Axes are linear
between -1 and 1, logarithmic beyond."""

STEPS_FIGURE = """\
Test metric over the number of steps. A ring marks the solver of the training."""

HEAT_MAP = """\
Rows: as what a model was trained. Columns: by what it was tested; h is the training step size."""

WORK_PRECISION = """\
Relative error of the ODE blocks' outputs against a fine reference in float64, by evaluations and by
seconds of a forward pass (measured while other trials may have shared the machine)."""

ADAPTATION = """\
The adapted solver by iteration, beside accuracy and evaluations: mean and standard deviation over
seeds."""

GRADIENTS = """\
Gradients of the loss with respect to all parameters, on 16 training samples, against backprop
through classic RK4 with 256 steps in float64: relative error (median over n seeds) and cosine, at
the start and at the end of training; evaluations, time and memory of one forward and backward
pass, measured once, while other trials may have shared the machine."""

TIMINGS = """\
One trial at a time, alone on its device, with the weights at its training's end: batch, forward,
backward, update, without tests and without an adaptation's own solves. Median over rounds, which
go over all cells in turn, and the quickest and the slowest round; an epoch is a step times the
batches. The load before is the number of processes that ran on the machine in the minute before,
which should be near 0."""

ROBUSTNESS_FIGURE = """\
The trained weights by the evaluations that a forward pass takes; the dashed line is at those of
training. Where a curve falls to the right of it, the network depends on its solver's error."""


def write_report(sweep: Sweep, store: Store, folder: Path) -> Path:
    """Writes the page, its figures and `sweep.yaml`; returns the page's path.

    Beside it stands the data: `results.csv`, and `evaluations.csv`, `gradients.csv` and
    `timings.csv` where there are any.
    """
    results = frames.results(sweep, store)
    shutil.rmtree(folder / "figures", ignore_errors=True)
    epochs = frames.epochs(sweep, store)
    captions = {} if epochs.empty else plots.curves(sweep, epochs, folder / "figures")
    write(folder / "sweep.yaml", sweep.text)
    evaluated = frames.evaluations(sweep, store)
    judged = frames.verdicts(sweep, store)
    gradients = frames.gradients(sweep, store)
    timed = frames.timings(sweep, store)
    data = {"evaluations": evaluated, "gradients": gradients, "timings": timed}
    for name, frame in ({"results": _with_verdicts(results, judged)} | data).items():
        if not frame.empty:
            write(folder / f"{name}.csv", frame.to_csv(index=False))
    sections = [
        f"# {sweep.name}",
        sweep.about,
        _setting(sweep),
        _state(results),
        _markdown(tables.summary(sweep, results, judged, timed)),
        NOTES if timed.empty else NOTES.partition("\n‡")[0],
        *_failures(sweep, results),
        *_trajectories(sweep, store, folder / "figures"),
        *(_figure(name, caption) for name, caption in captions.items()),
        *_adaptation(sweep, epochs, folder / "figures"),
        *_verdicts(sweep, judged),
        *_robustness(sweep, store, evaluated, judged, folder / "figures"),
        *_gradients(sweep, gradients),
        *_timings(sweep, timed),
        *_published(tables.published_numbers(sweep, results, judged)),
        _provenance(results),
        _reproduce(sweep),
    ]
    page = folder / "README.md"
    write(page, "\n\n".join(section for section in sections if section) + "\n")
    return page


def _with_verdicts(results: pd.DataFrame, judged: pd.DataFrame) -> pd.DataFrame:
    if judged.empty:
        return results
    numbers = judged[["trial", "verdict", *NUMBERS]].rename(columns={"trial": "id"})
    return results.merge(numbers, on="id", how="left")


def _setting(sweep: Sweep) -> str:
    """What all trials have in common, of what a reader wants to know first."""
    shared = {
        path: tables.shown(sweep.trials[0].settings[path])
        for path in SETTING
        if len({str(trial.settings.get(path)) for trial in sweep.trials}) == 1
        and path in sweep.trials[0].settings
    }
    seeds = sorted({trial.spec.seed for trial in sweep.trials})
    shared["seeds"] = ", ".join(map(str, seeds))
    return "Alike in all trials: " + "; ".join(f"{k} {v}" for k, v in shared.items()) + "."


def _state(results: pd.DataFrame) -> str:
    counts = results["outcome"].value_counts()
    finished = int(counts.get(FINISHED, 0))
    if finished == len(results):
        return f"All {finished} trials finished."
    rest = ", ".join(f"{count} {name}" for name, count in counts.items() if name != FINISHED)
    return f"**{finished} of {len(results)} trials finished; {rest}.**"


def _figure(name: str, caption: str) -> str:
    return f"## {caption} by epoch\n\n![{caption} by epoch](figures/{name}.svg)"


def _failures(sweep: Sweep, results: pd.DataFrame) -> list[str]:
    failed = tables.failures(sweep, results)
    return [] if failed.empty else ["## Not finished", _markdown(failed)]


def _trajectories(sweep: Sweep, store: Store, folder: Path) -> list[str]:
    drawn = plots.trajectories(frames.trajectories(sweep, store), folder)
    return [
        f"## Learned trajectories\n\n![Learned trajectories](figures/{name}.svg)\n\n"
        "Dots are the noisy observations, coloured by time; the line is the learned ODE, solved "
        "over the whole span from the true start."
        for name in drawn
    ]


def _adaptation(sweep: Sweep, epochs: pd.DataFrame, folder: Path) -> list[str]:
    drawn = plots.adaptation(sweep, epochs, folder)
    return [_image("The solver over training", drawn, ADAPTATION)] if drawn else []


def _verdicts(sweep: Sweep, judged: pd.DataFrame) -> list[str]:
    if judged.empty:
        return []
    title, margin = "## Is it still an ODE?", f"The margin here is {sweep.margin:g}."
    return [title, f"{VERDICTS} {margin}", _markdown(tables.verdicts(sweep, judged))]


def _robustness(
    sweep: Sweep, store: Store, evaluated: pd.DataFrame, judged: pd.DataFrame, folder: Path
) -> list[str]:
    paths = solver_plots.paths(frames.classified_paths(sweep, store), judged, folder)
    sections = [_image("Paths in the plane", paths, PATHS)] if paths else []
    if evaluated.empty:
        return sections
    sections += ["## Under other solvers", OTHER_SOLVERS]
    curves = frames.robustness_curves(evaluated)
    if not curves.empty:
        figures = (
            (solver_plots.robustness(sweep, curves, folder), ROBUSTNESS_FIGURE),
            (solver_plots.steps(sweep, curves, folder), STEPS_FIGURE),
            (solver_plots.heat_map(sweep, evaluated, folder), HEAT_MAP),
            (solver_plots.work_precision(curves, judged, folder), WORK_PRECISION),
        )
        sections += [_image("", names, text) for names, text in figures if names]
    return [*sections, _markdown(tables.robustness(sweep, evaluated))]


def _gradients(sweep: Sweep, measured: pd.DataFrame) -> list[str]:
    if measured.empty:
        return []
    return ["## Which gradient to trust", GRADIENTS, _markdown(tables.gradients(sweep, measured))]


def _timings(sweep: Sweep, timed: pd.DataFrame) -> list[str]:
    if timed.empty:
        return []
    return ["## What a training step takes", TIMINGS, _markdown(tables.timings(sweep, timed))]


def _image(title: str, names: Sequence[str], text: str) -> str:
    """Figures with what there is to see in them, under a heading if there is one."""
    heading = [f"## {title}"] if title else []
    images = [f"![{name.replace('-', ' ')}](figures/{name}.svg)" for name in names]
    return "\n\n".join([*heading, *images, text])


def _published(table: pd.DataFrame) -> list[str]:
    return [] if table.empty else ["## Ours beside published numbers", PUBLISHED, _markdown(table)]


def _provenance(results: pd.DataFrame) -> str:
    """What the trials ran on; several values in a line mean that they differ."""
    ran = results[results["outcome"] != "missing"]
    facts = {
        "commit": "commit",
        "uncommitted changes": "dirty",
        "hardware": "hardware",
        "device": "device",
        "threads per trial": "threads",
        "seeds trained together": "packed",
        "torch": "torch",
        "torchdiffeq": "torchdiffeq",
        "python": "python",
        "nodebench": "nodebench",
    }
    lines = [
        f"- {label}: {', '.join(sorted({tables.shown(v) for v in ran[column].dropna()}))}"
        for label, column in facts.items()
        if column in ran and ran[column].notna().any()
    ]
    if "started" in ran and len(ran):
        first, last = _day(ran["started"].min()), _day(ran["finished"].max())
        lines.append(f"- trained: {first}" + (f" to {last}" if last != first else ""))
    if "environments" in ran and (ran["environments"] > 1).any():
        mixed = ", ".join(ran.loc[ran["environments"] > 1, "id"])
        lines.append(f"- **resumed under other versions, threads or hardware:** {mixed}")
    return "\n".join(["## Provenance\n", *lines])


def _day(stamp: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(stamp))


def _reproduce(sweep: Sweep) -> str:
    return (
        "## Reproduce\n\n"
        "The sweep as it ran is in [sweep.yaml](sweep.yaml), every trial in "
        f"[results.csv](results.csv).\n\n    nodebench run reports/{sweep.name}/sweep.yaml"
    )


def _markdown(table: pd.DataFrame) -> str:
    numeric = ["right" if _is_numeric(table[column]) else "left" for column in table]
    text: str = table.to_markdown(index=False, disable_numparse=True, colalign=numeric)
    return text


def _is_numeric(column: pd.Series[str]) -> bool:
    return bool(column.str.fullmatch(r"[\d.,±– -]+( of \d+| \(\d+ of \d+\))?").all())

"""The prose of a report: a line or two for each section, and the notes at its end."""

from __future__ import annotations

from nodebench.report.analysis.pareto import DURING_TRAINING, ON_A_BUSY_MACHINE
from nodebench.report.analysis.statistics import FEWEST_SEEDS

NOTES = {
    "±": "half the width of the 95 % confidence interval of the mean over n seeds (Student's t). "
    "An interval that would reach beyond what is possible, such as an accuracy above 100 %, is cut "
    "there and written out: `93.50 [84.10, 100]`. Of two seeds, both values follow the mean, "
    "`93.50 (92.00, 95.00)`, and figures draw a line between them: their interval would be 12.7 "
    "times as long as their distance. A single seed has no interval, nor have seeds that all gave "
    "the same value (`all equal`). A dash means no value: no trial finished, or the column does "
    "not apply.",
    "NFE": "number of function evaluations: calls of the ODE's right-hand side per forward pass "
    "(`NFE backward`: per backward pass), summed over ODE blocks and averaged over the last "
    "epoch.",
    "drop": "how much worse the headline metric is under the worst solver finer than the training "
    "solver. If the drop is negative, the metric improves under all finer solvers.",
    "limit": "the headline metric under the finest solver that was evaluated, at least as fine as "
    "classic RK4 with 128 steps.",
    "ODE?": "`no` means that the drop exceeds the margin: the network has learned its solver's "
    "error and is a ResNet in disguise (Ott et al. 2021). `2 of 3` means that two of "
    "three seeds are still ODEs; undecided ones are counted separately.",
}
"""Term -> its definition, in every report that uses it."""

AS_TRAINED = """\
‡ seconds per epoch: the median over all epochs but the first, measured while other trials may have
shared the machine. Do not compare them; `nodebench time` measures comparable seconds."""

ONE_EPOCH = """\
A training of one epoch has only the first, which includes compilation and warm-up."""

PACKED = """\
Where seeds were packed into one run (column `packed` of results.csv), a trial's seconds are
those of the whole pack."""

TIMED_BUSY = """\
‡ seconds per epoch: timed one trial at a time, but on a machine that was not idle (see the load
in [Cost of a training step](#cost-of-a-training-step))."""

BEST_EPOCH = """\
† at the epoch with the best validation metric or, without validation data, with the best test
metric, which is optimistic. The headline metric is that of the last epoch."""

METHODS_FILE = "../../docs/reports.md"
METHODS_PAGE = f"""\
How each number is computed: [docs/reports.md]({METHODS_FILE})."""
METHODS_ELSEWHERE = """\
How each number is computed: the page *Reading a report* of nodebench's documentation."""
"""For reports outside a clone, where the link would not lead to the page."""

NOT_FINISHED = """\
A DNF (did not finish) is a result, which `nodebench run --retry-failed` repeats. An `error` is a
crash: `nodebench logs TRIAL` prints its traceback, and `nodebench run` repeats the trial."""

BASELINE = """\
Each configuration minus its baseline, paired by seed. The two differ only in the settings that
define the baseline and in settings that only one of them has. A difference is clear if p < 0.05
after Holm-Bonferroni correction; "no clear difference" does not mean that there is none."""

CLAIMS = """\
Claims from the sources that the table names. A claim is reproduced if it holds in every
configuration that it concerns and, with several seeds, by at least half the 95 % interval. It is
not reproduced if it fails in one of them by as much; with several configurations, these intervals
are wider (Bonferroni)."""

EXPECTATIONS = """\
Expectations of the sweep's author, without a published source. They are judged like claims."""

PUBLISHED_NUMBERS = """\
The study's numbers are those of its full size and its hardware; ~ marks one that was read off a
figure. Ours *match* if the whole 95 % interval of the difference lies within the margin, and
*differ* if it excludes zero."""

FRONTIER = """\
Each point is {mean}. Circled and connected: the Pareto front (no other configuration is at least as
good at the same or a lower cost)."""

FRONTIERS = """\
Each data set has its own panels and its own front: metrics on different data are not comparable."""

WITHOUT_EVALUATIONS = """\
Networks without an ODE have no evaluations."""

NO_FRONT = {
    DURING_TRAINING: """\
No front is drawn against seconds measured during training, because trials may have shared the
machine.""",
    ON_A_BUSY_MACHINE: """\
No front is drawn against seconds timed on a machine that was not idle.""",
}
"""How seconds were measured -> why they give no front."""

VERDICTS = """\
A network that loses more than the margin under a finer solver is a ResNet in disguise."""

VERDICT_TERMS = {
    "sufficient steps": "the smallest evaluated number of steps of the training method from which "
    "the headline metric stays within the margin of the limit. One number if all seeds agree, "
    "otherwise one per seed. None suffices for a network that loses more than the margin or is not "
    "clearly better than chance.",
    "order": "`1.99 of 4` means that the training method converges with order 1.99 on the learned "
    "vector field and with order 4 on smooth ones. If the first is far lower, the training steps "
    "do not resolve the vector field.",
}

OTHER_SOLVERS = """\
The headline metric of the trained weights under other solvers."""

BUDGETS = {
    "NFE": "`NFE 32` allows 32 evaluations per forward pass",
    "h": "`h × 1` is the training step size and `h × 0.5` half of it",
    "tol ×": "`tol × 0.1` is a tenth of the training tolerance",
}
"""The beginning of a test solver's budget -> an example of what it means."""

PATHS_FIGURE = """\
Trajectories of some test samples in the plane, one colour per class, from dot to cross: under
the training solver (left) and at the limit (right). If states exceed 20, axes that reach beyond 1
are linear between -1 and 1 and logarithmic beyond."""

STEPS_FIGURE = """\
Mean test metric over seeds against the number of steps. A circle marks the training solver."""

HEAT_MAP = """\
Rows: configurations, means over seeds. Columns: test solvers. A blank field was not evaluated, or
its solve failed."""

WORK_PRECISION = """\
Error of the ODE blocks' outputs relative to a fine float64 reference, against the evaluations
and the seconds per forward pass (other trials may have shared the machine)."""

ADAPTATION = """\
The adapted solver by iteration, with accuracy and evaluations. Each line is {mean}."""

TRAJECTORIES = """\
Dots are the noisy observations, coloured by time. The line is the learned ODE, solved over the
whole span from the true start."""

GRADIENT_TABLE = """\
Gradients on 16 training samples, of the loss with respect to all parameters (dL/dθ) and to the
initial states of the ODE blocks (dL/dy0), compared with those of the ODE itself: relative errors
(median over n seeds), the distance from backprop's gradient through the same solve, and the cost
of one forward and backward pass (other trials may have shared the machine). A dash means that an
error cannot be distinguished from the reference's own."""

WAYS = """\
A gradient is *exact* if it is within 1e-5 of backprop's through every solve with fixed steps or,
if there are none, with adaptive steps. No gradient differentiates the choice of adaptive steps, but
rounding changes these steps, and so the gradient.
Errors are those of dL/dθ against the ODE; for an exact gradient, they are the solver's. Memory
and seconds are medians of the ratio to backprop with the same solver. On a CPU, backprop through
a small dense field or an image network is compiled as a whole, while most other gradients take
their steps one by one. This explains part of the ratios of seconds."""

GRADIENT_COSTS = """\
The error of dL/dθ against memory and seconds. Colours stand for gradient methods, markers for
solvers. A black edge marks the Pareto front: no other gradient method is at least as accurate at
the same or a lower cost."""

GRADIENT_ERRORS = """\
Errors of dL/dθ and of dL/dy(0), one row of panels per budget. A cross marks a solve that failed;
errors beyond 1e-9 and 1e3 are drawn at the edge."""

MEMORY_BY_STEPS = """\
The peak memory of all tensors in a forward and a backward pass on 16 training samples. The power
p comes from bytes = c + a · steps^p through the three largest numbers of steps: 1 if memory
grows in proportion to the steps, ½ if with their square root, 0 if it does not grow."""

TIMINGS = """\
One trial at a time on its device, from its final weights: batch, forward, backward and update.
The median over rounds; an epoch is a step times the number of batches."""

MACHINES = """\
The same trials, run on other machines and imported or merged into this store. The tables above
show the runs of this store. Means are over the n trials that finished on both machines. The
machines agree if the whole 95 % interval of the difference, paired by seed, lies within the margin
({margin}), and differ if it excludes zero and reaches beyond the margin. The same difference in
every pair is not tested, since it does not show how much the difference varies. Seconds were
measured during training."""

ROBUSTNESS_FIGURE = """\
Test metric of the trained weights against the evaluations per forward pass. Each point is {mean}.
The dashed line marks the number used in training. A network whose curve falls to the right of that
line depends on its solver's error."""

SOME_FIGURES = """\
Shown: {shown} of {every} figures, evenly spaced. `report.html` charts every configuration, and
`evaluations.csv` lists the numbers."""

SOME_CELLS = """\
Shown: {shown} of {every} configurations, evenly spaced by rank of their drops, the largest
first."""

METRICS_BY_EPOCH = "Each line is {mean}."

MANY_POINTS = (
    "There are more than {most} configurations: those on a front are coloured, the others are grey."
)

MANY_LINES = (
    "There are more than {most} lines: those with the best final values are coloured, the others "
    "are grey."
)

COSTS_CHART = """\
Each point is {mean}. Click a point to see its settings and curves."""

LINES_ACROSS = """\
A dashed line is a configuration without a value on the x axis, such as a residual network, which
has no NFE."""

EPOCHS_CHART = """\
Each line is {mean}. For long trainings, only some epochs are shown."""

SOLVERS_CHART = """\
The trained weights under other solvers. Each point is {mean}. A circle marks the training
solver."""

GRADIENTS_CHART = """\
Errors and costs of each gradient method, medians over seeds."""

TRIALS_TABLE = """\
One row per trial, with its main numbers; results.csv has all of them."""

TRAINING_STEPS = """\
Steps that adaptive solvers accepted and rejected per forward pass in the last epoch, summed over
ODE blocks."""

STEPS_PER_SAMPLE = """\
Where each sample has its own steps, these are means over samples. NFE counts calls of f for the
whole batch, which continue until its slowest sample is done; the NFE of a sample counts only the
evaluations that its own solve needs."""

TEST_BATCHES = """\
The trained weights, tested in batches of several sizes, with one step for the whole batch or one
per sample. A step for the whole batch depends on all of its samples, so the NFE varies with the
batch. A sample with its own steps takes the same steps in any batch. NFE counts calls of f for
the whole batch. Seconds were measured while other trials may have shared the machine."""


def of_seeds(note: str, most_seeds: int) -> str:
    """A note with `{mean}`, which says what is drawn of a configuration with so many seeds."""
    mean = "the mean over seeds, with its 95 % confidence interval"
    if most_seeds < FEWEST_SEEDS:
        mean = "one trial" if most_seeds == 1 else "the mean over two seeds, between both values"
    return note.format(mean=mean)

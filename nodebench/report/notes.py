"""The prose of a report: a line or two for each section, and the notes at its end."""

from __future__ import annotations

NOTES = {
    "±": "half the width of the 95 % confidence interval of the mean over n seeds (Student's t); a "
    "single seed has no interval. A dash means no value: no trial finished, or the column does not "
    "apply.",
    "NFE": "number of function evaluations: calls of the ODE's right-hand side per forward pass "
    "(or per backward pass, where it says so), summed over ODE blocks and averaged over the last "
    "epoch.",
    "drop": "how far the headline metric falls under the worst of the solvers that are finer than "
    "the training solver.",
    "limit": "the metric under the finest solver that was evaluated: classic RK4 with 128 steps, "
    "or a finer one.",
    "ODE?": "`no` means that the drop exceeds the margin: the network has learned its solver's "
    "error and is a ResNet in disguise (Ott et al. 2021). `2 of 3` means that two of "
    "three seeds gave an ODE.",
}
"""Term -> its definition, in every report that uses it."""

AS_TRAINED = """\
‡ seconds: the median over epochs, measured while other trials may have shared the machine. Do not
compare them; `nodebench time` measures comparable seconds."""

PACKED = """\
Where seeds were packed into one run (column `packed` of results.csv), a trial's seconds are those
of the whole pack."""

TIMED_BUSY = """\
‡ seconds: timed one trial at a time, but on a machine that was not idle (see the load in [What a
training step takes](#what-a-training-step-takes))."""

BEST_EPOCH = """\
† at the epoch with the best validation metric or, without validation data, with the best test
metric, which is optimistic. The headline metric is that of the last epoch."""

METHODS_FILE = "../../docs/reports.md"
METHODS_PAGE = f"""\
How each number is computed: [docs/reports.md]({METHODS_FILE})."""
METHODS_ELSEWHERE = """\
How each number is computed: the page *Reading a report* of nodebench's documentation."""
"""Where a report is not in a clone, in which the link would lead to the page."""

BASELINE = """\
Each configuration minus its baseline, which is otherwise identical, paired by seed. A difference
is clear if p < 0.05 after Holm-Bonferroni correction; "no clear difference" does not mean that
there is none."""

CLAIMS = """\
Claims of the study. A claim is reproduced if it holds in every configuration that it is about,
beyond the 95 % interval."""

EXPECTATIONS = """\
Expectations of the sweep's author, stated by no source. They are judged in the same way as
claims."""

PUBLISHED_NUMBERS = """\
The study's numbers are those of its full size and its hardware; ~ marks one that was read off a
figure. Ours *match* if the whole 95 % interval of the difference lies within the margin, and
*differ* if it excludes zero."""

FRONTIER = """\
Circled and connected: the Pareto front (no other configuration is at least as good at no greater
cost)."""

FRONTIER_AS_TRAINED = """\
No front is drawn against seconds measured during training, because trials may have shared the
machine."""

VERDICTS = """\
A network that loses more than the margin under a finer solver is a ResNet in disguise."""

VERDICT_TERMS = {
    "sufficient steps": "the smallest number of steps of the training method, of those evaluated, "
    "from which on the metric stays within the margin of the limit: one number if all seeds agree, "
    "otherwise one per seed.",
    "order": "the training method's observed order of convergence on the learned vector field, "
    "then its order on smooth ones. If the observed order is far lower, the steps do not "
    "resolve the vector field.",
}

OTHER_SOLVERS = """\
The headline metric of the trained weights under other solvers; h is the training step size."""

PATHS_FIGURE = """\
Trajectories of some test samples in the plane, one colour per class, from dot to cross: under the
training solver (left) and in the limit (right). Axes are linear between -1 and 1 and logarithmic
beyond."""

STEPS_FIGURE = """\
Test metric against the number of steps. A circle marks the training solver."""

HEAT_MAP = """\
Rows: training solver. Columns: test solver."""

WORK_PRECISION = """\
Error of the ODE blocks' outputs relative to a fine float64 reference, against the evaluations
and the seconds per forward pass (other trials may have shared the machine)."""

ADAPTATION = """\
The adapted solver by iteration, with accuracy and evaluations: mean and 95 % interval
over seeds."""

TRAJECTORIES = """\
Dots are the noisy observations, coloured by time. The line is the learned ODE, solved over the
whole span from the true start."""

GRADIENT_TABLE = """\
Gradients on 16 training samples, of the loss with respect to all parameters (dL/dθ) and to the
initial states of the ODE blocks (dL/dy0), compared with those of the ODE itself: relative errors
(median over n seeds), the distance from backprop's gradient through the same solve, and the cost of
one forward and backward pass (other trials may have shared the machine)."""

WAYS = """\
A gradient is *exact* if it is within 1e-5 of backprop's through every solve with fixed steps. With
adaptive steps, backprop also differentiates the step sizes, which other gradients do not. Errors
are those of dL/dθ against the ODE; for an exact gradient, they are the solver's. Memory and
seconds are medians of the ratio to backprop with the same solver."""

GRADIENT_COSTS = """\
The error of dL/dθ over memory and seconds; colours are gradients, markers are solvers. A black edge
marks the Pareto front: no other gradient has a smaller error for no more memory and seconds."""

GRADIENT_ERRORS = """\
Errors of dL/dθ and of dL/dy(0), one row of panels per budget. A cross marks a solve that failed;
errors beyond 1e-9 and 1e3 are drawn at the edge."""

MEMORY_BY_STEPS = """\
The peak memory of all tensors in a forward and a backward pass on 16 training samples. The power p
comes from bytes = c + a · steps^p through the three largest numbers of steps: 1 if memory grows in
proportion to the steps, ½ if with their square root, 0 if it does not grow."""

TIMINGS = """\
One trial at a time on its device, from its final weights: batch, forward, backward and update.
The median over rounds; an epoch is a step times the number of batches."""

MACHINES = """\
Runs of the same trials that were imported or merged from other machines; the tables above have
those of this store. The metric is that of the trials that finished on both (n). They agree if the
95 % interval of the difference, paired by seed, contains zero. Seconds are those of training."""

ROBUSTNESS_FIGURE = """\
Test metric of the trained weights against the evaluations per forward pass. The dashed line marks
the number used in training. A network whose curve falls to the right of that line depends on its
solver's error."""

METRICS_BY_EPOCH = "Mean over seeds, with its 95 % confidence interval."

COSTS_CHART = """\
A point is a configuration: the mean over its seeds, with its 95 % interval. Click a point to see
its settings and its curves."""

EPOCHS_CHART = """\
A line is the mean over the trials of a series, and the band reaches from the lowest to the highest.
Long trainings are thinned; the store has every epoch."""

SOLVERS_CHART = """\
The trained weights under other solvers, seeds joined. A circle marks the training solver."""

GRADIENTS_CHART = """\
Each gradient by its errors and its costs, medians over seeds."""

TRIALS_TABLE = """\
Every trial with the numbers of its own; results.csv has all of them."""

TRAINING_STEPS = """\
Steps that adaptive solvers accepted and rejected per forward pass, summed over ODE blocks, in the
last epoch; with steps per sample, means over samples. NFE counts calls of f for the
whole batch, which last until its slowest sample is done; the NFE of a sample is what its own solve
needed."""

TEST_BATCHES = """\
The trained weights, tested in batches of other sizes, and with one step for a batch or one for each
sample. One step for a batch suits all of its samples together, so its NFE depends on which are in
it; a sample with its own steps takes the same ones in any batch. NFE counts calls of f for the
whole batch. Seconds were measured while other trials may have shared the machine."""

"""What a report says of each of its sections: all of its prose, to be read in one place."""

from __future__ import annotations

NOTES = """\
Metrics and costs are the mean over the seeds that finished (n) ± half its 95 % confidence interval
(Student's t; none of a single seed). A cell of which nothing finished shows a dash. NFE is
evaluations of the right-hand side per pass, summed over ODE blocks, averaged over the last
epoch."""

BEST_EPOCH = """\
† The best epoch is chosen by validation data, or where there are none by the test data, which
flatters; the headline is the last epoch."""

AS_TRAINED = """\
‡ Median over epochs, measured while other trials may have shared the machine: not for comparing
speeds."""

PACKED = """\
Seeds were trained together (Provenance says how many): a trial's seconds are those of them all."""

TIMED_BUSY = """\
‡ Timed alone, but on a machine that was not idle: see the load before, under "What a training step
takes"."""

OTHER_SOLVERS = """\
The headline metric (accuracies in %) of the trained weights under other solvers: mean ± half its
95 % confidence interval over n seeds, or over those said to have finished. NFE is what a forward
pass takes by plan, summed over ODE blocks; h is the step size in training."""

PUBLISHED_NUMBERS = """\
Published numbers are those of the study at its full size and on its hardware; s.d. is the standard
deviation that it gives, ~ marks a number read off a figure, to within 0.01, and † one of the best
epoch. ± is half the 95 % interval of the difference of means: Welch's where the study gives a
spread, else with our standard deviation for both. A number *matches* if this whole interval lies
within the margin. It *differs* if the interval excludes zero, and is *too uncertain to say* if
neither is so: then the reading tells how many of our seeds would decide it, if their mean and
standard deviation stayed as they are. Parameters match to the digits that are printed. The limit is
the accuracy under the finest fixed-step solver that was evaluated."""

BASELINE = """\
Each cell less the one that is the same but for what the baseline sets, paired by seed: mean
difference, its 95 % confidence interval, Cohen's d of the pairs, and the p value of the paired
t-test, corrected for the number of comparisons (Holm). A difference is clear where p < 0.05; "no
clear difference" does not say that there is none. Fewer than 3 pairs are not tested, nor pairs that
all differ by the same: these do not show how much seeds scatter."""

JUDGED = """\
in every cell that it is about, and not if it fails in one of them, both beyond the 95 % interval
where there are several seeds (pairs, where two cells are compared). It is undecided if an interval
reaches over what is asked. One seed, and seeds that all give the same, have no interval: there the
number alone is judged, and the table says so."""

CLAIMS = f"""\
What the study claims of these cells, as the sweep's file states it; accuracies are asked for as
shares of 1. A claim is reproduced if it holds
{JUDGED}"""

EXPECTATIONS = f"""\
What the sweep's author expects of these cells; no source states it. An expectation is met if it
holds {JUDGED}"""

FRONTIER = """\
Every cell by what it costs, with the 95 % interval of its mean. Ringed and joined are those that
no other cell surpasses: better for no more, or as good for less."""

FRONTIER_AS_TRAINED = """\
By seconds of trainings, which may have shared the machine, none are; `nodebench time` gives such as
compare."""

VERDICTS = """\
A model that loses more than a margin of its headline metric under a solver finer than that of its
training has learned its solver's error: it is a ResNet in disguise.

| number | meaning |
|:--|:--|
| limit | the metric under classic RK4 with 128 steps, or under a finer evaluated solver |
| drop | what the worst of the finer solvers loses of the metric |
| sufficient steps | the fewest evaluated steps of the training method from which on the metric \
stays within the margin of the limit: one number for all seeds, or one for each |
| order | the training method's observed order of convergence on the trained field, over the \
training step size, a half and a quarter of it, of its order on smooth fields; far below that, \
its steps do not resolve the field, whatever the accuracy says |"""

PATHS_FIGURE = """\
States of some test samples in the plane, one colour a class, from dots to crosses: under the
training solver and at the limit, for cells from the largest to the smallest drop. Axes are linear
between -1 and 1, logarithmic beyond."""

STEPS_FIGURE = """\
Test metric over the number of steps. A ring marks the solver of the training."""

HEAT_MAP = """\
Rows: as what a model was trained. Columns: by what it was tested; h is the training step size."""

WORK_PRECISION = """\
Relative error of the ODE blocks' outputs against a fine reference in float64, by evaluations and
by seconds of a forward pass (measured while other trials may have shared the machine)."""

ADAPTATION = """\
The adapted solver by iteration, beside accuracy and evaluations: mean and 95 % interval over
seeds."""

GRADIENTS = """\
Gradients of the loss with respect to all parameters (dL/dθ) and to the states from which ODE blocks
start (dL/dy0), on 16 training samples, against those of the ODE: in closed form, where the system
has one, else backprop through classic RK4 with very many steps in float64. Relative errors (median
over n seeds), the distance from backprop's gradient through the same solve, and the cosine of
dL/dθ; evaluations, time and memory of one forward and backward pass, measured once, while other
trials may have shared the machine. Memory is that of all tensors that the pass makes, at their
peak; of reports before this was counted, the growth of the process."""

WAYS = """\
A gradient is *exact* if under fixed steps it is always within 1e-5 of backprop's through the same
solve, for parameters and states together, and never failed. Under adaptive steps, backprop also
differentiates the choice of their sizes, which other gradients do not; the largest distance is that
of all rows below. Errors are those of dL/dθ against the ODE's own gradient: of an exact gradient,
the solver's. Memory and seconds are medians of the ratio to backprop by the same solver, of a timed
training step where there is one, else of one pass on the few samples, which may have shared the
machine."""

GRADIENT_COSTS = """\
The error of dL/dθ over memory and seconds, a colour a gradient, a marker a solver. A black edge
marks the Pareto front: no other gradient has less error for no more memory and seconds."""

GRADIENT_ERRORS = """\
Errors of dL/dθ and of dL/dy(0), a row of panels a budget. A cross at the upper edge is a solve that
failed; errors beyond 1e-9 and 1e3 are drawn at the edge."""

MEMORY_BY_STEPS = """\
The bytes of all tensors that a forward and a backward pass on 16 training samples make, at their
peak. The power p is that of bytes = c + a · steps^p through the three largest numbers of steps: the
slope in log-log of what grows, 1 where that is with the steps, ½ with their square root, 0 where
nothing does. c is what the network takes at any number of steps."""

TIMINGS = """\
One trial at a time, alone on its device, with the weights at its training's end: batch, forward,
backward, update, without tests and without an adaptation's own solves. Median over rounds, which
go over all cells in turn, and the quickest and the slowest round; an epoch is a step times the
batches. The load before is the number of processes that ran on the machine in the minute before,
which should be near 0."""

ROBUSTNESS_FIGURE = """\
The trained weights by the evaluations that a forward pass takes; the dashed line is at those of
training. Where a curve falls to the right of it, the network depends on its solver's error."""

METRICS_BY_EPOCH = "Mean over seeds, with its 95 % confidence interval."

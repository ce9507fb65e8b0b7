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

METRICS_BY_EPOCH = "Mean over seeds, with its 95 % confidence interval."

STEPS = """\
Steps that adaptive solvers accepted and rejected per forward pass, summed over ODE blocks, in the
last epoch; with a step of each sample's own, means over samples. NFE counts calls of f for the
whole batch, which last until its slowest sample is done; the NFE of a sample is what its own solve
needed."""

BATCHES = """\
The trained weights, tested in batches of other sizes, and with one step for a batch or one for each
sample. One step for a batch suits all of its samples together, so its NFE depends on which are in
it; a sample with steps of its own takes the same ones in any batch. NFE counts calls of f for the
whole batch. Seconds were measured while other trials may have shared the machine."""

"""How many steps adaptive solves take, and how many evaluations each sample needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True)
class StepCounts:
    """The steps that a solve accepted and rejected; with steps per sample, means over samples.

    With steps per sample, `of_samples` [batch] holds the evaluations that each sample's own solve
    needed: 2 at the start, and the method's stages minus one for each step tried. A sample that is
    done needs no more, even if f is still called for others.
    """

    accepted: float
    rejected: float
    of_samples: Tensor | None = None


def total(solves: Sequence[StepCounts]) -> StepCounts | None:
    """The total counts of consecutive solves of one batch; None if there are none."""
    if not solves:
        return None
    parts = [solve.of_samples for solve in solves]
    known = [part for part in parts if part is not None]
    is_one_batch = len(known) == len(parts) and len({len(part) for part in known}) == 1
    return StepCounts(
        sum(solve.accepted for solve in solves),
        sum(solve.rejected for solve in solves),
        sum(known[1:], known[0]) if is_one_batch else None,
    )


@dataclass(frozen=True)
class StepTotals:
    """Sums of step counts over the batches that had adaptive solves.

    If all of these had steps per sample, `samples` is the number of their samples, and the last
    three fields are the sum, minimum and maximum of the evaluations that a sample needed. Otherwise
    `samples` is 0. Checkpoints store the fields.
    """

    batches: int = 0
    accepted: float = 0.0
    rejected: float = 0.0
    samples: int = 0
    evaluations: float = 0.0
    least: float = math.inf
    most: float = 0.0

    def plus(self, counts: StepCounts) -> StepTotals:
        """The sums with one more batch."""
        sums = StepTotals(
            self.batches + 1, self.accepted + counts.accepted, self.rejected + counts.rejected
        )
        of_samples = counts.of_samples
        is_first = self.batches == 0
        if of_samples is None or not (is_first or self.samples):
            return sums
        return replace(
            sums,
            samples=self.samples + len(of_samples),
            evaluations=self.evaluations + float(of_samples.sum()),
            least=min(self.least, float(of_samples.min())),
            most=max(self.most, float(of_samples.max())),
        )

    def measures(self) -> dict[str, float]:
        """The step counts for an epoch's or evaluation point's row; empty without adaptive solves.

        Steps are per forward pass, summed over ODE blocks. With steps per sample there are also the
        minimum, mean and maximum of the evaluations that a sample needed.
        """
        if not self.batches:
            return {}
        steps = {
            "steps_accepted": self.accepted / self.batches,
            "steps_rejected": self.rejected / self.batches,
        }
        if not self.samples:
            return steps
        return steps | {
            "nfe_sample_min": self.least,
            "nfe_sample_mean": self.evaluations / self.samples,
            "nfe_sample_max": self.most,
        }

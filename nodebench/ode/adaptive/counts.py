"""How many steps adaptive solves take, and how many evaluations each sample needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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


def with_counts(sums: Mapping[str, float], counts: StepCounts) -> dict[str, float]:
    """The sums with one more batch. Sums over samples are dropped if any batch lacks them."""
    found = {name: sums.get(name, 0.0) for name in ("batches", "accepted", "rejected")}
    found["batches"] += 1
    found["accepted"] += counts.accepted
    found["rejected"] += counts.rejected
    own = counts.of_samples
    if own is not None and ("samples" in sums or not sums):
        found["samples"] = sums.get("samples", 0.0) + len(own)
        found["evaluations"] = sums.get("evaluations", 0.0) + float(own.sum())
        found["least"] = min(sums.get("least", float("inf")), float(own.min()))
        found["most"] = max(sums.get("most", 0.0), float(own.max()))
    return found


def measures(sums: Mapping[str, float]) -> dict[str, float]:
    """The step counts for an epoch's or evaluation point's row; empty without adaptive solves.

    Steps are per forward pass, summed over ODE blocks. With steps per sample there are also the
    minimum, mean and maximum of the evaluations that a sample needed.
    """
    if not sums:
        return {}
    found = {f"steps_{name}": sums[name] / sums["batches"] for name in ("accepted", "rejected")}
    if "samples" in sums:
        found["nfe_sample_min"] = sums["least"]
        found["nfe_sample_mean"] = sums["evaluations"] / sums["samples"]
        found["nfe_sample_max"] = sums["most"]
    return found

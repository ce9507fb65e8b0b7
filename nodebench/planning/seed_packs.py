"""Packs of trials that are trained together: trials that differ only in their seed.

Packs follow from the specs, without torch, so that a driver starts fast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from nodebench.planning.options import RunOptions
from nodebench.spec import Trial, TrialSpec
from nodebench.spec.data import Spheres, ThreeMinima
from nodebench.spec.model import PlainOde
from nodebench.spec.solver import Solver
from nodebench.spec.vocabulary import DENSE_POSITIONS, norm_parts

MOST = 10
"""The largest number of seeds in a pack if `pack_seeds` is `auto` and packing pays."""

USUAL_EVALUATIONS = 100
"""A guess at those of an adaptive solve; at usual tolerances, trained networks take 20 to 160."""

PACKABLE_GRADIENTS = ("backprop", "exact")


def packs(trials: Sequence[Trial], options: RunOptions, slots: int) -> list[tuple[Trial, ...]]:
    """The trials in packs, in the order of the first trial of each.

    `slots` is the number of packs that run in parallel: `auto` leaves none of the slots empty.
    """
    share = math.ceil(len(trials) / max(1, slots))
    found: list[list[Trial]] = []
    open_packs: dict[str, list[Trial]] = {}
    for trial in trials:
        pack = open_packs.get(trial.cell.key)
        if pack is None or len(pack) >= _size(trial, options, share):
            pack = [trial]
            found.append(pack)
            if trial.id not in options.trained:
                open_packs[trial.cell.key] = pack
        else:
            pack.append(trial)
    return [tuple(pack) for pack in found]


def rank(pack: Sequence[Trial]) -> float:
    """A guess at the length of a pack's training, for comparison with others of a sweep.

    It counts evaluations, and one more a pass for all other layers. It knows neither the data's
    size nor the model's. Workers begin with the longest packs, so that none runs alone at the end.
    """
    spec = pack[0].spec
    passes = spec.train.epochs or spec.train.iterations or 0
    return len(pack) * passes * (1 + _evaluations(spec))


def _evaluations(spec: TrialSpec) -> int:
    """Those of a forward pass, as far as settings tell."""
    if spec.solver is None:
        return 0
    if spec.solver.facts.kind == "adaptive":
        return USUAL_EVALUATIONS
    return spec.solver.step_count(spec.model.span or 1) * (spec.solver.stages or 1)


def obstacle(spec: TrialSpec) -> str | None:
    """Why the seeds of a trial cannot be trained together, or None if they can."""
    if spec.import_paths:
        return "a component is the user's own code"
    if spec.data.kind == "trajectories":
        return "each window of a trajectory has its own times"
    if getattr(spec.model, "dropout", 0.0):
        return "dropout uses one random stream"
    norms = dict(getattr(spec.model, "norm", ())).values()
    if any(norm_parts(word)[1] == "sn" for word in norms if word):
        return "a spectral norm updates its power iteration in every forward pass"
    if spec.solver is None or spec.gradient is None:
        return None
    if spec.train.regularize is not None:
        names = ", ".join(f"`{name}`" for name in spec.train.regularize.parts)
        return f"`train.regularize` ({names}) is computed separately for each seed"
    return _obstacle_of_solve(spec.solver, spec.gradient.name)


def has_equal_steps(spec: TrialSpec) -> bool:
    """Whether all training steps run the same kernels, so that a CUDA graph may record them.

    Anything that makes the steps of several seeds differ makes those of one seed differ over time.
    """
    return obstacle(spec) is None


def _obstacle_of_solve(solver: Solver, gradient: str) -> str | None:
    if solver.facts.kind != "fixed":
        return f"`{solver.method}` takes different steps for each seed"
    if solver.adapt:
        return "`solver.adapt` takes different steps for each seed"
    if gradient not in PACKABLE_GRADIENTS:
        return f"the gradient `{gradient}` solves again in the backward pass"
    return None


def _size(trial: Trial, options: RunOptions, share: int) -> int:
    asked = options.resources.pack_seeds
    if trial.id in options.trained or options.stop or obstacle(trial.spec):
        return 1  # a trained trial has no steps; a search stops trials one by one
    if asked == "auto":
        return min(MOST, share) if _pays(trial.spec) else 1
    return asked


def _pays(spec: TrialSpec) -> bool:
    """Whether packing pays: the steps of a field of small matrix products are mostly overhead.

    Convolutional networks saturate a CPU anyway, and nothing has been measured on a GPU yet.
    """
    if not isinstance(spec.model, PlainOde) or spec.model.field == "conv":
        return False
    dimensions: dict[type, int] = {Spheres: getattr(spec.data, "dim", 0), ThreeMinima: 2}
    positions = dimensions.get(type(spec.data), DENSE_POSITIONS + 1) + spec.model.augment_dim
    return spec.model.field == "linear" or positions <= DENSE_POSITIONS

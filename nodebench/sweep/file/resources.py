"""What one trial may use of a machine."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from nodebench.spec.settings import Settings
from nodebench.spec.vocabulary import Count, NonNegative


class Resources(Settings):
    """The resources of one trial. `cpus` is also its number of threads.

    Up to `pack_seeds` trials that differ only in their seed are packed into one run with the
    resources of one trial: their steps are the same products over larger batches. `auto` packs
    where this is known to be faster. Networks that cannot be packed, such as those with an adaptive
    solver, are always trained individually.

    `gpus` may be a fraction, so that trials share a GPU. `auto` measures, before Ray starts, what
    the largest of them needs. With `--inline`, each trial has a whole GPU.
    """

    cpus: Count = 1
    gpus: NonNegative | Literal["auto"] = 0.0
    pack_seeds: Count | Literal["auto"] = 1

    @property
    def gpu_share(self) -> float:
        """`gpus` as a number; `auto` counts as a whole GPU until it has been measured."""
        return 1.0 if self.gpus == "auto" else self.gpus

    @model_validator(mode="after")
    def _one_gpu_at_most(self) -> Self:
        if self.gpu_share > 1:
            raise ValueError(
                "a trial trains on one GPU, so more than 1 would be idle. "
                "Give `gpus: 1`, or a fraction to share a GPU between trials"
            )
        return self

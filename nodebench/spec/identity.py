"""A trial's id: a hash of everything that determines its result, and of nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from nodebench.errors import InputError
from nodebench.spec.model import ConvNetwork, PlainOde, StagedNetwork
from nodebench.spec.own_code import file_hash, own_modules
from nodebench.spec.settings import flatten
from nodebench.spec.trial import TrialSpec
from nodebench.spec.vocabulary import DENSE_POSITIONS, DYNAMICS, GROUPED, norm_parts


@dataclass(frozen=True)
class Revision:
    """A change of code or of a default that changed results, or the contents of checkpoints.

    `affects` says which trials it affects: only these get another id, and all others keep theirs.
    """

    number: int
    change: str
    affects: Callable[[TrialSpec], bool]


def _is_by_a_studys_rule(spec: TrialSpec) -> bool:
    """Whether one of revision 5's rules affects the trial."""
    if spec.data.name == "spiral":
        return True
    adapted = spec.solver if spec.solver and spec.solver.adapt else None
    return adapted is not None and (
        adapted.facts.kind == "adaptive" or adapted.method == "midpoint"
    )


def _is_computed_here(spec: TrialSpec) -> bool:
    """Whether revision 6 replaced a computation of the trial by torch or torchdiffeq."""
    model = spec.model
    is_dense = isinstance(model, PlainOde) and model.field != "conv"
    solvers = [spec.solver, spec.gradient.solver if spec.gradient else None]
    is_embedded = any(s and s.stepping == "embedded" and s.control is None for s in solvers)
    norms = (
        model.norm.model_dump().values() if isinstance(model, ConvNetwork | StagedNetwork) else ()
    )
    return is_dense or is_embedded or any(norm_parts(word or "nf")[0] in GROUPED for word in norms)


def _is_folded(spec: TrialSpec) -> bool:
    """Whether convolutions over more than two positions may be computed as matrix products."""
    if not isinstance(spec.model, PlainOde) or spec.model.field != "simple":
        return False
    if spec.data.name == "three-minima":
        return False  # two positions
    return 2 < getattr(spec.data, "dim", DENSE_POSITIONS) <= DENSE_POSITIONS


def _is_convolved_at_tensor_times(spec: TrialSpec) -> bool:
    """Whether revision 9 replaced a convolution by torch in the ODE, whose times were tensors."""
    model, solvers = spec.model, [spec.solver]
    if not isinstance(model, ConvNetwork | StagedNetwork):
        return False
    over_time = isinstance(model, ConvNetwork) and DYNAMICS[model.dynamics].time
    if not over_time and norm_parts(model.norm.ode or "nf")[0] != "in":
        return False
    if spec.solver and spec.gradient and spec.gradient.name in ("adjoint", "interpolated"):
        solvers.append(spec.gradient.backward(spec.solver))
    methods = [s.method for s in solvers if s and s.facts.kind != "fixed" and not s.by_sample]
    return any(method != "scipy_solver" for method in methods)


def _has_integrals(spec: TrialSpec) -> bool:
    """Whether a regularizer is integrated along the solves."""
    found = spec.train.regularize
    return found is not None and any((found.kinetic, found.jacobian, found.taylor))


def _is_dense_with_softplus(spec: TrialSpec) -> bool:
    """Whether the ODE's field has softplus and dense layers, or convolutions folded into these."""
    if not isinstance(spec.model, PlainOde) or spec.model.activation != "softplus":
        return False
    is_folded = getattr(spec.data, "dim", DENSE_POSITIONS) <= DENSE_POSITIONS
    return spec.model.field == "linear" or (spec.model.field == "simple" and is_folded)


REVISIONS: tuple[Revision, ...] = (
    Revision(4, "channels last, dense fields as one operation", lambda _spec: True),
    Revision(
        5,
        "the studies' own rules: tolerance adaptation compares with the last five training "
        "iterations, the reference of an adapted midpoint rule is the 3/8 rule (Ott et al. 2021), "
        "a spiral's windows start in [0, T - 5] (saparina/neural-ode)",
        _is_by_a_studys_rule,
    ),
    Revision(
        6,
        "solves of dense fields, and group norms of images, are compiled: sums in another order; "
        "embedded methods choose their steps here instead of in torchdiffeq, and the search for a "
        "step is not differentiated",
        _is_computed_here,
    ),
    Revision(
        7,
        "convolutions of images on a CPU are compiled: sums in another order",
        lambda spec: isinstance(spec.model, ConvNetwork | StagedNetwork),
    ),
    Revision(
        8,
        "gradients of convolutions over three to ten positions: sums in another order",
        _is_folded,
    ),
    Revision(
        9,
        "convolutions over [t; y], and those after an instance norm, are compiled for solvers that "
        "choose their steps too: sums in another order",
        _is_convolved_at_tensor_times,
    ),
    Revision(
        10,
        "`jacobian` and `taylor` are computed by Taylor coefficients, and rightly with batch and "
        "instance norm; layers are compiled in solves with any term: sums in another order",
        _has_integrals,
    ),
    Revision(
        11,
        "solves of dense fields with softplus are compiled: sums in another order",
        _is_dense_with_softplus,
    ),
)
"""The revisions, the newest last. A trial has the number of the last one that affects it."""

NUMERICS = REVISIONS[-1].number
"""The newest revision's number."""


def numerics(spec: TrialSpec) -> int:
    """The number of the newest revision that affects a trial: part of its id."""
    return max(each.number for each in REVISIONS if each.affects(spec))


@dataclass(frozen=True, eq=False)
class Cell:
    """A resolved spec regardless of its seed: the part that the trials of all seeds share."""

    spec: TrialSpec
    recorded_code_hashes: Mapping[str, str | None] | None = None
    """The code hashes that the store has for a trial; by default, those of the code here."""
    recorded_weights_hash: str | None = None
    """The hash of its weights file that the store has; by default, that of the file found here."""

    def trial(self, seed: int) -> Trial:
        """The trial with this seed."""
        return Trial(self.spec.model_copy(update={"seed": seed}), self)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that determines the result, as plain values."""
        identity: dict[str, Any] = self.spec.model_dump(mode="json", exclude_defaults=True)
        identity.pop("seed", None)
        if self.spec.weights is not None:
            identity["weights"] = self.weights_hash
        identity["numerics"] = numerics(self.spec)
        modules = dict(self.code_hashes)
        named = {path: _module(path) for path in self.spec.import_paths}
        # Named modules are kept apart, so that the ids of trials without others do not change.
        for name, value in (
            ("sources", {path: modules.get(module) for path, module in named.items()}),
            ("modules", {k: v for k, v in modules.items() if k not in named.values()}),
        ):
            identity |= {name: value} if value else {}
        return {key: _plain(value) for key, value in identity.items()}

    @cached_property
    def code_hashes(self) -> dict[str, str | None]:
        """Module -> SHA-256, for all imported modules of the user's; None if one is not found."""
        if self.recorded_code_hashes is not None:
            return dict(self.recorded_code_hashes)
        found: dict[str, str | None] = {}
        for module in map(_module, self.spec.import_paths):
            try:
                found |= own_modules(module)
            except ModuleNotFoundError:
                found[module] = None
        return found

    @cached_property
    def weights_hash(self) -> str | None:
        """The SHA-256 of the weights file; None if there is none, or it is not found."""
        path = self.spec.weights
        return self.recorded_weights_hash or (None if path is None else file_hash(path))

    @cached_property
    def key(self) -> str:
        """A key that is the same for equal cells."""
        return _ENCODER.encode(self.identity)

    @property
    def set_paths(self) -> list[str]:
        """The dotted paths of the settings that are not at their default."""
        return list(_paths(self.spec.model_dump(mode="json", exclude_defaults=True)))

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Dotted path -> value."""
        return {path: value for path, value in flatten(self.spec).items() if path != "seed"}


@dataclass(frozen=True)
class Trial:
    """A resolved spec and the ids that follow from it."""

    spec: TrialSpec
    shared: Cell | None = field(default=None, compare=False, repr=False)
    """The cell, if available, so that a sweep of many seeds computes its identity only once."""

    def __repr__(self) -> str:
        return f"<Trial {self.id}>"

    @cached_property
    def cell(self) -> Cell:
        """The trial's cell, which does not depend on the seed."""
        return self.shared or Cell(self.spec)

    @cached_property
    def id(self) -> str:
        """12 hex digits that stand for everything that determines the result."""
        return _digest(self._identity)

    @cached_property
    def recipe_id(self) -> str:
        """The id without the number of epochs."""
        train = {k: v for k, v in self._identity.get("train", {}).items() if k != "epochs"}
        return _digest(self._identity | {"train": train})

    @property
    def _identity(self) -> dict[str, Any]:
        # Defaults are left out, and so is the seed 0.
        return self.cell.identity | ({"seed": self.spec.seed} if self.spec.seed else {})

    @cached_property
    def is_identified(self) -> bool:
        """Whether all files on which the id depends were found; if not, it differs elsewhere."""
        is_found = self.spec.weights is None or self.cell.weights_hash is not None
        return is_found and None not in self.cell.code_hashes.values()

    def require_as_named(self) -> None:
        """Rejects code or weights that, in this process, are not those of the plan.

        Raises:
            InputError: if they were edited since, or are missing here.
        """
        now = Trial(self.spec)
        if now.id != self.id:
            raise InputError(
                "its code or its weights file was changed after the sweep was planned, or is "
                f"missing here: its id would now be `{now.id}`. Start the sweep again"
            )

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Dotted path -> value: the columns of tables and the parameters of MLflow."""
        return self.cell.settings | {"seed": self.spec.seed}


def _module(import_path: str) -> str:
    return import_path.partition(":")[0]


def _paths(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _paths(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _digest(plain: object) -> str:
    return hashlib.sha256(_ENCODER.encode(plain).encode()).hexdigest()[:12]


def canonical(value: object) -> str:
    """Canonical JSON: sorted keys, no spaces, 1.0 written as 1."""
    return _ENCODER.encode(_plain(value))


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value

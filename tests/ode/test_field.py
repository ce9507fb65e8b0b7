"""Tests of right-hand sides of a user's own: their time, their shape, what they use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nodebench.errors import FieldError
from nodebench.ode.block import ODEBlock
from nodebench.ode.field import Field, slope
from nodebench.ode.gradients.exact import kept_bytes
from nodebench.report.analysis.verdict import VerdictWord, judge
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver
from nodebench.spec.vocabulary import GRADIENTS, METHODS
from nodebench.store import Store
from nodebench.training.trial import run_trial
from tests.support.tiny_sweeps import TINY, options, tiny


def solver(method: str) -> Solver:
    kind = METHODS[method].kind
    return Solver(method=method, tol=1e-3) if kind == "adaptive" else Solver(method=method, steps=3)


# ------------------------------------------------------------------------------------- time


class Timed(nn.Module):
    """A field which treats its time as a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []
        self.layer = nn.Linear(3, 2)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.seen.append(t)
        return self.layer(torch.cat((t.expand(len(y), 1), y), dim=1))


PAIRS = [
    (method, name)
    for method in METHODS
    for name in GRADIENTS
    if not Gradient(name=name).misfit(solver(method))
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("method", "name"), PAIRS)
def test_time_is_a_tensor_like_the_state_by_every_method_and_gradient(
    method: str, name: str, dtype: torch.dtype
) -> None:
    block = ODEBlock(Timed().to(dtype), solver(method), Gradient(name=name))
    block.memory_bytes = 0  # so that `exact` recomputes
    block(torch.ones(4, 2, dtype=dtype)).sum().backward()
    assert block.f.layer.weight.grad.abs().sum() > 0
    assert {type(t) for t in block.f.seen} == {Tensor}
    assert {(t.shape, t.dtype) for t in block.f.seen} == {(torch.Size(), dtype)}


def test_times_that_are_integers_are_tensors_of_the_state_s_type_too() -> None:
    block = ODEBlock(Timed(), Solver(method="euler", steps=1), Gradient())
    block.trajectory(torch.ones(4, 2), (0, 1, 2))
    assert [t.item() for t in block.f.seen] == [0.0, 1.0]
    assert {t.dtype for t in block.f.seen} == {torch.float32}


def test_what_an_evaluation_keeps_is_measured_with_such_a_time() -> None:
    assert kept_bytes(Timed(), torch.ones(4, 2), 0.0) > 0


def test_a_field_of_ours_keeps_its_number() -> None:
    class Own(Field):
        def forward(self, t: float | Tensor, y: Tensor) -> Tensor:
            assert isinstance(t, float)
            return y * t

    slope(Own(), 0.5, torch.ones(2))


# ------------------------------------------------------------------------------------ shape


class Gives(nn.Module):
    def __init__(self, made: Any) -> None:
        super().__init__()
        self.made, self.weight = made, nn.Parameter(torch.ones(()))

    def forward(self, _t: Tensor, y: Tensor) -> Any:
        return self.made(self.weight * y)


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("method", ["euler", "rk4", "dopri5", "implicit_adams"])
@pytest.mark.parametrize(
    ("made", "what"),
    [
        (lambda y: y[:, :1], r"gives \[8, 1\] for a state of shape \[8, 2\]"),
        (lambda y: y[0], r"gives \[2\] for"),
        (lambda y: y.unsqueeze(0), r"gives \[1, 8, 2\] for"),
        (lambda y: (y, y), "gives a tuple for"),
        (lambda _y: None, "gives a NoneType for"),
    ],
)
def test_a_slope_of_another_shape_than_the_state_is_refused(made, what, method, name) -> None:
    block = ODEBlock(Gives(made), solver(method), Gradient(name=name))
    with pytest.raises(FieldError, match=f"f, a `Gives`, {what}"):
        block(torch.ones(8, 2))


# --------------------------------------------------------------------------- what f uses


class Conditioned(nn.Module):
    """A field with a context that another part of the network makes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.context: Tensor = torch.zeros(2)

    def forward(self, _t: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(self.layer(y)) + self.context


class Conditional(nn.Module):
    def __init__(self, how: Solver, gradient: Gradient, detach: bool = False) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.encoder = nn.Linear(2, 2)
            self.block, self.detach = ODEBlock(Conditioned(), how, gradient), detach

    def forward(self, x: Tensor) -> Tensor:
        context = self.encoder(x)
        self.block.f.context = context.detach() if self.detach else context
        return self.block(x)


RECOMPUTE = [Gradient(name="recompute"), Gradient(name="recompute", segments=2)]


@pytest.mark.parametrize("how", [Solver(method="rk4", steps=4), Solver(tol=1e-4)])
@pytest.mark.parametrize("gradient", RECOMPUTE, ids=["whole", "segments"])
def test_recomputation_has_the_gradient_of_what_f_uses(how: Solver, gradient: Gradient) -> None:
    gradient = gradient.suited_to(how)
    found = []
    for each in (gradient, Gradient(name="backprop")):
        model = Conditional(how, each)
        model(torch.ones(4, 2)).square().sum().backward()
        found.append([p.grad for p in model.parameters()])
    assert all(map(torch.equal, *found))
    assert found[0][0].abs().sum() > 0


@pytest.mark.parametrize("how", [Solver(method="rk4", steps=4), Solver(tol=1e-4)])
def test_the_adjoint_refuses_what_it_would_lose_the_gradient_of(how: Solver) -> None:
    adjoint = Gradient(name="adjoint")
    loss = Conditional(how, adjoint)(torch.ones(4, 2)).sum()
    with pytest.raises(FieldError, match=r"`Conditioned`, uses what is made from a tensor of"):
        loss.backward()
    model = Conditional(how, adjoint, detach=True)
    model(torch.ones(4, 2)).sum().backward()
    assert model.block.f.layer.weight.grad is not None
    with torch.no_grad():
        Conditional(how, adjoint)(torch.ones(4, 2))


def test_the_adjoint_refuses_a_use_of_the_first_state_besides_the_state() -> None:
    block = ODEBlock(Conditioned(), Solver(method="euler", steps=2), Gradient(name="adjoint"))
    y0 = torch.ones(4, 2, requires_grad=True)
    block.f.context = y0
    with pytest.raises(FieldError, match="take `gradient: backprop` or `recompute`"):
        block(y0).sum().backward()


# ------------------------------------------------------------------------- within a sweep

OWN = """
import torch
from torch import nn
from nodebench.ode.block import ODEBlock

class Field(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how, self.layer, self.context = how, nn.Linear(2, 2), 0.0

    def forward(self, t, y):
        if self.how == "narrow":
            return self.layer(y)[:, :1]
        if self.how == "crashes" and not self.training and len(y) == 12:
            raise KeyError("of the user's")
        return self.layer(y) * t.expand(len(y), 1) + self.context

class Net(nn.Module):
    def __init__(self, spec, data):
        super().__init__()
        self.encoder = nn.Linear(2, 2)
        self.block = ODEBlock(Field(spec.model.settings["how"]), spec.solver, spec.gradient)

    def forward(self, x):
        if self.block.f.how == "context":
            self.block.f.context = self.encoder(x)
        return self.block(x)
"""


def swept(folder: Path, monkeypatch: pytest.MonkeyPatch, how: str, **fields: Any) -> Any:
    (folder / "own_field.py").write_text(OWN)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "own_field", raising=False)
    base = TINY | {"model": {"name": "own_field:Net", "settings": {"how": how}}}
    base |= {"data": {"name": "spheres", "dim": 2, "train_size": 64, "test_size": 32}}
    sweep = tiny(folder, base=base | fields.pop("base", {}), **fields)
    store = Store(folder / "runs")
    result = run_trial(sweep.trials[0], store, options(sweep, folder))
    return sweep, store, result


def test_a_field_of_the_wrong_shape_is_the_trial_s_end_in_words(tmp_path, monkeypatch) -> None:
    _, _, result = swept(tmp_path, monkeypatch, "narrow")
    assert (result.outcome, result.is_error) == ("error", True)
    assert "gives [16, 1] for a state of shape [16, 2]" in result.reason


@pytest.mark.parametrize("how", [{"method": "rk4", "steps": 2}, {"method": "dopri5"}])
def test_a_field_of_a_tensor_time_trains_and_is_judged_by_any_method(
    how: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = {"methods": ["euler", "dopri5"], "steps": [4], "tols": [1e-3]}
    sweep, store, result = swept(
        tmp_path, monkeypatch, "timed", base={"solver": how}, evaluate=evaluate
    )
    assert result.outcome == "finished"
    found = judge(sweep.trials[0], sweep, store)
    assert found is not None and found.limit is not None


def test_a_gradient_that_cannot_be_taken_is_a_point_with_that_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = {"methods": ["rk4"], "steps": [2], "gradients": ["adjoint", "backprop"]}
    sweep, store, result = swept(tmp_path, monkeypatch, "context", evaluate=evaluate)
    assert result.outcome == "finished"
    rows = store.folder(sweep.trials[0].id).evaluations()
    adjoint = [row for row in rows if row["point"].get("gradient") == "adjoint"]
    assert {row["outcome"] for row in adjoint} == {"error"}
    assert all("whose gradient `adjoint` would lose" in row["reason"] for row in adjoint)
    assert len(rows) == 2 * len(adjoint)


def test_a_verdict_that_cannot_be_had_says_so(tmp_path, monkeypatch) -> None:
    evaluate = {"methods": ["euler"], "steps": [4], "test_size": 12}
    sweep, store, result = swept(tmp_path, monkeypatch, "crashes", evaluate=evaluate)
    assert result.outcome == "finished"
    found = judge(sweep.trials[0], sweep, store)
    assert found is not None and found.word == VerdictWord.UNDECIDED
    assert found.reason == 'its evaluation ended in an error: KeyError: "of the user\'s"'


# --------------------------------------------------------------------- without assertions

DIVERGING = """
from importlib.machinery import SourceFileLoader

import torch
from torch import nn

from_cache = SourceFileLoader.get_code

def get_code(loader, name):  # as `python -O`, which would compile all of torch anew
    if name.partition(".")[0] not in ("nodebench", "torchdiffeq"):
        return from_cache(loader, name)
    source = loader.get_data(loader.path)
    return compile(source, loader.path, "exec", dont_inherit=True, optimize=1)

SourceFileLoader.get_code = get_code

from torchdiffeq._impl.rk_common import RKAdaptiveStepsizeODESolver
from nodebench.errors import TrialFailure
from nodebench.ode.block import ODEBlock
from nodebench.spec.gradient import Gradient
from nodebench.spec.solver import Solver

class Field(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind, self.a = kind, nn.Parameter(torch.ones(2))

    def forward(self, t, y):
        return self.a * (y * y if self.kind == "blow-up" else y * float("nan"))

constants = RKAdaptiveStepsizeODESolver._adaptive_step.__code__.co_consts
if "underflow in dt {}" in constants:
    raise SystemExit("there are assertions")
for method in ("dopri5", "bosh3", "adaptive_heun", "fehlberg2", "dopri8"):
    for kind in ("blow-up", "nan"):
        for back in (1, -1):
            block = ODEBlock(Field(kind), Solver(method=method, tol=1e-2), Gradient())
            block.max_evaluations = 20_000
            try:
                block.trajectory(back * torch.ones(2), (0.0, back * 2.0))
            except TrialFailure as failure:
                print(method, kind, failure.outcome)
"""


def test_a_diverging_solve_ends_where_python_runs_without_assertions() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DIVERGING], capture_output=True, text=True, check=True, timeout=100
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == 5 * 2 * 2
    for _, kind, outcome in lines:
        assert outcome in (("diverged",) if kind == "nan" else ("underflow", "diverged"))

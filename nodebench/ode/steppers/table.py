"""The stepper of each solver method whose steps nodebench takes."""

from __future__ import annotations

from nodebench.ode.adaptive.extent import EachSample
from nodebench.ode.adaptive.tensor_steps import TensorSteps
from nodebench.ode.steppers.reversible import AsynchronousLeapfrog, Coupled, ReversibleHeun
from nodebench.ode.steppers.runge_kutta import EmbeddedRungeKutta, RungeKutta
from nodebench.ode.steppers.stepper import AnyStepper
from nodebench.ode.tableau import EMBEDDED, TABLEAUS
from nodebench.spec.solver import Solver


def stepper_of(solver: Solver) -> AnyStepper:
    """A solver's stepper; that of an adaptive method takes steps whose size is already known."""
    if solver.by_sample:
        return TensorSteps(EMBEDDED[solver.method], EachSample())
    if solver.method in EMBEDDED:
        return EmbeddedRungeKutta(EMBEDDED[solver.method])
    if solver.method == "alf":
        return AsynchronousLeapfrog(1.0 if solver.damping is None else solver.damping)
    if solver.method == "reversible_heun":
        return ReversibleHeun()
    method = RungeKutta(TABLEAUS[solver.method])
    return method if solver.coupling is None else Coupled(method, solver.coupling)

"""`python -m benchmarks.peers.jax_server`: training steps and solves in JAX, timed on request.

Runs in the peers' own environment, and so imports neither torch nor nodebench. It reads one JSON
request a line and answers each with one: `build` compiles a case from weights in an npz file,
`losses` takes steps one at a time, `time` takes several and answers with the seconds.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax

Arrays = dict[str, Any]
Field = Callable[[Any, Any, Any], Any]
ACTIVATIONS: dict[str, Callable[[Any], Any]] = {"relu": jax.nn.relu, "tanh": jnp.tanh}
ADJOINTS: dict[str, Callable[[], diffrax.AbstractAdjoint]] = {
    "recursive": diffrax.RecursiveCheckpointAdjoint,
    "direct": diffrax.DirectAdjoint,
}


def matrices(weights: Arrays) -> Arrays:
    """Each kernel [outputs, inputs, taps] as the matrix of a signal of two positions.

    Linear layers stay what they are.
    """
    if all(value.ndim < 3 for value in weights.values()):
        return weights

    def matrix(name: str, value: Any) -> Any:
        if not name.startswith("field."):
            return value
        if value.ndim == 1:
            return jnp.repeat(value, 2)
        if value.shape[2] == 1:
            return jnp.kron(value[..., 0], jnp.eye(2))
        before, here, after = (jnp.kron(value[..., j], jnp.eye(2, k=j - 1)) for j in range(3))
        return before + here + after

    return {name: matrix(name, value) for name, value in weights.items()}


def field(activation: str) -> Field:
    """dy/dt of three linear layers."""
    act = ACTIVATIONS[activation]

    def f(_t: Any, y: Any, w: Arrays) -> Any:
        for number in range(2):
            y = act(y @ w[f"field.{number}.weight"].T + w[f"field.{number}.bias"])
        return y @ w["field.2.weight"].T + w["field.2.bias"]

    return f


def by_scan(f: Field, y0: Any, weights: Arrays, steps: int) -> Any:
    """y(1) by Euler's method as a plain `lax.scan`."""
    h = 1 / steps

    def step(y: Any, number: Any) -> tuple[Any, None]:
        return y + h * f(number * h, y, weights), None

    return jax.lax.scan(step, y0, jnp.arange(steps))[0]


def by_diffrax(f: Field, y0: Any, weights: Arrays, solver: Any, **settings: Any) -> Any:
    """y(1) by diffrax."""
    term = diffrax.ODETerm(f)
    found = diffrax.diffeqsolve(term, solver, 0.0, 1.0, y0=y0, args=weights, **settings)
    assert found.ys is not None
    return found.ys[-1]


def fixed(request: Mapping[str, Any]) -> Callable[..., Any]:
    """A solve of Euler steps: by `scan`, or by diffrax with an adjoint."""
    steps, f = request["steps"], field(request["activation"])
    if request["by"] == "scan":
        return functools.partial(by_scan, f, steps=steps)
    # Its mark is needed for reverse mode: without a bound on steps there is no `direct`.
    settings = {"dt0": 1 / steps, "max_steps": steps, "adjoint": ADJOINTS[request["by"]]()}
    return functools.partial(by_diffrax, f, solver=diffrax.Euler(), **settings)


def cross_entropy(logits: Any, targets: Any) -> Any:
    """The mean over the batch."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()


def training(request: Mapping[str, Any], arrays: Arrays) -> Callable[[], Any]:
    """One Adam step a call; with `packed`, of every seed along the arrays' first axis."""
    solve, optimizer = fixed(request), optax.adam(request["lr"])

    def loss(weights: Arrays, inputs: Any, targets: Any) -> Any:
        made = matrices(weights)
        y1 = solve(inputs, made)
        return cross_entropy(y1 @ made["head.weight"].T + made["head.bias"], targets)

    def step(weights: Arrays, state: Any, inputs: Any, targets: Any) -> Any:
        value, gradient = jax.value_and_grad(loss)(weights, inputs, targets)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(weights, updates), state, value

    over = jax.vmap if request["packed"] else lambda function: function
    taken = jax.jit(over(step), donate_argnums=(0, 1))
    batch = arrays.pop("inputs"), arrays.pop("targets")
    kept = [arrays, over(optimizer.init)(arrays)]

    def take() -> Any:
        *kept[:], value = taken(*kept, *batch)
        return value

    return take


def adaptive(request: Mapping[str, Any], arrays: Arrays) -> Callable[[], Any]:
    """One solve by dopri5, forward and backward; one step size for the batch, as ours has."""
    f, tol = field(request["activation"]), request["tol"]
    control = diffrax.PIDController(rtol=tol, atol=tol)
    settings = {"dt0": None, "stepsize_controller": control, "adjoint": ADJOINTS[request["by"]]()}
    settings["max_steps"] = request["most_steps"]

    def loss(weights: Arrays, inputs: Any) -> Any:
        y1 = by_diffrax(f, inputs, matrices(weights), solver=diffrax.Dopri5(), **settings)
        return jnp.square(y1).sum() / len(inputs)

    taken = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    inputs = arrays.pop("inputs")
    return lambda: taken(arrays, inputs)


CASES = {"training": training, "adaptive": adaptive}


def losses(take: Callable[[], Any], count: int) -> list[Any]:
    """The loss before each step; of packed seeds, each seed's."""
    found = (take() for _ in range(count))
    return [np.asarray(each[0] if isinstance(each, tuple) else each).tolist() for each in found]


def seconds(take: Callable[[], Any], count: int) -> float:
    """Of one step, the mean of several in a row, after one that is not timed."""
    jax.block_until_ready(take())
    start = time.perf_counter()
    for _ in range(count):
        jax.block_until_ready(take())
    return (time.perf_counter() - start) / count


def main() -> None:
    """Answers requests until there are no more."""
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cpus[: int(sys.argv[1])])  # XLA has as many threads as CPUs
    cases: dict[int, Callable[[], Any]] = {}
    numbers = itertools.count()
    for line in sys.stdin:
        request = json.loads(line)
        answer: Any
        if request["do"] == "build":
            with np.load(request["arrays"]) as stored:
                arrays = {name: jnp.asarray(stored[name]) for name in stored}
            answer = next(numbers)
            cases[answer] = CASES[request["case"]](request, arrays)
        elif request["do"] == "losses":
            answer = losses(cases[request["number"]], request["count"])
        else:
            answer = seconds(cases[request["number"]], request["count"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

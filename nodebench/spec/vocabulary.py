"""The words of a sweep file: solver methods, norms, gradients, right-hand sides, activations.

It does not import torch, so that a plan is instant. `ode/` and `models/` hold one table each from
these names to code; a test compares them. To add a word, add its row here and its row there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, StrictBool

from nodebench.errors import shown

Stepping = Literal["fixed", "embedded", "dense_output", "multistep", "scipy"]
"""Who takes the steps of a solve, and what decides their sizes:

- `fixed`: nodebench, on a given grid;
- `embedded`: nodebench, whose error control needs an embedded Runge-Kutta method;
- `dense_output`: torchdiffeq, by an embedded method whose states are interpolated between steps;
- `multistep`: torchdiffeq's Adams method, on a given grid;
- `scipy`: SciPy's `solve_ivp`, with its own error control.
"""


@dataclass(frozen=True)
class Method:
    """A solver method.

    `stages` counts evaluations of the right-hand side per step, and `start` those before the first
    step. `stages` and `order` are None if they vary from step to step, or with `scipy`. An embedded
    method that is not `in_torchdiffeq` has no `dense_output`.
    """

    order: int | None
    stages: int | None
    stepping: Stepping
    source: str
    start: int = 0
    in_torchdiffeq: bool = True
    estimates_stiffness: bool = False
    """Whether it is embedded, and its last two stages are at the end of the step.

    Those of dopri8 are too, but too close together for float32.
    """

    @property
    def kind(self) -> Literal["fixed", "adaptive", "multistep"]:
        """The settings that the method takes.

        `fixed` takes a number or size of steps, `adaptive` a tolerance, and `multistep` both: steps
        for its grid, and a tolerance for the iteration inside each.
        """
        if self.stepping == "fixed" or self.stepping == "multistep":
            return self.stepping
        return "adaptive"


METHODS: dict[str, Method] = {
    "euler": Method(1, 1, "fixed", "Euler 1768"),
    "midpoint": Method(2, 2, "fixed", "explicit midpoint rule, Runge 1895"),
    "heun2": Method(2, 2, "fixed", "explicit trapezoidal rule, Heun 1900"),
    "heun3": Method(3, 3, "fixed", "Heun 1900"),
    "rk4": Method(4, 4, "fixed", "the classic method, Kutta 1901 (not torchdiffeq's `rk4`)"),
    "rk4_38": Method(4, 4, "fixed", "the 3/8 rule, Kutta 1901 (torchdiffeq's `rk4`)"),
    "alf": Method(2, 1, "fixed", "asynchronous leapfrog, Mutze 2013, reversible", start=1),
    "reversible_heun": Method(2, 1, "fixed", "Kidger et al. 2021, reversible", start=1),
    "adaptive_heun": Method(2, 2, "embedded", "Heun-Euler 2(1)"),
    "fehlberg2": Method(2, 3, "embedded", "Fehlberg 1969, RKF1(2)"),
    "bosh3": Method(3, 4, "embedded", "Bogacki, Shampine 1989, 3(2)"),
    "dopri5": Method(5, 7, "embedded", "Dormand, Prince 1980, 5(4)", estimates_stiffness=True),
    "dopri8": Method(8, 14, "embedded", "Prince, Dormand 1981, 8(7)"),
    "tsit5": Method(
        5, 7, "embedded", "Tsitouras 2011, 5(4)", in_torchdiffeq=False, estimates_stiffness=True
    ),
    "implicit_adams": Method(5, None, "multistep", "Adams-Bashforth-Moulton, torchdiffeq"),
    "scipy_solver": Method(None, None, "scipy", "scipy.integrate.solve_ivp, by `scipy`"),
}

SCIPY_METHODS: dict[str, int | None] = {
    "RK23": 3, "RK45": 5, "DOP853": 8, "Radau": 5, "BDF": None, "LSODA": None,
}  # fmt: skip
"""SciPy's methods and their orders, which BDF and LSODA vary from step to step."""

CONTROLLERS: dict[str, tuple[float, float, str]] = {
    "i": (
        1.0,
        0.0,
        "the elementary controller, torchdiffeq's (Hairer, Nørsett, Wanner 1993, II.4)",
    ),
    "pi": (0.3, 0.4, "PI.3.4 (Gustafsson 1991; Söderlind 2002, Table 1)"),
}
"""A controller of the step size -> (k_I, k_P, source).

The step size is multiplied by safety · e^(-(k_I + k_P)/k) · e'^(k_P/k), where e is the step's error
relative to its tolerance, e' that of the last accepted step, and k the method's order.
"""

NORMS: dict[str, str] = {
    "gn": "group norm, 32 groups (one per channel below 32 channels)",
    "bn": "batch norm",
    "ln": "layer norm over channels and space: group norm with one group",
    "in": "instance norm, without affine parameters",
    "nf": "none",
}

GROUPED = ("gn", "ln")
"""The norms that are group norms."""

WEIGHT_NORMS: dict[str, str] = {
    "wn": "weight norm of the convolutions: a direction and a gain per filter",
    "sn": "spectral norm of the convolutions: divided by their largest singular value",
}

# The words for a place: a norm, a weight norm, or both as in `ln+wn`.
NORM_WORDS = (
    *NORMS,
    *WEIGHT_NORMS,
    *(f"{norm}+{weight}" for norm in NORMS if norm != "nf" for weight in WEIGHT_NORMS),
)


def norm_parts(word: str) -> tuple[str, str | None]:
    """The norm and the weight norm, if any, that a word stands for."""
    norm, _, weight = word.partition("+")
    return ("nf", norm) if norm in WEIGHT_NORMS else (norm, weight or None)


ACTIVATIONS: dict[str, str] = {
    "relu": "max(0, x)",
    "leaky_relu": "x above 0, 0.01 x below",
    "sigmoid": "1 / (1 + exp(-x))",
    "tanh": "hyperbolic tangent",
    "softplus": "log(1 + exp(x)), a smooth ReLU",
    "elu": "x above 0, exp(x) - 1 below",
    "silu": "x / (1 + exp(-x)), also called swish",
    "none": "the identity",
}

GRADIENTS: dict[str, str] = {
    "backprop": "automatic differentiation through the solver's steps",
    "adjoint": "the continuous adjoint, solved backwards in time (Chen et al. 2018, Algorithm 1)",
    "recompute": "backprop, parts of the solve done again in the backward pass (ANODE)",
    "aca": "backprop through the accepted steps, taken again one by one (Zhuang et al. 2020)",
    "symplectic": "the symplectic adjoint: backprop, stage by stage (Matsubara et al. 2021)",
    "interpolated": "the adjoint, along a state interpolated at Chebyshev nodes (Daulbaev 2020)",
    "reversible": "backprop along a solve that is run backwards from its end (MALI)",
    "exact": "backprop where memory allows it, else recompute by segments: the same gradient",
}

OWN = "own"
"""The name in `evaluate` of the gradient method that a trial was trained with."""


PRECISIONS: dict[str, str] = {
    "float32": "32 bits throughout",
    "tf32": "products of 10-bit factors, summed in float32; on a GPU only",
    "bf16": "convolutions and linear layers in bfloat16 (torch.autocast)",
}

RESOLUTIONS: dict[str, float] = {"float32": 1e-7, "tf32": 1e-4, "bf16": 1e-3}
"""Below these tolerances, an adaptive solver's errors no longer shrink, only its steps do.

Measured with dopri5 and a field of two layers. In float32, the error stays at 1e-6 for tolerances
from 1e-7 down; tolerances of 1e-7, 1e-10 and 1e-12 take 92, 578 and more than 3,000 evaluations,
compared with 86, 326 and 812 in float64. In bfloat16, the error stays at 2e-3 from 1e-3 down;
1e-3, 1e-5 and 1e-6 take 26, 140 and 758. The value for tf32 follows from its number of bits.
"""


@dataclass(frozen=True)
class Form:
    """The form of a right-hand side: its layers in order, and the options of its convolutions.

    With `time`, t is appended to every convolution's input as one more channel.
    """

    layers: str
    time: bool
    bias: bool
    source: str


DYNAMICS: dict[str, Form] = {
    "preact": Form("norm act conv norm act conv", time=False, bias=False, source="He et al. 2016b"),
    "original": Form("conv norm act conv norm", time=False, bias=False, source="He et al. 2016a"),
    "postact": Form(
        "conv norm act conv norm act", time=False, bias=False, source="Gusak et al. 2020"
    ),
    "vdcnn": Form(
        "conv norm act conv norm act", time=False, bias=True, source="Conneau et al. 2017"
    ),
    "postnorm": Form(
        "conv act norm conv act norm", time=True, bias=False, source="saparina/neural-ode"
    ),
    "prenorm": Form(
        "norm act conv norm act conv norm", time=True, bias=True, source="Chen et al. 2018, code"
    ),
}

MOTIONS: dict[str, str] = {
    "first-order": "x' = f(t, x)",
    "second-order": "x' = v, v' = f(t, x, v) (Norcliffe et al. 2020)",
    "heavy-ball": "x' = v, v' = f(t, x) - γ v, γ learned (Xia et al. 2021)",
    "generalized-heavy-ball": "x' = tanh(v), v' = f(t, x) - γ v - ξ x (Xia et al. 2021)",
}

STAGES: dict[int, tuple[tuple[int, int], ...]] = {
    4: ((0, 1),),
    6: ((1, 1),),
    10: ((1, 1), (1, 1)),
    18: ((1, 1), (1, 1), (1, 1), (1, 1)),
    34: ((1, 2), (1, 3), (1, 5), (1, 2)),
}
"""Depth -> (residual blocks, ODE blocks) of each stage of an `odenet<depth>`.

A `resnet<depth>` has residual blocks in place of the ODE blocks. Source: Gusak et al. 2020.
"""

VERDICT_NUMBERS = ("own", "limit", "drop", "sufficient_steps", "order")
"""The measures of a verdict on a solver: columns of a report, and metrics of claims."""

GRADIENT_ERROR_NUMBERS = ("gradient_error", "state_gradient_error", "backprop_error")
"""The relative errors of a gradient."""

GRADIENT_NUMBERS = (
    *GRADIENT_ERROR_NUMBERS,
    "gradient_memory_bytes",
    "memory_power",
)
"""The measures of a trial's own gradient: columns of a report, and metrics of claims."""

STEP_NUMBERS = (
    "steps_accepted",
    "steps_rejected",
    "nfe_sample_min",
    "nfe_sample_mean",
    "nfe_sample_max",
)
"""The counts of an adaptive solver's steps: columns of a report, and metrics of claims."""

RESULT_NUMBERS: tuple[str, ...] = (
    *(f"{on}_{what}" for what in ("accuracy", "error", "loss") for on in ("test", "train", "val")),
    "best_test_accuracy", "best_test_error", "parameters", "timed_epoch_s", "peak_memory_bytes",
    "nfe_forward", "nfe_forward_mean", "nfe_backward", "nfe_regularization", "step_size", "tol",
    "step_memory_bytes", *VERDICT_NUMBERS, *GRADIENT_NUMBERS, *STEP_NUMBERS,
)  # fmt: skip
"""The metrics of claims, except for the terms of regularizers."""

DENSE_POSITIONS = 10
"""Up to this many positions, a convolution over a vector is computed as a product of matrices."""

AUGMENTATIONS: dict[str, str] = {
    "crop": "pad by 4 pixels with zeros, then crop at random to the original size",
    "flip": "mirror left to right with probability 1/2",
}

if TYPE_CHECKING:
    MethodName: TypeAlias = str
    NormName: TypeAlias = str
    GradientName: TypeAlias = str
    MeasuredGradient: TypeAlias = str
    ActivationName: TypeAlias = str
    DynamicsName: TypeAlias = str
    MotionName: TypeAlias = str
    Augmentation: TypeAlias = str
    ScipyMethod: TypeAlias = str
    PrecisionName: TypeAlias = str
    ControllerName: TypeAlias = str
else:
    MethodName, NormName = Literal[*METHODS], Literal[*NORM_WORDS]
    GradientName, ActivationName = Literal[*GRADIENTS], Literal[*ACTIVATIONS]
    MeasuredGradient = Literal[OWN, *GRADIENTS]
    DynamicsName, MotionName = Literal[*DYNAMICS], Literal[*MOTIONS]
    Augmentation, ScipyMethod = Literal[*AUGMENTATIONS], Literal[*SCIPY_METHODS]
    PrecisionName = Literal[*PRECISIONS]
    ControllerName = Literal[*CONTROLLERS]


def _is_number(value: Any) -> Any:
    """Rejects values that pydantic would convert to numbers: `true`, and text such as `1_000`."""
    if isinstance(value, bool | str):
        kind = "the text " if isinstance(value, str) else ""
        found = shown(value) if kind else f"`{str(value).lower()}`"
        raise ValueError(f"should be a number, found {kind}{found}")
    return value


LARGEST_INT = 2**63 - 1

# Beyond these, which nobody intends, a trial would run forever or exhaust a machine's memory.
MOST_STEPS = 1_000_000
MOST_WIDE = 65_536
MOST_CHANNELS = 4096
MOST_BLOCKS = 1000
MOST_SAMPLES = 100_000_000
MOST_EPOCHS = 1_000_000
MOST_ITERATIONS = 1_000_000_000
LONGEST_TIME = 1e6
LARGEST_FACTOR = 1e6

A_NUMBER = BeforeValidator(_is_number)
"""Comes last in an annotation, so that a schema has the bounds."""

Integer = Annotated[int, A_NUMBER]
Number = Annotated[float, A_NUMBER]
Flag = StrictBool

Count = Annotated[int, Field(ge=1, le=LARGEST_INT), A_NUMBER]
Size = Annotated[int, Field(ge=0, le=LARGEST_INT), A_NUMBER]
Positive = Annotated[float, Field(gt=0), A_NUMBER]
BelowOne = Annotated[float, Field(ge=0, lt=1), A_NUMBER]
NonNegative = Annotated[float, Field(ge=0), A_NUMBER]

Steps = Annotated[int, Field(ge=1, le=MOST_STEPS), A_NUMBER]
Width = Annotated[int, Field(ge=1, le=MOST_WIDE), A_NUMBER]
Channels = Annotated[int, Field(ge=1, le=MOST_CHANNELS), A_NUMBER]
MoreChannels = Annotated[int, Field(ge=0, le=MOST_CHANNELS), A_NUMBER]
Blocks = Annotated[int, Field(ge=0, le=MOST_BLOCKS), A_NUMBER]
SomeBlocks = Annotated[int, Field(ge=1, le=MOST_BLOCKS), A_NUMBER]
Samples = Annotated[int, Field(ge=1, le=MOST_SAMPLES), A_NUMBER]
HeldOut = Annotated[int, Field(ge=0, le=MOST_SAMPLES), A_NUMBER]
Epochs = Annotated[int, Field(ge=1, le=MOST_EPOCHS), A_NUMBER]
Iterations = Annotated[int, Field(ge=0, le=MOST_ITERATIONS), A_NUMBER]
Time = Annotated[float, Field(gt=0, le=LONGEST_TIME), A_NUMBER]
Factor = Annotated[float, Field(ge=1 / LARGEST_FACTOR, le=LARGEST_FACTOR), A_NUMBER]

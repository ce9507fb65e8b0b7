"""Activations and their gradients, compiled for the CPU by numba, in vectorisable forms."""

from __future__ import annotations

import math

import numpy as np
from numba import types
from numba.extending import overload

from nodebench.ode.compiled.decorators import compiled, compiled_part

BLOCK = 64
"""Samples in a block: a layer of a hundred units fits into the L1 cache."""

RELU, LEAKY_RELU, SIGMOID, TANH, SOFTPLUS, ELU, SILU = range(7)

LEAK = 0.01
"""The slope of leaky ReLU below zero, torch's default."""

LINEAR_FROM = 20
"""Softplus is the identity above this value, as in torch."""

ZERO, HALF, ONE, TWO = (np.float32(each) for each in (0, 0.5, 1, 2))
LARGEST = np.float32(87)  # its exponential is near float32's largest number
LOG2_E = np.float32(1 / math.log(2))
LN_2_HIGH = np.float32(0.693359375)  # its product with a small integer is exact
LN_2_LOW = np.float32(math.log(2) - 0.693359375)
F2, F3, F4, F5, F6, F7 = (np.float32(1 / math.factorial(k)) for k in range(2, 8))
O3, O5, O7, O9, O11, O13, O15 = (np.float32(1 / k) for k in range(3, 17, 2))


@compiled_part
def power_and_rest(x):
    """2^n and exp(r) - 1 in float32, where x = n ln 2 + r, |r| <= ln(2)/2, by exp's series."""
    x = LARGEST if x > LARGEST else x  # this order preserves NaN
    x = -LARGEST if x < -LARGEST else x
    n = np.floor(x * LOG2_E + HALF)
    r = x - n * LN_2_HIGH - n * LN_2_LOW
    series = r + r * r * (F2 + r * (F3 + r * (F4 + r * (F5 + r * (F6 + r * F7)))))
    power = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    return power, series


@compiled_part
def exp(x):
    """The exponential of |x| <= 87 in float32, to 2 units in the last place, vectorisable."""
    power, rest = power_and_rest(x)
    return power * rest + power


@compiled_part
def expm1(x):
    """The exponential minus 1, in the same way."""
    power, rest = power_and_rest(x)
    return power * rest + (power - ONE)


@compiled_part
def log1p(x):
    """log(1 + x) for 0 <= x <= 1, in the same way: the series of 2 artanh(s), s = x / (2 + x)."""
    s = x / (TWO + x)
    q = s * s
    rest = q * (O3 + q * (O5 + q * (O7 + q * (O9 + q * (O11 + q * (O13 + q * O15))))))
    return TWO * s * rest + TWO * s


def sigmoid(x):
    """1 / (1 + exp(-x)), for compiled code."""
    raise NotImplementedError


def tanh(x):
    """The hyperbolic tangent, for compiled code."""
    raise NotImplementedError


def softplus(x):
    """log(1 + exp(x)), for compiled code."""
    raise NotImplementedError


def exp_less_one(x):
    """exp(x) - 1, for compiled code."""
    raise NotImplementedError


@overload(sigmoid)
def _sigmoid(x):
    if x == types.float32:
        return lambda x: ONE / (TWO + expm1(-x))
    return lambda x: 1 / (1 + math.exp(-x))


@overload(tanh)
def _tanh(x):
    def by_expm1(x):
        e = expm1(x + x)
        return e / (e + TWO)

    return by_expm1 if x == types.float32 else lambda x: math.tanh(x)


@overload(softplus)
def _softplus(x):
    if x == types.float32:
        return lambda x: max(x, ZERO) + log1p(exp(-abs(x)))
    return lambda x: max(x, 0.0) + math.log1p(math.exp(-abs(x)))


@overload(exp_less_one)
def _exp_less_one(x):
    if x == types.float32:
        return lambda x: expm1(x)
    return lambda x: math.expm1(x)


@compiled
def activate(out, at, x, row, units, kind, derivatives):
    """Writes the activation of x [units, 1, BLOCK] to out: two arrays, to vectorise loops.

    If the derivative does not follow from the output, it is stored in the rows from `derivatives`.
    """
    zero, one, leak = x.dtype.type(0), x.dtype.type(1), x.dtype.type(LEAK)
    linear, largest = x.dtype.type(LINEAR_FROM), x.dtype.type(LARGEST)
    for i in range(units):
        r = row + i
        if kind == RELU:
            for j in range(BLOCK):
                out[r, at, j] = zero if x[i, 0, j] < zero else x[i, 0, j]
        elif kind == LEAKY_RELU:
            for j in range(BLOCK):
                out[r, at, j] = leak * x[i, 0, j] if x[i, 0, j] < zero else x[i, 0, j]
        elif kind == SIGMOID:
            for j in range(BLOCK):
                out[r, at, j] = sigmoid(x[i, 0, j])
        elif kind == TANH:
            for j in range(BLOCK):
                out[r, at, j] = tanh(x[i, 0, j])
        elif kind == SOFTPLUS:
            for j in range(BLOCK):
                out[r, at, j] = x[i, 0, j] if x[i, 0, j] > linear else softplus(x[i, 0, j])
        elif kind == ELU:
            for j in range(BLOCK):
                out[r, at, j] = x[i, 0, j] if x[i, 0, j] > zero else exp_less_one(x[i, 0, j])
        else:
            for j in range(BLOCK):
                share = sigmoid(x[i, 0, j]) if x[i, 0, j] > -largest else zero
                out[r, at, j] = share * x[i, 0, j]
                out[derivatives + i, at, j] = share * (one + x[i, 0, j] * (one - share))


@compiled
def pull_activation(g, x, at, row, units, kind, derivatives):
    """Multiplies g by the activation's derivative, from its output x or the stored derivative."""
    zero, one, leak = x.dtype.type(0), x.dtype.type(1), x.dtype.type(LEAK)
    linear = x.dtype.type(LINEAR_FROM)
    for i in range(row, row + units):
        if kind == RELU:
            for j in range(BLOCK):
                g[i, at, j] = g[i, at, j] if x[i, at, j] > zero else zero
        elif kind == LEAKY_RELU:
            for j in range(BLOCK):
                g[i, at, j] *= one if x[i, at, j] > zero else leak
        elif kind == SIGMOID:
            for j in range(BLOCK):
                g[i, at, j] *= x[i, at, j] * (one - x[i, at, j])
        elif kind == TANH:
            for j in range(BLOCK):
                g[i, at, j] *= one - x[i, at, j] * x[i, at, j]
        elif kind == SOFTPLUS:
            for j in range(BLOCK):
                g[i, at, j] *= one if x[i, at, j] > linear else -exp_less_one(-x[i, at, j])
        elif kind == ELU:
            for j in range(BLOCK):
                g[i, at, j] *= one if x[i, at, j] > zero else x[i, at, j] + one
        else:
            for j in range(BLOCK):
                g[i, at, j] *= x[derivatives + i - row, at, j]

"""Products of weights with the values of a block of samples, compiled for the CPU by numba.

Sizes are whole numbers of `LANES`, to which layers are padded.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from nodebench.ode.compiled import compiled_part
from nodebench.ode.dense.activations import BLOCK

LANES = 4
"""Units that a product takes at once."""

VECTOR_BYTES = 32
"""A vector register of AVX2, whose 16 hold a tile of 4 by 2, a row of x and a weight."""

VECTORS = 2
"""The vectors of samples in a tile."""


@compiled_part
def multiply(out, to, weights, place, shape, x, of):
    """Out += W x, from the row and column `to` and `of`."""
    outputs, inputs = shape
    out_pitch, x_pitch = out.shape[1] * BLOCK, x.shape[1] * BLOCK
    samples = VECTORS * VECTOR_BYTES // out.itemsize
    for j in range(0, BLOCK, samples):
        for i in range(0, outputs, LANES):
            _add_tile(  # type: ignore[call-arg]  # numba passes the first one
                (out, (to[0] + i) * out_pitch + to[1] * BLOCK + j, out_pitch),
                (weights, place + i * inputs, inputs),
                (x, of[0] * x_pitch + of[1] * BLOCK + j, x_pitch),
                inputs,
            )


@intrinsic
def _add_tile(_typing: Any, out: Any, weights: Any, x: Any, inputs: Any) -> Any:
    """Out += W x, of `LANES` rows and `VECTORS` vectors of samples, whose sums stay in registers.

    Of loops, LLVM makes code that loads and stores the sums for each four weights, at half the
    speed. A matrix is (an array, the place of its first value, values from one row to the next).
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, weights, x = (
            _Matrix(context, builder, kind, value)
            for kind, value in zip(signature.args[:3], arguments[:3], strict=True)
        )
        tile = [(row, vector) for row in range(LANES) for vector in range(VECTORS)]
        sums = {at: cgutils.alloca_once_value(builder, out.load(*at)) for at in tile}
        with cgutils.for_range(builder, arguments[3]) as loop:
            values = [x.load(loop.index, vector) for vector in range(VECTORS)]
            scales = [weights.load_repeated(row, loop.index) for row in range(LANES)]
            for row, vector in tile:
                at = sums[row, vector]
                product = builder.fmul(scales[row], values[vector], flags=("contract",))
                builder.store(builder.fadd(builder.load(at), product, flags=("contract",)), at)
        for at in tile:
            out.store(builder.load(sums[at]), *at)
        return context.get_dummy_value()

    return types.void(out, weights, x, inputs), generate


class _Matrix:
    """A matrix in memory, for code that is generated."""

    def __init__(self, context: Any, builder: Any, kind: Any, value: Any):
        array, self._first, self._pitch = cgutils.unpack_tuple(builder, value)
        self._builder = builder
        self._data = context.make_array(kind[0])(context, builder, array).data
        self._bytes = kind[0].dtype.bitwidth // 8
        number = context.get_value_type(kind[0].dtype)
        self._vector = ir.VectorType(number, VECTOR_BYTES // self._bytes)

    def load(self, row: Any, vector: int) -> Any:
        """A vector of a row."""
        return self._builder.load(self._place_of(row, vector), align=self._bytes)

    def store(self, value: Any, row: Any, vector: int) -> None:
        """Sets a vector of a row."""
        self._builder.store(value, self._place_of(row, vector), align=self._bytes)

    def load_repeated(self, row: Any, column: Any) -> Any:
        """A vector of one value."""
        value = self._builder.load(self._pointer(row, column))
        empty = ir.Constant(self._vector, ir.Undefined)
        first = self._builder.insert_element(empty, value, ir.IntType(32)(0))
        places = ir.Constant(ir.VectorType(ir.IntType(32), self._vector.count), None)  # all zero
        return self._builder.shuffle_vector(first, empty, places)

    def _place_of(self, row: Any, vector: int) -> Any:
        pointer = self._pointer(row, vector * self._vector.count)
        return self._builder.bitcast(pointer, self._vector.as_pointer())

    def _pointer(self, row: Any, column: Any) -> Any:
        before = self._builder.mul(_integer(row), self._pitch)
        place = self._builder.add(self._builder.add(self._first, before), _integer(column))
        return self._builder.gep(self._data, [place], inbounds=True)


def _integer(value: Any) -> Any:
    """A Python integer as a constant of generated code; anything else as it is."""
    return ir.IntType(64)(value) if isinstance(value, int) else value


@compiled_part
def add_outer(by_weights, place, shape, g, row, x, x_row, columns):
    """dL/dW += g x', over so many columns: four rows of g by two of x at a time."""
    outputs, inputs = shape
    zero = g.dtype.type(0)
    for i in range(row, row + outputs, 4):
        for k in range(x_row, x_row + inputs, 2):
            a0 = a1 = b0 = b1 = c0 = c1 = d0 = d1 = zero
            for j in range(columns):
                x0, x1 = x[k, j], x[k + 1, j]
                a0 += g[i, j] * x0
                a1 += g[i, j] * x1
                b0 += g[i + 1, j] * x0
                b1 += g[i + 1, j] * x1
                c0 += g[i + 2, j] * x0
                c1 += g[i + 2, j] * x1
                d0 += g[i + 3, j] * x0
                d1 += g[i + 3, j] * x1
            p = place + (i - row) * inputs + k - x_row
            by_weights[p] += a0
            by_weights[p + 1] += a1
            p += inputs
            by_weights[p] += b0
            by_weights[p + 1] += b1
            p += inputs
            by_weights[p] += c0
            by_weights[p + 1] += c1
            p += inputs
            by_weights[p] += d0
            by_weights[p + 1] += d1

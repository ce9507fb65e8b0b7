"""A tile of a matrix product, whose sums stay in registers while it is computed.

From loops in Python, LLVM generates code that loads and stores the sums for every four products,
at half the speed.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from nodebench.ode.compiled.tile_size import TILE_ROWS, VECTOR_BYTES, VECTORS

TILE = tuple(itertools.product(range(TILE_ROWS), range(VECTORS)))
"""(row, position in the row) of each vector of a tile."""


@intrinsic
def add_tile(_typing: Any, out: Any, left: Any, right: Any, counts: Any) -> Any:
    """out[r, v] += the sum over i, j, ... of left[r, i, j, ...] right[i, j, ..., v].

    Here r runs over `TILE_ROWS`, v over the values of all `VECTORS`, and i, j, ... over the
    `counts`, of which there may be any number. Each factor is (an array, the index of its first
    value, the strides of r, i, j, ...): `out` has only the stride of r, and `right` has all but
    that.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, left, right = _factors(context, builder, signature, arguments[:3])
        tile = {at: out.load(at[:1], at[1]) for at in TILE}
        _store_sum(builder, out, tile, left, right, arguments[3])
        return context.get_dummy_value()

    return types.void(out, left, right, counts), generate


@intrinsic
def set_tile(_typing: Any, out: Any, start: Any, left: Any, right: Any, counts: Any) -> Any:
    """out[r, v] = start[r] + the sum that `add_tile` adds; `start` has only the stride of r."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, start, left, right = _factors(context, builder, signature, arguments[:4])
        starts = [start.load_repeated((row,)) for row in range(TILE_ROWS)]
        tile = {(row, vector): starts[row] for row, vector in TILE}
        _store_sum(builder, out, tile, left, right, arguments[4])
        return context.get_dummy_value()

    return types.void(out, start, left, right, counts), generate


def _store_sum(
    builder: Any,
    out: _Factor,
    tile: dict[tuple[int, int], Any],
    left: _Factor,
    right: _Factor,
    counts: Any,
) -> None:
    """Generates code that adds all products to a tile and then stores it."""
    sums = {at: cgutils.alloca_once_value(builder, value) for at, value in tile.items()}
    with contextlib.ExitStack() as loops:
        loop = [
            loops.enter_context(cgutils.for_range(builder, count)).index
            for count in cgutils.unpack_tuple(builder, counts)
        ]
        values = [right.load(loop, vector) for vector in range(VECTORS)]
        scales = [left.load_repeated((row, *loop)) for row in range(TILE_ROWS)]
        for (row, vector), at in sums.items():
            product = builder.fmul(scales[row], values[vector], flags=("contract",))
            builder.store(builder.fadd(builder.load(at), product, flags=("contract",)), at)
    for at, total in sums.items():
        out.store(builder.load(total), at[:1], at[1])


def _factors(
    context: Any, builder: Any, signature: Any, arguments: Sequence[Any]
) -> Iterator[_Factor]:
    for kind, value in zip(signature.args, arguments, strict=False):  # counts are not a factor
        yield _Factor(context, builder, kind, value)


class _Factor:
    """An array in memory with its strides, for code generation."""

    def __init__(self, context: Any, builder: Any, kind: Any, value: Any):
        array, self._first, *self._distances = cgutils.unpack_tuple(builder, value)
        self._builder = builder
        self._data = context.make_array(kind[0])(context, builder, array).data
        self._bytes = kind[0].dtype.bitwidth // 8
        number = context.get_value_type(kind[0].dtype)
        self._vector = ir.VectorType(number, VECTOR_BYTES // self._bytes)

    def load(self, at: Any, vector: int) -> Any:
        """A vector of adjacent values."""
        return self._builder.load(self._place_of(at, vector), align=self._bytes)

    def store(self, value: Any, at: Any, vector: int) -> None:
        """Sets a vector of adjacent values."""
        self._builder.store(value, self._place_of(at, vector), align=self._bytes)

    def load_repeated(self, at: Any) -> Any:
        """A vector that repeats one value."""
        value = self._builder.load(self._pointer(at))
        empty = ir.Constant(self._vector, ir.Undefined)
        first = self._builder.insert_element(empty, value, ir.IntType(32)(0))
        places = ir.Constant(ir.VectorType(ir.IntType(32), self._vector.count), None)  # all zero
        return self._builder.shuffle_vector(first, empty, places)

    def _place_of(self, at: Any, vector: int) -> Any:
        pointer = self._pointer(at, vector * self._vector.count)
        return self._builder.bitcast(pointer, self._vector.as_pointer())

    def _pointer(self, at: Any, after: int = 0) -> Any:
        place = self._builder.add(self._first, ir.IntType(64)(after))
        for index, distance in zip(at, self._distances, strict=True):
            number = ir.IntType(64)(index) if isinstance(index, int) else index
            place = self._builder.add(place, self._builder.mul(number, distance))
        return self._builder.gep(self._data, [place], inbounds=True)

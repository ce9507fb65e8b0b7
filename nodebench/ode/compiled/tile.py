"""Tiles of a matrix product, whose sums stay in registers while they are computed.

From loops in Python, LLVM generates code that loads and stores the sums for every four products,
at half the speed. A sum is over the same products in the same order in a tile of any size, so that
its bits are the same on all machines.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from nodebench.ode.compiled.decorators import compiled_part
from nodebench.ode.compiled.tile_size import ROW_BYTES, TILE_ROWS


class _Shape(NamedTuple):
    """The rows of a tile, and the size of its vectors in bytes.

    Each has eight vectors: a core starts that many multiply-adds before the first one ends.
    """

    rows: int
    vector_bytes: int

    @property
    def vectors(self) -> int:
        """The vectors of each row."""
        return ROW_BYTES // self.vector_bytes

    @property
    def places(self) -> list[tuple[int, int]]:
        """(row, position in the row) of each vector."""
        return list(itertools.product(range(self.rows), range(self.vectors)))


_SMALL = _Shape(TILE_ROWS, 32)
_LARGE = _Shape(8, 64)
"""A tile in registers of AVX-512, of which AVX2 has too few."""

_HAS_LARGE = llvmlite.binding.get_host_cpu_features().get("avx512vl", False)
_MOST_ROWS = _LARGE.rows if _HAS_LARGE else _SMALL.rows


def _tile_rows(rows: int) -> int:
    return _MOST_ROWS if rows >= _MOST_ROWS else TILE_ROWS


tile_rows: Callable[[int], int] = compiled_part(_tile_rows)
"""Returns the rows of the largest tile among so many rows: at least `TILE_ROWS`."""


@intrinsic
def add_tile(_typing: Any, rows: Any, out: Any, left: Any, right: Any, counts: Any) -> Any:
    """out[r, v] += the sum over i, j, ... of left[r, i, j, ...] right[i, j, ..., v].

    Here r runs over as many rows as `tile_rows` returns, v over the values of `ROW_BYTES`, and
    i, j, ... over the `counts`, of which there may be any number. Each factor is (an array, the
    index of its first value, the strides of r, i, j, ...): `out` has only the stride of r, and
    `right` has all but that.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        for shape in _shapes(builder, arguments[0]):
            factors = signature.args[1:4], arguments[1:4]
            out, left, right = (
                _Factor(context, builder, shape, *f) for f in zip(*factors, strict=True)
            )
            starts = [out.load((row,), vector) for row, vector in shape.places]
            _store_sum(builder, shape, out, starts, left, right, arguments[4])
        return context.get_dummy_value()

    return types.void(rows, out, left, right, counts), generate


@intrinsic
def set_tile(
    _typing: Any, rows: Any, out: Any, start: Any, left: Any, right: Any, counts: Any
) -> Any:
    """out[r, v] = start[r] + the sum that `add_tile` adds; `start` has only the stride of r."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        for shape in _shapes(builder, arguments[0]):
            factors = signature.args[1:5], arguments[1:5]
            out, start, left, right = (
                _Factor(context, builder, shape, *f) for f in zip(*factors, strict=True)
            )
            of_rows = [start.load_repeated((row,)) for row in range(shape.rows)]
            starts = [of_rows[row] for row, _ in shape.places]
            _store_sum(builder, shape, out, starts, left, right, arguments[5])
        return context.get_dummy_value()

    return types.void(rows, out, start, left, right, counts), generate


def _shapes(builder: Any, rows: Any) -> Iterator[_Shape]:
    """The shapes a tile can have; the code generated for one only runs for as many rows."""
    if not _HAS_LARGE:
        yield _SMALL
        return
    is_large = builder.icmp_signed("==", rows, rows.type(_LARGE.rows))
    with builder.if_else(is_large) as (then, otherwise):
        with then:
            yield _LARGE
        with otherwise:
            yield _SMALL


def _store_sum(
    builder: Any,
    shape: _Shape,
    out: _Factor,
    starts: Sequence[Any],
    left: _Factor,
    right: _Factor,
    counts: Any,
) -> None:
    """Generates code that adds all products to the tile's first values and then stores it."""
    sums = [cgutils.alloca_once_value(builder, value) for value in starts]
    with contextlib.ExitStack() as loops:
        loop = [
            loops.enter_context(cgutils.for_range(builder, count)).index
            for count in cgutils.unpack_tuple(builder, counts)
        ]
        values = [right.load(loop, vector) for vector in range(shape.vectors)]
        scales = [left.load_repeated((row, *loop)) for row in range(shape.rows)]
        for (row, vector), at in zip(shape.places, sums, strict=True):
            product = builder.fmul(scales[row], values[vector], flags=("contract",))
            builder.store(builder.fadd(builder.load(at), product, flags=("contract",)), at)
    for (row, vector), total in zip(shape.places, sums, strict=True):
        out.store(builder.load(total), (row,), vector)


class _Factor:
    """An array in memory with its strides, for code generation."""

    def __init__(self, context: Any, builder: Any, shape: _Shape, kind: Any, value: Any):
        array, self._first, *self._distances = cgutils.unpack_tuple(builder, value)
        self._builder = builder
        self._data = context.make_array(kind[0])(context, builder, array).data
        self._bytes = kind[0].dtype.bitwidth // 8
        number = context.get_value_type(kind[0].dtype)
        self._vector = ir.VectorType(number, shape.vector_bytes // self._bytes)

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

"""Columns of rows: what a caller passes, as columns that are converted a slice at a time. Pure.

Takes mappings of columns, data frames of pandas and polars, tables and record batches of pyarrow,
and what can be converted to those by the Arrow PyCapsule interface. Imports none of them: a caller
who passes one has imported it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeAlias, TypeVar

from .._core.arguments import is_array
from .._core.moments import Instants, loaded_numpy
from .._core.offsets import as_objects
from .._core.untrusted import kind_of, listed, reraise_from_handler, shown
from ..errors import InvalidTypeError, InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "COLUMNS",
    "ArrowArray",
    "ArrowStream",
    "Coded",
    "Columns",
    "Constant",
    "Numbers",
    "Objects",
    "Row",
    "Rows",
    "check_names",
    "column",
    "has_columns",
    "is_columns",
    "streamed",
]

#: The names of the columns.
COLUMNS: Final = ("event", "user_id", "moment")

#: The number of a missing moment in numpy.
_NOT_A_TIME: Final = -(2**63)


class Objects(NamedTuple):
    """A column of Python objects.

    Attributes:
        values: a list, or another sequence of the caller.
    """

    values: Any

    def value(self, index: int) -> object:
        """Return the object of a row."""
        return self.values[index]


class Constant(NamedTuple):
    """The same object in all rows."""

    content: object

    def value(self, index: int) -> object:
        """Return the object."""
        del index
        return self.content


class Coded(NamedTuple):
    """A column of which each row has the position of an object.

    Attributes:
        categories: the objects.
        codes: an array of positions; other numbers for rows without an object.
    """

    categories: Sequence[Any]
    codes: Any

    def value(self, index: int) -> object:
        """Return the object of a row."""
        code = int(self.codes[index])
        return self.categories[code] if 0 <= code < len(self.categories) else None


class Numbers(NamedTuple):
    """A column of integers, as an array."""

    values: Any

    def value(self, index: int) -> object:
        """Return the number of a row as an int."""
        return int(self.values[index])


Column = Objects | Constant | Coded | Numbers | Instants


class Columns(NamedTuple):
    """The columns of rows.

    Attributes:
        event, user_id, moment: the columns.
        length: how many rows they have.
    """

    event: Column
    user_id: Column
    moment: Column
    length: int

    @classmethod
    def of(cls, source: Any) -> Columns:
        """Return the columns of a mapping or a data frame.

        Raises:
            InvalidTypeError, InvalidValueError: a column is missing, or is no column.
        """
        _check_columns(source)
        numpy = loaded_numpy()
        moments = (date,) if numpy is None else (date, numpy.datetime64)
        constants: dict[str, Any] = {"event": str, "moment": moments, "user_id": ()}
        event, user_id, moment = columns = [
            column(name, source[name], constants[name] if isinstance(source, Mapping) else ())
            for name in COLUMNS
        ]
        lengths = {
            name: length
            for name, each in zip(COLUMNS, columns, strict=True)
            if (length := _length(each)) is not None
        }
        if "user_id" not in lengths:
            raise InvalidTypeError("user_id must be a column, with the id of each row")
        if len(set(lengths.values())) > 1:
            sizes = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
            raise InvalidValueError(f"columns must have equally many rows, got {sizes}")
        return cls(event, user_id, moment, lengths["user_id"])

    def row(self, index: int) -> tuple[object, object, object]:
        """Return a row as a tuple of objects."""
        return self.event.value(index), self.user_id.value(index), self.moment.value(index)


class ArrowStream(Protocol):
    """A data frame or table that Arrow can read: of pandas, polars, pyarrow, duckdb, ..."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """Return a stream of Arrow."""


class ArrowArray(Protocol):
    """A record batch that Arrow can read."""

    def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
        """Return an array of Arrow."""


RowIdT = TypeVar("RowIdT")

#: A row, and what `mark_rows` takes.
Row: TypeAlias = tuple[str, RowIdT, date] | list[Any]
Rows: TypeAlias = Iterable[Row[RowIdT]] | Mapping[str, Any] | ArrowStream | ArrowArray


def is_columns(source: object) -> bool:
    """Return whether rows are given as columns, or as a stream of columns.

    Raises:
        InvalidTypeError: these are no rows.
    """
    kind = type(source)
    if (
        isinstance(source, (str, bytes, bytearray, memoryview))
        or hasattr(kind, "collect")  # a query of polars
        or not (isinstance(source, Iterable) or hasattr(kind, "__arrow_c_stream__"))
    ):
        raise InvalidTypeError(
            "rows must be an iterable of (event, user id, moment), or columns with these, "
            f"got a {kind_of(source)}"
        )
    if has_columns(source):
        return True
    return any(hasattr(kind, name) for name in ("read_next_batch", "__arrow_c_stream__"))


def streamed(source: Any) -> Iterator[Columns] | None:
    """Return the parts of a table, or a stream, of record batches; ``None`` if this is none."""
    if hasattr(type(source), "to_batches") and hasattr(type(source), "column_names"):
        _check_columns(source)  # there may be no batch
        return map(Columns.of, source.to_batches())
    if hasattr(type(source), "read_next_batch"):
        return map(Columns.of, source)
    if not has_columns(source):
        pyarrow = sys.modules.get("pyarrow")
        if pyarrow is None:
            raise InvalidTypeError(f"import pyarrow before rows are passed as a {kind_of(source)}")
        try:
            reader = pyarrow.RecordBatchReader.from_stream(source)
        except Exception as error:  # such as for one column
            reraise_from_handler(error)
            raise InvalidTypeError(
                f"a {kind_of(source)} has no columns {', '.join(COLUMNS)}: {shown(error)}"
            ) from error
        return map(Columns.of, reader)
    return None


def has_columns(source: object) -> bool:
    """Return whether this is a mapping of columns, or a data frame or table."""
    kind = type(source)
    if isinstance(source, Mapping):
        return True
    if is_array(source):
        return getattr(source, "dtype").names is not None  # noqa: B009 - of an unknown type
    # A query of DuckDB has no ``__iter__``: its columns are queries, too.
    return hasattr(kind, "column_names") or all(
        hasattr(kind, name) for name in ("columns", "dtypes", "__iter__")
    )


def _names(source: Any) -> list[object]:
    if isinstance(source, Mapping):
        return list(source)
    if is_array(source):
        return list(source.dtype.names)
    names: Iterable[object] = getattr(source, "column_names", None) or source.columns
    return list(names)


def check_names(source: Any, wanted: Sequence[str]) -> list[object]:
    """Return the names of the columns of a mapping or a data frame.

    Raises:
        InvalidValueError: one of the wanted columns is missing.
    """
    names = _names(source)
    missing = [name for name in wanted if name not in names]
    if missing:
        raise InvalidValueError(
            f"rows have the columns {', '.join(wanted)}; {' and '.join(missing)} missing, "
            f"got {shown(names)}"
        )
    return names


def _check_columns(source: Any) -> None:
    """Raise an `InvalidValueError` unless a mapping or a data frame has the right columns."""
    names = check_names(source, COLUMNS)
    if isinstance(source, Mapping) and len(names) > len(COLUMNS):
        others = [name for name in names if name not in COLUMNS]
        raise InvalidValueError(
            f"rows have no other columns than {', '.join(COLUMNS)}; "
            f"got {listed(map(shown, others), len(others))}"
        )


def _length(column: Column) -> int | None:
    if isinstance(column, Constant):
        return None
    values = column.codes if isinstance(column, Coded) else column.values
    return len(values)


def column(name: str, values: Any, constants: type | tuple[type, ...] = ()) -> Column:
    """Return one column in the form that takes the least time.

    Arguments:
        name: its name, for errors.
        values: a list, an array, or a column of a data frame.
        constants: the types of values that stand for all rows.

    Raises:
        InvalidTypeError, InvalidValueError: it is none.
    """
    if isinstance(values, constants):
        return Constant(values)
    numpy = loaded_numpy()
    try:
        found = _arrow(values) or _series(values)
        if found is None and hasattr(type(values), "__array__") and numpy is not None:
            found = _array(numpy, name, values)
    except (InvalidTypeError, InvalidValueError):
        raise
    except Exception as error:
        reraise_from_handler(error)
        raise InvalidTypeError(
            f"{name} is a {kind_of(values)} that cannot be read as a column: {shown(error)}"
        ) from error
    if found is not None:
        return found
    if not isinstance(values, Sequence) or isinstance(values, (str, bytes, bytearray, memoryview)):
        raise InvalidTypeError(
            f"{name} must be a column: a list, an array, or one of a data frame; "
            f"got a {kind_of(values)}"
        )
    return Objects(values)


def _array(numpy: Any, name: str, values: Any) -> Column:
    array = numpy.asanyarray(values)
    ma = getattr(numpy, "ma", None)
    if ma is not None and isinstance(array, ma.MaskedArray):
        return Objects([None if item is ma.masked else item for item in array.tolist()])
    array = numpy.asarray(array)
    if array.ndim != 1:
        raise InvalidTypeError(
            f"{name} must be a one-dimensional array, got one of {array.ndim} dimensions"
        )
    if array.dtype.kind == "M":
        native = array.dtype.newbyteorder("=")
        return Instants(numpy.ascontiguousarray(array, dtype=native), aware=False)
    if array.dtype.kind in "iu":
        return Numbers(array)
    return Objects(as_objects(array))


def _series(values: Any) -> Column | None:  # noqa: PLR0911 - a table of cases
    """Return a column of pandas or polars, if this is one that needs more than `_array`."""
    kind = getattr(values, "dtype", None)
    if kind is None or is_array(values) or type(kind).__name__ == "SparseDtype":
        return None
    numpy = loaded_numpy()
    if hasattr(values, "to_physical"):  # polars
        return _polars(numpy, values)
    categories = getattr(kind, "categories", None)
    if categories is not None:  # pandas
        codes = getattr(getattr(values, "cat", values), "codes")  # noqa: B009 - of any type
        return Coded(categories.tolist(), numpy.asarray(codes))
    if getattr(kind, "tz", None) is not None:
        array = values.to_numpy(dtype=f"datetime64[{kind.unit}]")
        return Instants(array, aware=True)
    if getattr(kind, "pyarrow_dtype", None) is not None:
        return _arrow(values.array.__arrow_array__()) if hasattr(values, "array") else None
    if getattr(kind, "na_value", None) is not None and hasattr(values, "isna"):
        # Such as Int64, whose array would be one of floats.
        missing = values.isna()
        if missing.any():
            items = values.astype(object).tolist()
            return Objects(
                [None if gone else item for gone, item in zip(missing, items, strict=True)]
            )
        if kind.kind in "iu":
            return Numbers(values.to_numpy(dtype=kind.numpy_dtype))
    return None


def _polars(numpy: Any, values: Any) -> Column:
    name = (
        type(values.dtype).__name__
        if not isinstance(values.dtype, type)
        else (values.dtype.__name__)
    )
    if numpy is not None and name in ("Datetime", "Date"):
        # Not to_list(): polars panics at years that Python has not.
        numbers = values.to_physical().cast(sys.modules["polars"].Int64).fill_null(_NOT_A_TIME)
        unit = "D" if name == "Date" else values.dtype.time_unit
        array = numbers.to_numpy().view(f"datetime64[{unit}]")
        return Instants(array, aware=getattr(values.dtype, "time_zone", None) is not None)
    if numpy is not None and values.dtype.is_integer() and not values.null_count():
        # numpy has none of 128 bits.
        return Objects(values.to_list()) if name.endswith("128") else Numbers(values.to_numpy())
    return Objects(values.to_list())


def _arrow(values: Any) -> Column | None:  # noqa: PLR0911 - a table of cases
    """Return a column of pyarrow; ``None`` if this is none."""
    pyarrow = sys.modules.get("pyarrow")
    if not hasattr(pyarrow, "ChunkedArray"):
        return None
    assert pyarrow is not None  # noqa: S101 - for type checkers
    if isinstance(values, pyarrow.ChunkedArray):
        if pyarrow.types.is_dictionary(values.type):
            values = values.unify_dictionaries()
        values = (
            values.chunk(0)
            if values.num_chunks == 1
            else pyarrow.concat_arrays(values.chunks)
            if values.num_chunks
            else pyarrow.array([], values.type)
        )
    elif not isinstance(values, pyarrow.Array):
        return None
    types, kind = pyarrow.types, values.type
    numpy = loaded_numpy()
    if numpy is None:
        return Objects(_objects(values))
    if types.is_dictionary(kind) and types.is_temporal(kind.value_type):
        values = values.dictionary_decode()
        kind = values.type
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        values = values.cast(pyarrow.string()).dictionary_encode()
        kind = values.type
    if types.is_dictionary(kind):
        codes = values.indices
        if codes.null_count:
            codes = codes.cast(pyarrow.int64()).fill_null(-1)  # they may be unsigned
        return Coded(_objects(values.dictionary), codes.to_numpy(zero_copy_only=False))
    if types.is_timestamp(kind) or types.is_date(kind):
        integer = pyarrow.int32() if types.is_date32(kind) else pyarrow.int64()
        # A null becomes a NaT.
        numbers = values.cast(integer).cast(pyarrow.int64()).fill_null(_NOT_A_TIME)
        unit = "D" if types.is_date32(kind) else "ms" if types.is_date64(kind) else kind.unit
        array = numbers.to_numpy(zero_copy_only=False).view(f"datetime64[{unit}]")
        if types.is_date64(kind):
            array = array.astype("datetime64[D]")
        return Instants(array, aware=getattr(kind, "tz", None) is not None)
    if types.is_integer(kind) and not values.null_count:
        return Numbers(values.to_numpy(zero_copy_only=False))
    return Objects(_objects(values))


def _objects(values: Any) -> list[Any]:
    """Return an array of pyarrow as a list; what Python has no object for stays a scalar."""
    try:
        listed: list[Any] = values.to_pylist()
    except Exception as error:  # noqa: BLE001 - such as of a duration that is too long
        reraise_from_handler(error)
        return list(map(_object, values))
    return listed


def _object(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except Exception as error:  # noqa: BLE001 - as above
        reraise_from_handler(error)
        return scalar

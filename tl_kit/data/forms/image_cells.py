"""Image cells: what a column of a Parquet table holds, image files or their paths, and the image in one cell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tl_kit.data.forms.columns import PATH_NAMES, plain
from tl_kit.errors import DataError

__all__ = ["holds_files", "holds_texts", "image_of", "paths_in", "sole_holder"]

_DIGESTS = frozenset({"md5", "sha1", "sha256", "sha512", "hash", "digest", "checksum", "uuid", "uid", "guid", "phash"})


def holds_files(schema: Any, column: str, place: str) -> bool:
    """True for a column of image files, or of pairs of bytes and path; False for one of paths or ids.

    Raises DataError, which begins with ``place``, for lists, pixels and anything else.
    """
    kind = _plain(schema.field(column).type)
    if _is_holder(kind):
        return True
    if holds_texts(kind):
        return False
    raise DataError(
        f"{place}: the column '{column}' holds {_words(kind)}; an image is the bytes of an image file, a pair of bytes "
        "and path, or a path: name another column with --image-column"
    )


def holds_texts(kind: Any) -> bool:
    """True for texts and whole numbers, which may be ids."""
    from pyarrow import types

    kind = _plain(kind)
    texts = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    return bool(texts or types.is_integer(kind))


def sole_holder(schema: Any) -> str | None:
    """The one column that holds image files; None for several and for none.

    Without one, the one column of pairs that has a path alone, unless another column has a usual name of paths. A
    digest is no image, though it is made of bytes too.
    """
    names = [plain(str(field.name)) for field in schema]
    kinds = [_plain(field.type) for field in schema]
    files = [place for place, kind in enumerate(kinds) if _has_bytes(kind) and names[place] not in _DIGESTS]
    if not files and not any(name in tier for name in names for tier in PATH_NAMES):
        files = [place for place, kind in enumerate(kinds) if _is_holder(kind) and names[place] not in _DIGESTS]
    return str(schema.names[files[0]]) if len(files) == 1 else None


def image_of(cell: Any) -> tuple[str | None, bytes | None]:
    """Path and bytes of the image in one cell; None for what it does not have."""
    if isinstance(cell, dict):
        path, data = cell.get("path"), cell.get("bytes")
    else:
        path, data = (None, cell) if isinstance(cell, bytes) else (cell, None)
    if isinstance(path, int) and not isinstance(path, bool):
        path = str(path)
    return path if isinstance(path, str) and path else None, data if isinstance(data, bytes) and data else None


def paths_in(source: Any, column: str) -> Iterator[tuple[str]]:
    """The paths in a column of an open Parquet file, without the bytes beside them; none for a column of bytes."""
    from pyarrow import types

    kind = _plain(source.schema_arrow.field(column).type)
    if types.is_struct(kind):
        if "path" not in [field.name for field in kind]:
            return
        wanted = f"{column}.path"
    elif holds_texts(kind):
        wanted = column
    else:
        return
    for batch in source.iter_batches(columns=[wanted]):
        for cell in batch.column(0).to_pylist():
            path, _ = image_of(cell)
            if path is not None:
                yield (path,)


def _plain(kind: Any) -> Any:
    """The type of the values of a column of categories; any other type itself."""
    from pyarrow import types

    return kind.value_type if types.is_dictionary(kind) else kind


def _is_holder(kind: Any) -> bool:
    from pyarrow import types

    if types.is_struct(kind) and any(field.name == "path" and holds_texts(field.type) for field in kind):
        return True
    return _has_bytes(kind)


def _has_bytes(kind: Any) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        return any(field.name == "bytes" and _is_binary(field.type) for field in kind)
    return _is_binary(kind)


def _is_binary(kind: Any) -> bool:
    from pyarrow import types

    tests = (types.is_binary, types.is_large_binary, types.is_binary_view)
    return any(test(kind) for test in tests)


def _words(kind: Any) -> str:
    from pyarrow import types

    if types.is_null(kind):
        return "nothing"
    lists = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view)
    return "lists" if any(test(kind) for test in lists) else f"values of the type {kind!s:.40}"

"""Rows of predictions as a Parquet file, made from JSON lines."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

from tl_kit.config import StreamConfig
from tl_kit.errors import ConfigError
from tl_kit.optional_packages import check_packages

__all__ = ["check_parquet", "write_parquet"]


def check_parquet(what: str) -> None:
    """Raises ConfigError, which begins with ``what`` needs it, where pyarrow is not installed."""
    check_packages(what, "pyarrow", extra="data", error=ConfigError)


def write_parquet(lines: Path, file: Path, *, config: StreamConfig = StreamConfig()) -> None:
    """Write the rows of a file of JSON lines (:class:`Rows`) as Parquet, a row group at a time.

    Columns: path, label and error as text, probability as a double, top as a list of label and probability. Texts in
    Parquet are Unicode: a byte of a file name that is not UTF-8 becomes an escape such as ``\\udcff``.
    """
    import pyarrow
    from pyarrow import parquet

    entry = pyarrow.struct([("label", pyarrow.string()), ("probability", pyarrow.float64())])
    schema = pyarrow.schema(
        [
            ("path", pyarrow.string()),
            ("label", pyarrow.string()),
            ("probability", pyarrow.float64()),
            ("top", pyarrow.list_(entry)),
            ("error", pyarrow.string()),
        ]
    )
    with lines.open(encoding="ascii") as source, parquet.ParquetWriter(str(file), schema) as writer:
        while rows := [_unicode(json.loads(line)) for line in islice(source, config.group_rows)]:
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema), row_group_size=config.group_rows)


def _unicode(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, list):
        return [_unicode(item) for item in value]
    return {key: _unicode(item) for key, item in value.items()} if isinstance(value, dict) else value

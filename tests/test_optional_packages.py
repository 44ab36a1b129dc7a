"""Packages that are missing: one sentence, with the command that installs them."""

from __future__ import annotations

import pytest

from tl_kit.errors import ConfigError
from tl_kit.optional_packages import check_packages, needs, pip_install


@pytest.mark.parametrize(
    ("names", "text"), [(["a"], "needs a;"), (["a", "b"], "needs a and b;"), (["a", "b", "c"], "needs a, b and c;")]
)
def test_the_sentence_names_what_is_missing(names: list[str], text: str) -> None:
    assert needs("--x", names, "pip install a") == f"--x: {text} run pip install a"


def test_only_missing_modules_are_named() -> None:
    check_packages("x", "json", "pathlib", extra="data", error=ConfigError)
    with pytest.raises(ConfigError, match=r'^x: needs no_such_module; run pip install "tl-kit\[a,b\]"$'):
        check_packages("x", "json", "no_such_module", extra="a,b", error=ConfigError)
    assert pip_install("a,b") == 'pip install "tl-kit[a,b]"'

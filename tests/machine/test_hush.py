"""A warning that is silenced stays so, whoever else sets rules; all others are heard."""

from __future__ import annotations

import warnings

import pytest

from tl_kit.machine.hush import hush


def test_only_that_text_is_silenced_and_the_rule_is_there_once() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hush("a (known) nuisance")
        count = len(warnings.filters)
        hush("a (known) nuisance")
        assert len(warnings.filters) == count
        warnings.warn("a (known) nuisance, and more", UserWarning, stacklevel=1)
        with pytest.raises(UserWarning, match="another"):
            warnings.warn("another", UserWarning, stacklevel=1)

"""Classes are matched by name, whatever their order, and nothing else passes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tl_kit.class_names import nfc_names
from tl_kit.combining.class_order import align_classes
from tl_kit.combining.ensemble_rules import mean
from tl_kit.errors import MemberError

no_deadline = settings(deadline=None)  # timings on a shared machine say nothing here
names = st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=12, unique=True)


def test_by_hand():
    reference, columns = align_classes([["2", "10", "1"], ["1", "10", "2"], ["2", "10", "1"]], ["a", "b", "c"])
    assert reference == ("2", "10", "1")
    assert columns == [[0, 1, 2], [2, 1, 0], [0, 1, 2]]


@no_deadline
@given(names, st.lists(st.randoms(use_true_random=False), min_size=1, max_size=4))
def test_columns_bring_every_member_into_the_reference_order(classes, randoms):
    orders = [classes, *(random.sample(classes, len(classes)) for random in randoms)]
    reference, columns = align_classes(orders, [str(i) for i in range(len(orders))])
    assert reference == nfc_names(classes)
    for order, column in zip(orders, columns, strict=True):
        assert [order[c] for c in column] == classes


@no_deadline
@given(st.integers(0, 2**32 - 1), st.integers(2, 8))
def test_shuffled_members_give_the_same_ensemble(seed, classes):
    rng = np.random.default_rng(seed)
    labels = [f"class {c}" for c in range(classes)]
    stack = rng.dirichlet(np.ones(classes), (3, 5))
    orders = [np.arange(classes), *(rng.permutation(classes) for _ in range(2))]
    _, columns = align_classes([[labels[c] for c in order] for order in orders], ["a", "b", "c"])
    shuffled = [member[:, order] for member, order in zip(stack, orders, strict=True)]
    aligned = [member[:, column] for member, column in zip(shuffled, columns, strict=True)]
    assert np.array_equal(mean(aligned), mean(stack))


@pytest.mark.parametrize(
    ("other", "parts"),
    [
        (["cat", "dog"], ["missing 'eel'"]),
        (["cat", "dog", "eel", "fox"], ["extra 'fox'"]),
        (["cat", "dog", "Eel"], ["missing 'eel'", "extra 'Eel'"]),
        ([], ["missing 'cat', 'dog', 'eel'"]),
    ],
)
def test_other_names_are_refused(other, parts):
    with pytest.raises(MemberError) as caught:
        align_classes([["cat", "dog", "eel"], ["eel", "dog", "cat"], other], ["ckpts/a", "ckpts/b", "ckpts/c"])
    message = str(caught.value)
    assert message.startswith("ckpts/c: other classes than ckpts/a")
    assert all(part in message for part in parts)
    assert ("missing" in message, "extra" in message) == tuple(
        any(part.startswith(word) for part in parts) for word in ("missing", "extra")
    )
    assert "\n" not in message


def test_a_long_difference_stays_one_short_line():
    with pytest.raises(MemberError, match="missing '0', '1', '2', '3', '4' and 995 more") as caught:
        align_classes([[str(c) for c in range(1000)], [f"n{c}" for c in range(1000)]], ["a", "b"])
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("position", [0, 1])
def test_repeated_names_are_refused(position):
    members = [["cat", "dog"], ["cat", "dog"]]
    members[position] = ["cat", "dog", "cat"]
    with pytest.raises(MemberError, match=f"m{position}.*repeated: 'cat'"):
        align_classes(members, ["m0", "m1"])


def test_no_members_are_refused():
    with pytest.raises(MemberError, match="at least one"):
        align_classes([], [])


def test_names_must_be_one_a_member():
    with pytest.raises(ValueError, match="one name a member"):
        align_classes([["cat"]], ["a", "b"])

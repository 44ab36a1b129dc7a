"""Class order of ensemble members: classes are matched by name, and members with other classes are refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from tl_kit.class_names import nfc_names
from tl_kit.errors import MemberError

__all__ = ["align_classes"]

_NAMES_SHOWN = 5


def align_classes(
    member_classes: Sequence[Sequence[str]], names: Sequence[str]
) -> tuple[tuple[str, ...], list[list[int]]]:
    """Bring the members' classes into the order of the first one. Names are compared in composed Unicode.

    A data set may be given first, like a member: then its class order is the reference.

    Args:
        member_classes: of each member, the class names in the order of its outputs.
        names: of each member, the path that error messages show.

    Returns:
        The reference classes (k names), and for each member k column numbers: ``probabilities[:, columns]`` are that
        member's probabilities in the reference order.

    Raises:
        MemberError: there are no members, or a member repeats a name, or its names are not those of the first.
        ValueError: ``names`` are not one a member.
    """
    if len(names) != len(member_classes):
        raise ValueError(f"want one name a member, got {len(names)} names for {len(member_classes)} members")
    if not member_classes:
        raise MemberError("an ensemble needs at least one checkpoint: none was given")
    reference = nfc_names(member_classes[0])
    permutations = []
    for name, classes in zip(names, map(nfc_names, member_classes), strict=True):
        repeated = [label for label, count in Counter(classes).items() if count > 1]
        if repeated:
            raise MemberError(f"{name}: class names must differ, repeated: {_listed(repeated)}")
        position = {label: index for index, label in enumerate(classes)}
        if position.keys() != set(reference):
            raise MemberError(_difference(name, classes, other=names[0], reference=reference))
        permutations.append([position[label] for label in reference])
    return reference, permutations


def _difference(name: str, classes: Collection[str], *, other: str, reference: Collection[str]) -> str:
    have, want = set(classes), set(reference)
    missing = [label for label in reference if label not in have]
    extra = [label for label in classes if label not in want]
    parts = [f"missing {_listed(missing)}"] * bool(missing) + [f"extra {_listed(extra)}"] * bool(extra)
    return f"{name}: other classes than {other}: {'; '.join(parts)}; leave it out, or train it on the same classes"


def _listed(labels: Sequence[str]) -> str:
    shown = ", ".join(repr(label) for label in labels[:_NAMES_SHOWN])
    rest = len(labels) - _NAMES_SHOWN
    return f"{shown} and {rest} more" if rest > 0 else shown

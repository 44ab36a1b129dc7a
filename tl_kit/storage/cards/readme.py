"""``README.md`` of a checkpoint or an ensemble: its model card, with the metadata that the Hugging Face hub reads.

It is made from the folder's own records. It names classes, but no path, no file and no folder of the user's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_kit.display import HONEST, visible
from tl_kit.errors import CheckpointError
from tl_kit.score_kinds import OUT_OF_FOLD, notes_on
from tl_kit.storage.atomic import write_text
from tl_kit.storage.cards.pretrained_origin import Origin, origin_of
from tl_kit.storage.cards.readme_loading import loading
from tl_kit.storage.cards.recorded_scores import Score, gain_of, mapping, score_of, texts_of
from tl_kit.untrusted import read_json
from tl_kit.zoo.model_card import CONFIG

__all__ = ["README", "Network", "checkpoint_readme", "code", "ensemble_readme", "write_readme"]

README = "README.md"

_REFITTED = (
    "The classifier was fitted to the validation images too, in the end. The scores on val are those of the one "
    "before, which had not seen them; the scores on test are those of the final one."
)
_TRAINED_AGAIN = (
    "In the end, {who} trained once more, on the validation images too. The scores on val are those of the first "
    "training, without these images. Scores on test, where there are any, are those of the second."
)
_INTERVAL = "The interval is Wilson's, for the number of images alone."
_KINDS = {
    HONEST[0]: "Kind test: what is scored was not trained on these images, nor chosen by them.",
    OUT_OF_FOLD: "Kind out of fold: each image was scored by a model that was trained without it.",
}
_SHOWN_CLASSES = 200
_SINGLE = "single members, each on images that it has not seen"
_COLUMNS = {"balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1", "nll": "NLL", "ece": "ECE"}
_SHARES = ("accuracy", "balanced_accuracy", "macro_f1", "ece")


@dataclass(frozen=True, kw_only=True)
class Network:
    """The contents of one checkpoint's ``config.json`` and ``tlkit.json``; ``name``: what an ensemble's card calls it.

    An entry of another type than tl-kit writes counts as missing.
    """

    config: Mapping[str, Any]
    meta: Mapping[str, Any]
    name: str = ""

    @classmethod
    def read(cls, folder: Path, meta: Mapping[str, Any], name: str = "") -> Network:
        """Read the ``config.json`` of the folder with this record. Raises CheckpointError if it is broken."""
        return cls(config=read_json(folder / CONFIG, error=CheckpointError), meta=meta, name=name)

    @property
    def architecture(self) -> str:
        return visible(str(self.config.get("architecture", "unknown")))

    @property
    def origin(self) -> Origin:
        return origin_of(self.config, self.meta)

    @property
    def scores(self) -> list[Score]:
        """The scores in its record, those on test images first."""
        kinds, counts = mapping(self.meta.get("kinds")), self.images
        found = [
            score_of(split, self.meta.get(split), kinds.get(split), counts.get(split)) for split in ("test", "val")
        ]
        crossed = mapping(self.meta.get("cross_validated"))
        found.append(score_of("train and val", crossed, OUT_OF_FOLD, crossed.get("images")))
        return [score for score in found if score is not None]

    @property
    def images(self) -> dict[str, int]:
        """Numbers of images by split, as far as the record has them."""
        data = mapping(self.meta.get("data"))
        counts = mapping(data.get("images"))
        listed = {split: len(data[split]) for split in ("train", "val") if split in data}
        return {**listed, **{split: number for split, number in counts.items() if type(number) is int}}


@dataclass(frozen=True, kw_only=True)
class _Card:
    """Content of a card before it is put into words."""

    title: str
    summary: str
    classes: Sequence[str]
    networks: Sequence[Network]
    scores: Sequence[Score]
    chose: Sequence[str]
    library: str
    further: Sequence[str]
    rows: Sequence[str] = ()


def write_readme(folder: Path, text: str) -> None:
    """Write ``README.md``, atomically, in UTF-8."""
    write_text(folder / README, text)


def checkpoint_readme(network: Network, *, further: Sequence[Score] = (), repository: str | None = None) -> str:
    """The card of a checkpoint. ``further``: scores that others measured, in place of those on the same split.

    ``repository``: the ``OWNER/NAME`` on the hub that it is written for; None: for a folder.
    """
    count, policy = len(network.meta["classes"]), network.meta.get("policy")
    trained = f", fine-tuned under the policy {code(str(policy))}" if policy else ""
    card = _Card(
        title=f"{network.architecture} for {_number(count, 'class', 'classes')}",
        summary=f"An image classifier: {code(network.architecture)} of timm{trained}, written by tl-kit"
        f"{_version(network.meta)}. It gives each image a probability for each class.",
        classes=network.meta["classes"],
        networks=[network],
        scores=_merged(network.scores, further),
        chose=texts_of(network.meta.get("chosen_by_val")),
        library="timm",
        further=_fitted_again(network),
    )
    return _text(card, repository)


def ensemble_readme(
    content: Mapping[str, Any],
    members: Sequence[Network],
    *,
    further: Sequence[Score] = (),
    repository: str | None = None,
) -> str:
    """The card of an ensemble; ``content`` is that of its ``ensemble.json``, ``further`` as for a checkpoint."""
    receipt, data = mapping(content.get("receipt")), mapping(content.get("data"))
    rule, gain = code(str(content.get("rule", "mean"))), gain_of(receipt)
    card = _Card(
        title=f"Ensemble of {_number(len(members), 'network', 'networks')} for "
        f"{_number(len(content['classes']), 'class', 'classes')}",
        summary=f"An image classifier: {_number(len(members), 'network', 'networks')}, whose predictions are combined "
        f"by the rule {rule}, written by tl-kit. It gives each image a probability for each class.",
        classes=content["classes"],
        networks=members,
        scores=_merged(_receipt_scores(receipt), further),
        chose=texts_of(receipt.get("chosen_by_val")) or texts_of(data.get("selected")),
        library="tl-kit",
        further=[*([] if gain is None else [gain]), *_repeated(members)],
        rows=list(_member_rows(members)),
    )
    return _text(card, repository, member=members[0].name)


def _repeated(members: Sequence[Network]) -> list[str]:
    """A sentence on the members that trained once more; none where there are none."""
    again = sum(map(_again, members))
    who = "the members were" if again == len(members) else f"{again} of the members {'was' if again == 1 else 'were'}"
    return [_TRAINED_AGAIN.format(who=who)] if again else []


def _fitted_again(network: Network) -> list[str]:
    """A sentence on what was fitted to validation images in the end; none where nothing was."""
    if network.meta.get("refit") is not True:
        return []
    return [_TRAINED_AGAIN.format(who="the network was") if _again(network) else _REFITTED]


def _again(network: Network) -> bool:
    """True for the second training of a run, on its validation images too."""
    return "settled" in mapping(network.meta.get("settings"))


def _receipt_scores(receipt: Mapping[str, Any]) -> list[Score]:
    ensemble, images, kinds = (mapping(receipt.get(name)) for name in ("ensemble", "images", "kinds"))
    found = [score_of(split, ensemble.get(split), kinds.get(split), images.get(split)) for split in ("test", "val")]
    crossed = mapping(receipt.get("out_of_fold"))
    found.append(score_of(_SINGLE, crossed.get("scores"), OUT_OF_FOLD, crossed.get("images")))
    return [score for score in found if score is not None]


def _merged(own: Sequence[Score], further: Sequence[Score]) -> list[Score]:
    replaced = {score.split for score in further}
    return [*further, *(score for score in own if score.split not in replaced)]


def _text(card: _Card, repository: str | None, *, member: str = "") -> str:
    sections = [
        ("Classes", _class_text(card.classes)),
        ("Data", _data_text(card.networks)),
        ("Scores", _score_text(card)),
        *([("Members", "\n".join(card.rows))] if card.rows else []),
        ("Limits", _limits(card)),
        ("Licence of the pretrained weights", _licence_text(card.networks)),
        ("Use", loading(card.networks[0].architecture, member, repository)),
    ]
    body = "\n".join(f"## {heading}\n\n{text}\n" for heading, text in sections)
    # Not ModelCard.from_template: it compiles its template and reads back what it wrote, at the end of every run.
    return f"---\n{_metadata(card).to_yaml()}\n---\n\n# {card.title}\n\n{card.summary}\n\n{body}".rstrip() + "\n"


def _metadata(card: _Card) -> Any:
    from huggingface_hub import EvalResult, ModelCardData

    origins = [network.origin for network in card.networks]
    licences = {origin.licence for origin in origins}
    licence = licences.pop() if len(licences) == 1 else None
    honest = [score for score in card.scores if score.kind in HONEST and score.split != _SINGLE]
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type="imagefolder",
            dataset_name="own images",
            dataset_split=score.split,
            metric_type="accuracy",
            metric_name=f"accuracy ({score.kind}){_of_interval(score)}",
            metric_value=round(score.figures["accuracy"], 4),
        )
        for score in honest
    ]
    return ModelCardData(
        license=licence.identifier if licence else None,
        license_name=licence.other_name if licence else None,
        library_name=card.library,
        pipeline_tag="image-classification",
        tags=["image-classification", "timm", "transformers", "tl-kit"],
        base_model=sorted({origin.repository for origin in origins if origin.repository}) or None,
        model_name=card.title if results else None,
        eval_results=results or None,
    )


def _class_text(classes: Sequence[str]) -> str:
    shown = ", ".join(code(name) for name in classes[:_SHOWN_CLASSES])
    more = len(classes) - _SHOWN_CLASSES
    return f"In the order of the outputs: {shown}" + (f", and {more:,} more." if more > 0 else ".")


def _data_text(networks: Sequence[Network]) -> str:
    told = list(dict.fromkeys(_images(network.images) for network in networks))
    text = told[0] if len(told) == 1 else f"The members had different images: {'; '.join(told)}"
    return f"{text}. The images are not part of this folder."


def _images(counts: Mapping[str, int]) -> str:
    words = {"train": "for training", "val": "for validation", "test": "for the test"}
    parts = [f"{counts[split]:,} {word}" for split, word in words.items() if counts.get(split)]
    return f"Images: {', '.join(parts)}" if parts else "The record does not say how many images there were"


def _score_text(card: _Card) -> str:
    if not card.scores:
        return "None is recorded."
    lines = [
        "| images | kind | number | accuracy | 95 % interval | " + " | ".join(_COLUMNS.values()) + " |",
        "| --- | --- " + "| ---: " * (3 + len(_COLUMNS)) + "|",
    ]
    for score in card.scores:
        mark = "" if score.kind in HONEST else "*"
        number = "unknown" if score.images is None else f"{score.images:,}"
        interval = score.interval
        within = "unknown" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"
        cells = [_figure(name, score.figures.get(name)) for name in ("accuracy", *_COLUMNS)]
        rest = " | ".join(cells[1:])
        lines.append(f"| {score.split}{mark} | {score.kind} | {number} | {cells[0]} | {within} | {rest} |")
    kinds = {score.split: score.kind for score in card.scores if score.kind != OUT_OF_FOLD}
    crossed = any(score.kind == OUT_OF_FOLD for score in card.scores)
    notes = [line.replace("*", "\\*", 1) for line in notes_on([kinds], card.chose, cross_validated=crossed)]
    present = {score.kind for score in card.scores}
    kinds_note = " ".join(text for kind, text in _KINDS.items() if kind in present)
    further = [kinds_note] if kinds_note else []
    return "\n".join([*lines, "", "\n\n".join([_INTERVAL, *further, *notes, *card.further])])


def _figure(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{100 * value:.1f} %" if name in _SHARES else f"{value:.3f}"


def _of_interval(score: Score) -> str:
    found = score.interval
    return "" if found is None else f", 95 % interval {found[0]:.3f} to {found[1]:.3f}"


def _member_rows(members: Sequence[Network]) -> Iterator[str]:
    yield "| member | network | val accuracy | test accuracy |"
    yield "| --- | --- | ---: | ---: |"
    for member in members:
        own = {score.split: _figure("accuracy", score.figures["accuracy"]) for score in member.scores}
        yield f"| {code(member.name)} | {member.architecture} | {own.get('val', '')} | {own.get('test', '')} |"
    yield ""
    yield "These are the scores of the members' own runs; the kind of each is in the member's own record."


def _limits(card: _Card) -> str:
    lines = [
        "It knows these classes alone: an image of anything else gets one of them too, perhaps with high probability.",
        "The scores hold for images like those that it was trained and tested on: other cameras, places or times can "
        "be harder.",
    ]
    networks = card.networks
    precisions = sorted({visible(str(network.meta.get("precision", "fp32"))) for network in networks} - {"fp32"})
    if precisions:
        lines.append(
            f"tl-kit computes in {' and '.join(precisions)} here, as in training; timm and transformers compute in "
            "fp32, so that their probabilities differ a little (up to some hundredths where two classes are close)."
        )
    decoders = sorted({visible(str(network.meta.get("decoder", "pillow"))) for network in networks} - {"pillow"})
    if decoders:
        lines.append(
            f"JPEGs were decoded by {' and '.join(decoders)}; timm and transformers decode with Pillow, whose pixels "
            "differ by a level here and there. tl-kit does the same where there is no GPU."
        )
    if any(network.meta.get("ranges") for network in networks):
        lines.append(
            "It was trained on images of more than 8 bits a sample. Only tl-kit reads such images over the range that "
            "they use; timm and transformers clip them, and their predictions of them are wrong."
        )
    lines += [
        "transformers and timm resize, crop and normalise as tl-kit does, from `config.json`. They do not put "
        "transparent images on white, read images of more than 8 bits, or take the middle of images whose sides differ "
        "by a factor of 20 or more.",
        "tl-kit decodes JPEGs whose shorter side is more than about 4 times that of the network's input at a half, a "
        "quarter or an eighth of their size. The others decode them whole: their probabilities then differ as if the "
        "photo had been saved anew.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _licence_text(networks: Sequence[Network]) -> str:
    lines = list(dict.fromkeys(f"{network.architecture}: {network.origin.sentence}" for network in networks))
    return "\n\n".join(lines)


def code(text: str) -> str:
    """Any text as code in Markdown, which nothing in it can end: on one line, between more backticks than it has."""
    shown = visible(text).replace("|", "¦")  # a bar would end a table's cell
    longest = max(map(len, "".join(c if c == "`" else " " for c in shown).split()), default=0)
    fence = "`" * (longest + 1)
    pad = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def _version(meta: Mapping[str, Any]) -> str:
    versions = mapping(meta.get("versions"))
    return f" {visible(str(versions['tl_kit']))}" if versions.get("tl_kit", "unknown") != "unknown" else ""


def _number(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"

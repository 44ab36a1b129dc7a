"""The last section of a model card: the code that opens the folder in tl-kit, timm and transformers."""

from __future__ import annotations

__all__ = ["loading"]

_TL_KIT = """With tl-kit:

```python
import tl_kit
{fetch}
for prediction in tl_kit.load({folder}).predict("photo.jpg"):
    print(prediction.label, prediction.probabilities)
```"""
_TIMM = """With timm{which}:

```python
import timm
import torch
from PIL import Image, ImageOps
{fetch}
model = timm.create_model({name}, pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
image = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")
with torch.inference_mode():
    probabilities = model(transform(image)[None]).softmax(dim=-1)[0].tolist()
print(dict(zip(model.pretrained_cfg["label_names"], probabilities)))
```"""
_TRANSFORMERS = """With transformers{which} (5.0 or newer):

```python
from transformers import pipeline
{fetch}
classify = pipeline("image-classification", {folder})
print(classify("photo.jpg", top_k=classify.model.config.num_labels))
```"""


def loading(architecture: str, member: str, repository: str | None) -> str:
    """Three blocks of code. ``member``: the first member's folder in an ensemble, ``""`` for a checkpoint.

    ``repository``: its name on the hub; None for a folder, whose path and whose members' the card does not know.
    """
    which = f", the first member alone, a {architecture}" if member else ""
    fetch = inside = ""
    if repository is None:
        opened = "MEMBER" if member else "FOLDER"
        folder, timm, transformers = '"FOLDER"', f'"local-dir:{opened}"', f'"{opened}"'
    else:
        fetch = f'from huggingface_hub import snapshot_download\n\nfolder = snapshot_download("{repository}")'
        folder, timm, transformers = "folder", f'"hf-hub:{repository}"', f'"{repository}"'
        if member:  # in a folder below the repository's, which neither opens by an address
            inside, timm, transformers = fetch, f'f"local-dir:{{folder}}/{member}"', f'f"{{folder}}/{member}"'
    blocks = [
        _TL_KIT.format(fetch=fetch, folder=folder),
        _TIMM.format(which=which, fetch=inside, name=timm),
        _TRANSFORMERS.format(which=which, fetch=inside, folder=transformers),
    ]
    if member:
        blocks.append("timm and transformers open the members one by one; only tl-kit combines them.")
    if repository is None:
        below = ", and `MEMBER` for that of a folder in its `members`" if member else ""
        blocks.insert(0, f"`FOLDER` stands for the path of this folder{below}.")
    return "\n\n".join(blocks)

"""Files of model repositories: taken from the local Hugging Face cache, or downloaded into it.

Without a network, the hub client retries for most of a minute. One short request before a download shows within seconds
whether the hub can be reached.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from torch.hub import download_url_to_file, get_dir

from tl_kit.errors import WeightsError, first_line
from tl_kit.untrusted import sha256
from tl_kit.zoo.silence_timm import quiet

__all__ = ["CONNECT_TIMEOUT", "cached_file", "cached_url", "download", "download_url", "reach", "reachable"]

CONNECT_TIMEOUT = 5.0  # seconds


def cached_file(repository: str, filenames: Iterable[str]) -> Path | None:
    """The first of ``filenames`` of ``owner/name[@revision]`` in the local cache, or None. Uses no network."""
    repo_id, _, revision = repository.partition("@")
    for filename in filenames:
        try:
            found = huggingface_hub.try_to_load_from_cache(repo_id, filename, revision=revision or None)
        except HFValidationError as error:
            raise WeightsError(f"hf-hub:{repository}: not a repository name; write hf-hub:OWNER/NAME") from error
        if isinstance(found, str):
            return Path(found)
    return None


def download(repository: str, filenames: Iterable[str]) -> Path:
    """Download the first of ``filenames`` that the repository has, into the cache.

    Raises WeightsError, within seconds, if the hub cannot be reached, is switched off by HF_HUB_OFFLINE, or lacks the
    repository or all of the files.
    """
    repo_id, _, revision = repository.partition("@")
    reach(constants.ENDPOINT)
    for filename in filenames:
        try:
            with quiet():
                path = huggingface_hub.hf_hub_download(
                    repo_id,
                    filename,
                    revision=revision or None,
                    etag_timeout=CONNECT_TIMEOUT,
                    library_name="tl-kit",
                )
            _check_digest(Path(path), repository)
            return Path(path)
        except LocalEntryNotFoundError as error:
            raise WeightsError(f"{repository}: the download failed ({first_line(error)})") from error
        except EntryNotFoundError:
            continue
        except WeightsError:
            raise
        except GatedRepoError as error:
            raise WeightsError(f"{repository}: accept its licence on the hub, then run hf auth login") from error
        except RepositoryNotFoundError as error:
            raise WeightsError(f"{repository}: the hub has no such repository, or it is private") from error
        except Exception as error:
            raise WeightsError(f"{repository}: the download failed ({first_line(error)})") from error
    raise WeightsError(f"{repository}: the repository holds none of {', '.join(filenames)}")


def _check_digest(path: Path, repository: str) -> None:
    """Compare a large file with its SHA-256, by which the cache names it: the client compares only the sizes.

    A file of other bytes is removed. Small files have a name of another kind, and systems without links have none.
    """
    file = path.resolve()
    if re.fullmatch("[0-9a-f]{64}", file.name) and sha256(file, error=WeightsError) != file.name:
        path.unlink(missing_ok=True)
        file.unlink(missing_ok=True)
        raise WeightsError(
            f"{repository}: {path.name} came with other bytes than its SHA-256 promises, so it is not kept; try again, "
            "or find out what stands between you and the hub"
        )


def cached_url(url: str) -> Path | None:
    """The file of an earlier download by timm or torch.hub, or None."""
    path = _url_target(url)
    return path if path.is_file() else None


def download_url(url: str) -> Path:
    """Download weights that timm lists by URL only into torch.hub's cache, and check the hash in their name."""
    reach(url)
    path = _url_target(url)
    digest = re.search(r"-([0-9a-f]{8,})\.", path.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with quiet():
            download_url_to_file(url, str(path), hash_prefix=digest and digest.group(1), progress=False)
        return path
    except Exception as error:
        raise WeightsError(f"{url}: the download failed ({first_line(error)})") from error


def _url_target(url: str) -> Path:
    return Path(get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]


def reachable() -> bool:
    """True where the hub answers one short request."""
    try:
        reach(constants.ENDPOINT)
    except WeightsError:
        return False
    return True


def reach(url: str) -> None:
    """Raises WeightsError unless the host of this address answers one short request."""
    try:
        with quiet():
            huggingface_hub.get_session().head(url, timeout=CONNECT_TIMEOUT)
    except OfflineModeIsEnabled as error:
        raise WeightsError("downloads are switched off (HF_HUB_OFFLINE)") from error
    except Exception as error:
        host = url.split("//")[-1].split("/")[0]
        raise WeightsError(f"{host} cannot be reached ({first_line(error)})") from error

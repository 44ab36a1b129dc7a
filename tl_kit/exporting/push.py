"""``push``: publishes a checkpoint or an ensemble as a repository on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # it is in its documentation
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from tl_kit.config import PushConfig
from tl_kit.errors import ConfigError, PublishError, WeightsError, first_line
from tl_kit.exporting.published_copy import PublishedFile, is_ours, published_files
from tl_kit.inference.predictor import load
from tl_kit.machine.process_group import alone
from tl_kit.plain_values import takes_plain_values
from tl_kit.reporting import SILENT, Reporter
from tl_kit.storage.fit_folder import best_of
from tl_kit.zoo.hub import reach
from tl_kit.zoo.silence_timm import quiet
from tl_kit.zoo.spelling import is_repository

__all__ = ["PushResult", "push"]


@dataclass(frozen=True, kw_only=True)
class PushResult:
    """The repository, and the paths in it with their sizes in bytes; ``url`` is None after a dry run.

    ``left_out``: what stays on the machine, a line each.
    """

    repository: str
    private: bool
    files: dict[str, int]
    left_out: tuple[str, ...]
    url: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "repository": self.repository,
            "private": self.private,
            "files": dict(self.files),
            "left_out": list(self.left_out),
            "url": self.url,
        }


@alone()
@takes_plain_values
def push(config: PushConfig, *, reporter: Reporter = SILENT) -> PushResult:
    """Publish a folder in one commit, in a repository that is private unless ``config.public``.

    The weights go up whole; the records as :mod:`tl_kit.exporting.published_copy` cleans them. The folder does not
    change. Raises CheckpointError for a folder that ``load`` would refuse; PublishError if the hub cannot be reached,
    asks for another token, or has a repository of that name with another visibility.
    """
    _check_name(config.repository)
    folder = best_of(Path(config.checkpoint))
    load(folder)  # nothing that cannot be opened again goes up
    files, left_out = published_files(Path(config.checkpoint), folder, config.repository)
    result = PushResult(
        repository=config.repository,
        private=not config.public,
        files={file.path: file.size for file in files},
        left_out=tuple(left_out),
    )
    if config.dry_run:
        return result
    reporter.message(f"{config.repository}: {sum(result.files.values()):,} bytes in {len(files)} files go up")
    with _explained(config.repository), quiet(), _without_bars():
        url = _commit(config, files)
    return PushResult(**{**vars(result), "url": url})


def _check_name(repository: str) -> None:
    if not is_repository(repository) or "@" in repository:
        raise ConfigError(f"{repository}: names no repository; write OWNER/NAME, your name on the hub first")
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ConfigError(f"{repository}: is no name for a repository: {first_line(error)}") from error


def _commit(config: PushConfig, files: Sequence[PublishedFile]) -> str:
    reach(constants.ENDPOINT)
    api, repository = HfApi(endpoint=constants.ENDPOINT, library_name="tl-kit"), config.repository
    url = api.create_repo(repository, private=not config.public, exist_ok=True)
    info = api.repo_info(repository)
    if bool(info.private) is config.public:
        found, say = ("private", "leave --public out") if info.private else ("public", "add --public")
        raise PublishError(f"{repository}: is {found} already; {say}, choose another name, or change it on the hub")
    paths = {file.path for file in files}
    stale = [each for each in api.list_repo_files(repository) if is_ours(each) and each not in paths]
    operations: list[Any] = [CommitOperationDelete(path) for path in stale]
    for file in files:
        content = file.content if isinstance(file.content, bytes) else str(file.content)
        operations.append(CommitOperationAdd(path_in_repo=file.path, path_or_fileobj=content))
    api.create_commit(repository, operations, commit_message="Upload by tl-kit")
    return str(url)


@contextmanager
def _explained(repository: str) -> Iterator[None]:
    """Turn the hub client's errors into one line with what to do."""
    try:
        yield
    except PublishError:
        raise
    except WeightsError as error:  # of reach
        raise PublishError(f"{repository}: {error}; --dry-run needs no network") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status in (401, 403):
            raise PublishError(
                f"{repository}: the hub does not let you write there; run hf auth login with a token that may write, "
                "or set HF_TOKEN"
            ) from error
        raise PublishError(f"{repository}: the upload failed ({first_line(error)}); try again") from error
    except Exception as error:
        raise PublishError(f"{repository}: the upload failed ({first_line(error)})") from error


@contextmanager
def _without_bars() -> Iterator[None]:
    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()

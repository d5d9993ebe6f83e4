"""Pushes a finished folder to a repository of a model hub, in one commit.

``HF_ENDPOINT`` names another hub than huggingface.co; the token is that of ``hf auth login`` or ``HF_TOKEN``. A folder
is made and checked completely before the hub is changed, and all of its files become visible together: large ones are
uploaded first, and the one commit that names them comes last. A failed push leaves at most an empty repository.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import BadInput, RunFailed

if TYPE_CHECKING:
    from huggingface_hub import HfApi

KINDS = ("model", "dataset")
OF_THE_HUB = {".gitattributes", "README.md"}  # files of a new repository before the first push


@dataclass(frozen=True)
class Target:
    """A repository that may be pushed to; ``head`` is its newest commit, None where it does not exist yet."""

    name: str
    kind: str
    public: bool
    head: str | None
    api: HfApi


def target(name: str, kind: str, public: bool = False, again: bool = False) -> Target:
    """Looks up the repository; changes nothing.

    Raises BadInput for a name that is no ``owner/name``, without a token, and for a repository that holds files, unless
    ``again``; RunFailed when the hub does not answer or refuses the token.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        name = f"{name} "  # not a valid name for the hub
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise BadInput(f"--push {name.strip()!r} is not owner/name, as a hub names its repositories")
    token = get_token()
    if not token:
        raise BadInput("--push needs a token that may write: run hf auth login, or set HF_TOKEN")
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=token)
    with _errors_on_one_line(name, api):
        try:
            repository = api.repo_info(name, repo_type=kind)
        except RepositoryNotFoundError as error:
            if error.response.status_code == 401:
                raise
            return Target(name, kind, public, None, api)
    files = sorted({file.rfilename for file in repository.siblings or ()} - OF_THE_HUB)
    if files and not again:
        raise BadInput(
            f"--push {name}: the name is taken, with {len(files)} files such as {files[0]}; choose another, or add "
            "--again for a new commit on top"
        )
    return Target(name, kind, public, repository.sha, api)


def push(folder: Path, to: Target, message: str) -> str:
    """Uploads every file of ``folder`` in one commit, making the repository if needed; returns its address.

    Raises RunFailed, after which the repository has no commit of ours.
    """
    from huggingface_hub import CommitOperationAdd

    files = sorted(file for file in folder.rglob("*") if file.is_file())
    operations = [CommitOperationAdd(file.relative_to(folder).as_posix(), file) for file in files]
    with _errors_on_one_line(to.name, to.api):
        if to.head is None:
            to.api.create_repo(to.name, repo_type=to.kind, private=not to.public)
        # With a parent commit, the push fails if someone else committed meanwhile.
        to.api.create_commit(to.name, operations, commit_message=message, repo_type=to.kind, parent_commit=to.head)
    place = f"{to.kind}s/" if to.kind != KINDS[0] else ""
    return f"{to.api.endpoint}/{place}{to.name}"


@contextmanager
def _errors_on_one_line(name: str, api: HfApi) -> Iterator[None]:
    """Errors of the hub or the network, as one line."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
    from huggingface_hub.utils import disable_progress_bars, httpx  # whatever its client is

    disable_progress_bars()
    try:
        yield
    except OfflineModeIsEnabled:
        raise BadInput(f"--push {name}: HF_HUB_OFFLINE is set; unset it to reach {api.endpoint}") from None
    except HfHubHTTPError as error:
        raise RunFailed(f"nothing was pushed to {name}: {_reason(error, api.endpoint)}") from None
    except (httpx.HTTPError, OSError) as error:
        message = str(error).split("\n")[0] or type(error).__name__
        raise RunFailed(f"nothing was pushed to {name}: {api.endpoint} does not answer ({message})") from None
    except (ValueError, RuntimeError) as error:  # errors of huggingface_hub itself, and failed uploads
        raise RunFailed(f"nothing was pushed to {name}: {str(error).split(chr(10))[0]}") from None


def _reason(error: Any, endpoint: str) -> str:
    code = error.response.status_code
    if code in (401, 403):
        return f"{endpoint} refuses the token ({code}); it must be valid and may write there (hf auth login, HF_TOKEN)"
    if code in (409, 412):
        return f"the repository was made or changed meanwhile ({code}); look at it, then push again"
    message = (error.server_message or str(error)).split("\n")[0]
    return f"{endpoint} answers {code}: {message}"

"""Files of a run, in its folder or in a repository on the Hub."""

from __future__ import annotations

import os
from pathlib import Path


def find_file(
    source: str | os.PathLike[str], name: str, revision: str | None = None, token: str | bool | None = None
) -> Path:
    """Where the file lies on this machine, fetched from the Hub if `source` is no folder here.

    Args:
        source: a run's output folder, or "user/repo".
        name: of the file.
        revision: branch, tag or commit; for a repository.
        token: to read a private one with.

    Raises:
        FileNotFoundError: the folder or the repository has no such file.
    """
    said = f"no {name}: it is not the output of a `DynPruneTrainer`, or was pushed before its training began"
    if os.path.isdir(source):
        file = Path(source) / name
        if not file.is_file():
            raise FileNotFoundError(f"The folder {os.fspath(source)} has {said}.")
        return file
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(os.fspath(source), name, revision=revision, token=token))
    except HFValidationError as error:
        raise FileNotFoundError(
            f"There is no folder {os.fspath(source)}, and no repository can have that name."
        ) from error
    except EntryNotFoundError as error:
        if isinstance(error, LocalEntryNotFoundError):  # the Hub was not reached
            raise
        at = "" if revision is None else f" at revision {revision}"
        raise FileNotFoundError(f"The repository {os.fspath(source)}{at} has {said}.") from error

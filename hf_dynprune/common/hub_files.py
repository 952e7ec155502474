"""Files of a run, in its folder or in a repository on the Hub."""

from __future__ import annotations

import os
from pathlib import Path


def find_file(
    source: str | os.PathLike[str], name: str, revision: str | None = None, token: str | bool | None = None
) -> Path:
    """Path of a file on this machine: in a run's output folder, or else fetched from the Hub repository `source`.

    The revision (branch, tag or commit) and the token (for private repositories) are used for the Hub only.

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

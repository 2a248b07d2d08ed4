"""Put an exported folder on the Hugging Face Hub, and load one from it.

Thin functions over `huggingface_hub`: the files are exactly those of `exported_folder`, loading is
strict, and nothing falls back to pickles. The token is the one of the Hub's own login
(`hf auth login`, or HF_TOKEN); it is never read or printed here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, errors, snapshot_download

from vlwm.core.errors import DataError, MachineError, UsageError, VlwmError
from vlwm.core.export.file_names import BENCHMARK, FILES, NEEDED, ONNX, RELEASE

_TRANSPORT: type[BaseException] = errors.HfHubHTTPError.__mro__[1]
"""base of the errors of the HTTP library that this version of huggingface_hub uses"""
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class Upload:
    """Files that would be uploaded, or were.

    Attributes:
        repo: name on the Hub.
        private: False for a repository that everybody can read.
        files: (name, bytes) of every file.
        url: of the commit; None where nothing was uploaded.
    """

    repo: str
    private: bool
    files: tuple[tuple[str, int], ...]
    url: str | None = None

    @property
    def total_bytes(self) -> int:
        """Return the bytes of all files."""
        return sum(size for _, size in self.files)


def is_hub_name(name: str) -> bool:
    """Return True for text of the form user/name."""
    return _NAME.fullmatch(name) is not None


def plan_upload(folder: Path, repo: str, *, private: bool = True) -> Upload:
    """Return the files of an exported folder as they would be uploaded.

    Raises:
        UsageError: the name has not the form user/name.
        DataError: the folder lacks a file.
    """
    if not is_hub_name(repo):
        raise UsageError(f"{repo!r} is not a name on the Hub", remedy="give user/name")
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"the exported folder lacks {', '.join(missing)}", where=folder,
            remedy="run vlwm export again",
        )  # fmt: skip
    return Upload(repo, private, tuple((n, (folder / n).stat().st_size) for n in names_in(folder)))


def names_in(folder: Path) -> list[str]:
    """Return the files of an exported folder that belong to it, by name; no others are sent."""
    patterns = [f"{ONNX}/*", *(RELEASE if (folder / BENCHMARK).is_file() else ())]
    more = {p for pattern in patterns for p in folder.glob(pattern) if p.is_file()}
    return [*FILES, *sorted(p.relative_to(folder).as_posix() for p in more)]


def push_folder(folder: Path, repo: str, *, private: bool = True) -> Upload:
    """Create a model repository where it is missing and upload the folder in one commit.

    Raises:
        VlwmError: the name is wrong, nobody is logged in, or the Hub does not answer.
    """
    plan = plan_upload(folder, repo, private=private)
    with _explained(repo):
        api = HfApi()
        api.create_repo(repo, repo_type="model", private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            repo_type="model",
            allow_patterns=[name for name, _ in plan.files],
            commit_message="Upload with vlwm export",
        )
    return Upload(repo, private, plan.files, commit.commit_url)


def fetch_folder(repo: str, revision: str | None = None, *, data: bool = False) -> Path:
    """Return a local copy of an exported folder on the Hub, from the Hub's own cache where it is.

    Args:
        repo: user/name.
        revision: branch, tag or commit; the newest by default.
        data: fetch the data of a benchmark, too.

    Raises:
        VlwmError: the repository, revision or a file is missing, or the Hub does not answer.
    """
    with _explained(repo, revision):
        wanted = [*FILES, *(RELEASE if data else ())]
        path = Path(snapshot_download(repo, revision=revision, allow_patterns=wanted))
    missing = [name for name in NEEDED if not (path / name).is_file()]
    if missing:
        raise DataError(
            f"the repository is not a model of vlwm, it lacks {', '.join(missing)}",
            where=repo,
            remedy="give the name of a repository that vlwm export made",
        )
    return path


@contextmanager
def _explained(repo: str, revision: str | None = None) -> Iterator[None]:
    """Turn the Hub's errors into sentences; its own texts may hold addresses and request ids."""
    try:
        yield
    except errors.RevisionNotFoundError as error:
        raise DataError(
            f"the repository has no revision {revision!r}", where=repo,
            remedy="leave revision out for the newest",
        ) from error  # fmt: skip
    except (errors.GatedRepoError, errors.RepositoryNotFoundError) as error:
        raise DataError(
            "no such repository on the Hub, or this login may not read it",
            where=repo,
            remedy="check the name; for a private one run: hf auth login",
        ) from error
    except errors.LocalTokenNotFoundError as error:
        raise _no_login(repo) from error
    except errors.LocalEntryNotFoundError as error:
        raise MachineError(
            "the Hub cannot be reached, and there is no local copy",
            where=repo,
            remedy="check the network and HF_HUB_OFFLINE, then try again",
        ) from error
    except errors.HfHubHTTPError as error:
        raise _http(repo, error) from error
    except (OSError, _TRANSPORT) as error:
        raise MachineError(
            "the connection to the Hub broke",
            where=repo,
            remedy="run the same command again: finished files are not sent twice",
        ) from error


def _no_login(repo: str) -> DataError:
    return DataError("the Hub asks for a login", where=repo, remedy="run: hf auth login")


def _http(repo: str, error: errors.HfHubHTTPError) -> VlwmError:
    status = getattr(error.response, "status_code", None)
    if status in (401, 403):
        return _no_login(repo)
    if status == 429:
        return MachineError(
            "the Hub answers that there were too many requests",
            where=repo,
            remedy="wait a few minutes and run the same command again",
        )
    return MachineError(
        f"the Hub answered {status}", where=repo, remedy="run the same command again later"
    )

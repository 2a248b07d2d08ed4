"""Send records to Weights & Biases; its errors never end a run.

Without a login the run is kept offline in the run folder (`wandb sync` sends it later). W&B retries
a failing network by itself; an error that it raises is logged once and training continues without
it.
"""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlwm.core.config.schema import Config
from vlwm.core.run_folder import RunFolder
from vlwm.core.training.options import WandbOptions
from vlwm.core.vocabulary import Stage

log = logging.getLogger("vlwm.training")

_ID_FILE = "wandb_id.txt"


class WandbSink:
    """Sends records to W&B; stage 1's names carry the prefix "tokenizer/".

    Args:
        folder: the root run folder; it holds W&B's files, and the id with which a run resumes.
        options: project, name, tags.
        config: the resolved config, plain values.
    """

    def __init__(self, folder: RunFolder, options: WandbOptions, config: Config) -> None:
        self._run: Any = None
        self._is_online = False
        self._errors: tuple[type[BaseException], ...] = (OSError, RuntimeError, ValueError)
        try:
            import wandb
        except ImportError as error:
            log.warning("W&B is not used: %s", error)
            return
        self._errors += (wandb.Error, TypeError, AttributeError, AssertionError, TimeoutError)
        # online first; offline if that fails
        for mode in _modes():
            try:
                self._run = wandb.init(
                    project=options.project,
                    name=options.run_name,
                    tags=list(options.tags),
                    config=config.to_dict(),
                    dir=str(folder.path),
                    id=_run_id(folder),
                    resume="allow",
                    mode=mode,
                    settings=wandb.Settings(silent=True, console="off", init_timeout=30.0),
                )
                self._is_online = mode == "online"
                # stage 1 and stage 2 count their own steps
                self._run.define_metric("*", step_metric="step")
                self._run.define_metric("tokenizer/*", step_metric="tokenizer/step")
                log.info("W&B: %s, run %s%s", mode, self._run.id, self._where())
                return
            except self._errors as error:
                log.warning("W&B %s did not start: %s", mode, error)

    @property
    def url(self) -> str | None:
        """URL of the run's page; None offline, where asking for it would print a warning."""
        return getattr(self._run, "url", None) if self._is_online else None

    @property
    def links(self) -> dict[str, str]:
        """Return the run's page; offline the command that sends the run later."""
        if self.url is not None:
            return {"W&B": self.url}
        files = getattr(self._run, "dir", None)
        if not isinstance(files, str) or not files:
            return {}
        folder = shlex.quote(str(Path(files).absolute().parent))
        return {"W&B, to send later": f"wandb sync {folder}"}

    def _where(self) -> str:
        """Return where the run is to be seen, or what sends it there later."""
        if self.url is not None:
            return f": {self.url}"
        return "".join(f"; send it later with: {command}" for command in self.links.values())

    def write(self, record: Mapping[str, Any]) -> None:
        """Send one record."""
        if self._run is None:
            return
        prefix = "tokenizer/" if record["stage"] == Stage.TOKENIZER else ""
        hidden = ("time", "kind", "stage")
        values = {prefix + k: v for k, v in record.items() if k not in hidden and v is not None}
        try:
            self._run.log(values)
        except self._errors as error:
            log.warning("W&B is left out from here on: %s", error)
            self._run = None

    def close(self, *, failed: bool = False) -> None:
        """Finish the run."""
        if self._run is None:
            return
        where = self._where()
        try:
            self._run.finish(exit_code=int(failed))
            if where:
                log.info("W&B run%s", where)
        except self._errors as error:
            log.warning("W&B did not finish: %s", error)
        self._run = None


def _modes() -> tuple[str, ...]:
    """Return the modes to try: online with a login, and offline if that fails."""
    wanted = os.environ.get("WANDB_MODE", "")
    if wanted in ("offline", "disabled", "dryrun"):
        return (wanted if wanted == "disabled" else "offline",)
    return ("online", "offline") if _has_login() else ("offline",)


def _has_login() -> bool:
    import netrc

    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _run_id(folder: RunFolder) -> str:
    """Return the id of this run folder's W&B run, made once."""
    path = folder.logs / _ID_FILE
    if not path.exists():
        folder.create()
        path.write_text(os.urandom(4).hex(), encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()

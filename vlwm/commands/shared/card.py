"""`vlwm prepare --card`: the data folder gets a README.md that the Hub reads."""

from __future__ import annotations

from pathlib import Path


def check_card(card: bool, store: str | None) -> None:
    """Refuse a card for a store that is not a folder of this machine."""
    from vlwm.core.errors import UsageError

    if card and store is not None and not store.startswith("file://"):
        raise UsageError(
            "--card writes into a folder of this machine", where=store,
            remedy="use --store file:///FOLDER, then upload the folder",
        )  # fmt: skip


def write_card(folder: Path) -> None:
    """Write the card and say how the folder gets onto the Hub."""
    from vlwm.commands.shared.output import note
    from vlwm.core.export.dataset_card import write_dataset_card

    note(f"written: {write_dataset_card(folder)}")
    note(f"to publish: hf upload --repo-type dataset user/name {folder} . --exclude '.packed/*'")

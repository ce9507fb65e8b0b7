"""Word that one process leaves in a trial's folder for another, which runs the trial."""

from __future__ import annotations

from nodebench.store.trial_folder import TrialFolder


def give_up(folder: TrialFolder) -> None:
    """Leaves word that a search has given the trial up."""
    folder.given_up_file.touch()


def take_given_up(folder: TrialFolder) -> bool:
    """Whether there was such word, which is gone then."""
    was_there = folder.given_up_file.exists()
    folder.given_up_file.unlink(missing_ok=True)
    return was_there

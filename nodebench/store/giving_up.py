"""A search gives up a trial that another process runs, by a file in the trial's folder."""

from __future__ import annotations

from nodebench.store.trial_folder import TrialFolder


def give_up(folder: TrialFolder) -> None:
    """Marks the trial as given up by a search."""
    folder.given_up_file.touch()


def take_given_up(folder: TrialFolder) -> bool:
    """Whether the trial was given up; removes the mark."""
    was_there = folder.given_up_file.exists()
    folder.given_up_file.unlink(missing_ok=True)
    return was_there

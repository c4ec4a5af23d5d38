"""What a user is told of a segment beyond its mask."""

from __future__ import annotations

from MedSAMSlicerLib.volume.slice_masks import Outcome


def told(outcome: Outcome) -> list[str]:
    """Say in sentences what became of a structure; none if there is nothing to say."""
    sentences = []
    if outcome.fragments:
        sentences.append(f"{outcome.fragments} fragment{'s were' if outcome.fragments > 1 else ' was'} dropped.")
    if outcome.open_ends:
        ends = " and the ".join("first" if index == 0 else "last" for index in outcome.open_ends)
        sentences.append(
            f"It was followed to the {ends} slice of the volume: "
            "set a limit in millimeters, or give it ends (a 3-D box), if it should end before."
        )
    return sentences

"""What a location names that is no table: packed studies or a public data set."""

from __future__ import annotations

from pathlib import Path

from medvl.data.public.registry import PublicLocation, parse_public_location
from medvl.data.shards import PackedLocation


def parse_location(location: str | Path, argument: str = "source") -> PackedLocation | PublicLocation | None:
    """Parse ``shards:FOLDER`` of packed studies or ``NAME:PATH`` of a public data set.

    Args:
        location: the text.
        argument: its name, for the error.

    Returns:
        The location; None for a table, a folder and "synthetic".

    Raises:
        ValueError: If the name before a colon is neither ``shards`` nor that of a public data set, or an option is unknown.

    Example:
        >>> str(parse_location("shards:packed")), parse_location("cases.csv")
        ('shards:packed', None)
    """
    return PackedLocation.parse(location) or parse_public_location(location, argument)

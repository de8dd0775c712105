"""Moments as Docker writes them."""

from datetime import datetime


def moment(text: str) -> datetime | None:
    """The engine writes nanoseconds, more than Python reads; None for what is no moment."""
    head, _, rest = text.partition(".")
    zone = rest.lstrip("0123456789") if rest else ""
    try:
        read = datetime.fromisoformat(f"{head}{zone}".replace("Z", "+00:00"))
    except ValueError:
        return None
    return read if read.tzinfo else None

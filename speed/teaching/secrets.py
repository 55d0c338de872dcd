"""Keys stay in the environment: whatever is written or shown goes through `redacted` first."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

_NAMES = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
_SHAPES = re.compile(r"\b(?:sk|pk|gsk|xai|hf|AIza)[-_][A-Za-z0-9*_\-]{6,}|\bBearer\s+\S+", re.IGNORECASE)


def redacted(text: str) -> str:
    """The text without any secret of the environment, and without anything shaped like an API key."""
    for name, value in os.environ.items():
        if len(value) >= 8 and _NAMES.search(name) and value in text:
            text = text.replace(value, f"[{name}]")
    return _SHAPES.sub("[key]", text)


def public_url(url: str) -> str:
    """A URL without user, password, query and fragment."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"

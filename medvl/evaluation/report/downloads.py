"""Files inside a page: CSV as addresses of links, and the script that sorts tables with its hash."""

from __future__ import annotations

import base64
import hashlib
from urllib.parse import quote


def csv_address(text: str) -> str:
    """The text of a CSV file as the address of a link, with the byte order mark by which spreadsheets read UTF-8.

    Example:
        >>> csv_address("Finding,AUROC\\n")
        'data:text/csv;charset=utf-8,%EF%BB%BFFinding,AUROC%0A'
    """
    return "data:text/csv;charset=utf-8," + quote(f"\ufeff{text}", safe="-_.~,;:/ ()[]").replace(" ", "%20")


def content_policy(script: str) -> str:
    """The Content-Security-Policy of a page that loads nothing and runs this script alone.

    Args:
        script: the text between the tags.

    Example:
        >>> content_policy("0").split("; ")[:3]
        ["default-src 'none'", 'img-src data:', "style-src 'unsafe-inline'"]
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"

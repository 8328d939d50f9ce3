from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping


def zip_of(contents: Mapping[str, str]) -> bytes:
    """An archive with these files."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in contents.items():
            archive.writestr(name, text)
    return data.getvalue()

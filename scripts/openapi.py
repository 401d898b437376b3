"""Write the service's OpenAPI document to docs/openapi.json, which a test compares with what is served.

python scripts/openapi.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "docs" / "openapi.json"


def main() -> None:
    """Write the document."""
    sys.path.insert(0, str(ROOT))
    from serve.routes import documented_application

    FILE.write_text(json.dumps(documented_application().openapi(), indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

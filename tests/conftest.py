"""What every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest

from pbx.prefix import Prefix

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def prefix() -> Prefix:
    """The Asterisk that `./test` has put into var/asterisk, and the programs around it."""
    return Prefix(ROOT / "var" / "asterisk")

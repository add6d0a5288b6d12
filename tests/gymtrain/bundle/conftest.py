from __future__ import annotations

import pytest
from bundle_forge import Forge, make_contents, take_apart

from gymtrain.bundle import write


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a good bundle."""
    path = tmp_path_factory.mktemp("good") / "good.zip"
    write(path, make_contents(model_state={"trees": 3}, model_skops=b"skops of a model"))
    return path.read_bytes()


@pytest.fixture
def forge(good: bytes) -> Forge:
    return take_apart(good)

"""The backends that are installed, and where their exports go."""

from pathlib import Path

import pytest

from nestkala.runtimes.names import missing_packages


@pytest.fixture(params=["onnx", "openvino"])
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend that is installed."""
    if missing := missing_packages(request.param):
        pytest.skip(f"{', '.join(missing)} not installed")
    return str(request.param)


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exports")


@pytest.fixture(autouse=True)
def shared_exports(exports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tests export each model once."""
    monkeypatch.setenv("NESTKALA_CACHE", str(exports))


@pytest.fixture
def own_exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NESTKALA_CACHE", str(tmp_path / "own"))
    return tmp_path / "own" / "exports"

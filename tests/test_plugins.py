"""Losses and heads by name, the package's and strangers'."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from nestkala import Hasher
from nestkala.cli import main
from nestkala.losses import KIDDO, HashLoss
from nestkala.plugins import find_plugin, plugins
from nestkala.settings.config import Config
from nestkala.utils.errors import NestKALAError

ROOT = Path(__file__).parent.parent
Stranger = Callable[..., None]


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stranger]:
    """Installs a distribution, by hand, that brings entry points to nestkala.losses or nestkala.heads."""

    def install(dist: str, entries: str, module: str = "", kind: str = "losses") -> None:
        metadata = tmp_path / f"{dist}-1.5.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 1.5\n")
        (metadata / "entry_points.txt").write_text(f"[nestkala.{kind}]\n{entries}\n")
        (tmp_path / f"{dist}.py").write_text(module)

    monkeypatch.syspath_prepend(str(tmp_path))
    yield install
    for name in [name for name in sys.modules if name.startswith("stranger")]:
        del sys.modules[name]


MODULE = """
from nestkala.losses import HashLoss
class Theirs(HashLoss):
    paper = "A paper"
    def terms(self, h, targets, indices, anchors=None):
        return {"nothing": h.sum() * 0}
"""


def test_every_loss_of_the_package_is_there_under_its_name() -> None:
    from nestkala import losses

    ours = {kind for name in losses.__all__ if isinstance(kind := getattr(losses, name), type)}
    public = {kind for kind in ours if issubclass(kind, HashLoss)} - {HashLoss, losses.WithHSWD}
    found = {plugin.load() for plugin in plugins("losses").values() if plugin.origin == "nestkala"}
    assert found == public
    assert find_plugin("losses", "kiddo").load() is KIDDO
    assert all(kind.paper for kind in found)


def test_a_strangers_loss_is_found_loaded_and_listed(stranger: Stranger, capsys: pytest.CaptureFixture[str]) -> None:
    stranger("stranger_a", "theirs = stranger_a:Theirs", MODULE)
    plugin = find_plugin("losses", "theirs")
    assert plugin.origin == "stranger_a 1.5"
    assert plugin.load().paper == "A paper"
    assert Config(loss="theirs", epochs=1).loss == "theirs"
    assert main(["list", "losses"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("theirs ")]
    assert line.split() == ["theirs", "A", "paper", "stranger_a", "1.5"]


def test_two_packages_of_one_name_are_told_apart(stranger: Stranger) -> None:
    stranger("stranger_b", "kiddo = stranger_b:Theirs", MODULE)
    with pytest.raises(NestKALAError, match=r"both bring 'kiddo' to losses: uninstall one"):
        find_plugin("losses", "kiddo")


@pytest.mark.parametrize("module", ["raise RuntimeError('boom')", ""])
def test_a_package_that_does_not_load_is_named(stranger: Stranger, module: str) -> None:
    stranger("stranger_c", "theirs = stranger_c:Theirs", module)
    with pytest.raises(NestKALAError, match=r"'theirs' of stranger_c 1.5 \(stranger_c:Theirs\) cannot be loaded"):
        find_plugin("losses", "theirs").load()


def test_a_strangers_loss_without_named_terms_ends_in_one_line(
    stranger: Stranger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stranger("stranger_t", "summed = stranger_t:Theirs", MODULE.replace('{"nothing": h.sum() * 0}', "h.sum() * 0"))
    labels = np.arange(20) % 2
    np.save(tmp_path / "labels.npy", labels)
    np.save(tmp_path / "features.npy", np.random.default_rng(0).normal(size=(20, 6)))
    own = ["--data", str(tmp_path), "--backbone", "features:6", "--adapter", "none", "--anchors", "orthonormal"]
    for loss in ("summed", "summed-hswd"):
        run = ["--loss", loss, "--shots", "4", "--lengths", "3", "--epochs", "1", "--output", str(tmp_path / loss)]
        assert main(["train", *own, *run]) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
        assert line.startswith(f"error: loss {loss}: Theirs.terms must return a dict of names and scalars")


def test_an_unknown_loss_is_answered_with_the_nearest() -> None:
    with pytest.raises(NestKALAError, match=r"unknown loss 'kido'; did you mean 'kiddo'\? \(known: .*dpsh"):
        Config(loss="kido")
    with pytest.raises(NestKALAError, match=r"'kido-hswd'; did you mean 'kiddo-hswd'\? .* each also as NAME-hswd\)"):
        Config(loss="kido-hswd")
    with pytest.raises(NestKALAError, match=r"'csq-hsw'; did you mean 'csq-hswd'\?"):
        Config(loss="csq-hsw")
    with pytest.raises(NestKALAError, match="unknown loss 'dsh-hswd-hswd'"):
        Config(loss="dsh-hswd-hswd")


def test_the_list_of_losses_shows_that_hswd_goes_with_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "losses"]) == 0
    assert "NAME-hswd: any of these losses with HSWD (Doan et al., CVPR 2022)" in capsys.readouterr().out
    assert main(["list", "losses", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["with_hswd"] for row in rows] == [f"{name}-hswd" for name in plugins("losses")]
    for row in rows:
        assert Config(loss=row["with_hswd"], head_init="random").base_loss == row["name"]
    for kind in ("heads", "losses"):
        assert main(["list", kind, "--json"]) == 0
        assert all(row["paper"] for row in json.loads(capsys.readouterr().out))
    assert main(["list", "heads"]) == 0
    assert "hswd" not in capsys.readouterr().out


def test_no_package_may_take_the_ending_that_means_hswd(stranger: Stranger) -> None:
    stranger("stranger_w", "mine-hswd = stranger_w:Theirs", MODULE)
    with pytest.raises(NestKALAError, match=r"stranger_w 1.5 brings 'mine-hswd' to losses, where -hswd at the end"):
        plugins("losses")


def test_heads_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "heads"]) == 0
    lines = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()[2:]]
    assert lines == ["cascade", "flat", "nested"]


HEAD = """
import torch
from nestkala.heads import HashHead
class Hidden(HashHead):
    paper = "Another paper"
    nested = True
    def __init__(self, in_features, lengths, batch_norm=False):
        super().__init__(in_features, lengths, batch_norm)
        self.hidden = torch.nn.Linear(in_features, 5)
        self.out = torch.nn.Linear(5, self.width)
    @property
    def weight(self):
        return self.out.weight
    def logits(self, x):
        return self.out(self.hidden(x).relu())
"""


def test_a_strangers_head_trains_and_encodes(stranger: Stranger, tmp_path: Path) -> None:
    stranger("stranger_h", "hidden = stranger_h:Hidden", HEAD, "heads")
    labels, rng = np.arange(40) % 2, np.random.default_rng(0)
    np.save(tmp_path / "labels.npy", labels)
    np.save(tmp_path / "features.npy", rng.normal(size=(2, 6))[labels] + 0.1 * rng.normal(size=(40, 6)))
    own = ["--data", str(tmp_path), "--backbone", "features:6", "--adapter", "none", "--anchors", "orthonormal"]
    run = ["--head", "hidden", "--shots", "4", "--lengths", "3,9", "--epochs", "30", "--output", str(tmp_path / "run")]
    assert main(["train", *own, *run]) == 0
    codes = Hasher.from_pretrained(tmp_path / "run").encode(np.load(tmp_path / "features.npy"), bits=7)
    assert len(np.unique(codes[labels == 0], axis=0)) < 5
    assert not set(codes[labels == 0, 0]) & set(codes[labels == 1, 0])


def test_what_is_no_head_is_refused(stranger: Stranger) -> None:
    stranger("stranger_i", "linear = torch.nn:Linear", kind="heads")
    with pytest.raises(NestKALAError, match=r"'linear' of stranger_i 1.5 .torch.nn:Linear. is no HashHead"):
        find_plugin("heads", "linear").load()


def test_naming_a_head_imports_no_torch() -> None:
    code = (
        "import sys; from nestkala.settings.config import Config; Config(head='flat'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_example_package_installs_and_trains(tmp_path: Path) -> None:
    example = tmp_path / "angular_loss"
    shutil.copytree(ROOT / "examples" / "angular_loss", example)  # setuptools builds beside the sources
    install = ["pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(tmp_path / "site"), "."]
    subprocess.run([sys.executable, "-m", *install], cwd=example, check=True)
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site"), "NESTKALA_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, str(ROOT / "train.py"), "--loss", "angular", "--loss-args", "margin", "0.2"]
    command += ["--epochs", "2", "--lengths", "4,8", "--output", "run", "--threads", "1"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "margin: 0.2" in (tmp_path / "run" / "config.yaml").read_text()


def test_the_example_is_under_forty_lines() -> None:
    assert len((ROOT / "examples" / "angular_loss" / "angular_loss.py").read_text().splitlines()) < 40

"""Whole runs on scikit-learn's digits: what they leave behind, resumed runs, processes, switches."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from leftovers import unfinished
from safetensors.torch import load_file

from nestkala.backbones import Backbone, load_backbone
from nestkala.cli import main
from nestkala.data import load_dataset
from nestkala.data.splits import load_split
from nestkala.heads import NestedHashHead
from nestkala.plugins import plugins
from nestkala.settings.config import Config
from nestkala.settings.loading import load_config
from nestkala.tokens.source import TokenSource
from nestkala.training.anchors import class_anchors, text_center
from nestkala.training.closed_form import closed_form
from nestkala.training.model_spec import spec_of_run
from nestkala.training.objective import make_loss
from nestkala.training.run import train
from nestkala.training.trainer import Trainer
from nestkala.utils.errors import NestKALAError
from nestkala.utils.seeding import seeded
from reliability.launching import Launch

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The first 200 digits as a class-folder tree, and a token cache for all runs."""
    folder = tmp_path_factory.mktemp("digits")
    dataset = load_dataset("digits", Path())
    for index in range(200):
        kind = dataset.class_names[int(dataset.targets[index].argmax())]
        path = folder / "images" / kind / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dataset.read(index))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NESTKALA_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        yield folder / "images"


def settings(folder: Path, **changes: object) -> Config:
    small: dict[str, object] = {
        "output": folder,
        "data": "images",
        "queries_per_class": 3,
        "lengths": (4, 12, 20),
        "workers": 0,
    }
    trained = {} if changes.get("shots") == 0 else {"adapter": "clora", "epochs": 3, "checkpoint_every": 1}
    return Config(**(small | trained | changes))


def trained(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(settings(tmp_path_factory.mktemp("runs") / "run"))


def test_run_folder_holds_settings_split_model_and_metrics(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert names == {
        "checkpoint.safetensors",
        "config.yaml",
        "history.json",
        "metrics.json",
        "model.json",
        "model.safetensors",
        "split.json",
    }
    config = load_config(str(run / "config.yaml"))
    assert config.lengths == (4, 12, 20)
    dataset = load_dataset("images", Path())
    split = load_split(run / "split.json", dataset)
    assert len(split.train) == 10
    assert dataset.targets[split.train].sum(axis=0).tolist() == [1] * 10
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics["lengths"]) == {"4", "12", "20"}
    for scores in metrics["lengths"].values():
        assert 0 < scores["map"] < 1
        assert 0 < scores["map_tie_aware"] < 1
    assert set(metrics["seconds"]) == {"tokens", "train", "evaluate"}


def test_model_file_holds_only_what_was_trained(run: Path) -> None:
    state = trained(run)
    assert not any(name.startswith("tower.") for name in state)
    assert sum(tensor.nbytes for tensor in state.values()) < 2**21


def test_same_seed_same_result_and_another_seed_another(run: Path, tmp_path: Path) -> None:
    assert_equal(trained(run), trained(train(settings(tmp_path / "again"))))
    other = trained(train(settings(tmp_path / "other", seed=1)))
    assert not torch.equal(trained(run)["head.linear.weight"], other["head.linear.weight"])


def test_with_and_without_token_cache_give_the_same(run: Path, tmp_path: Path) -> None:
    uncached = train(settings(tmp_path / "uncached", cache=tmp_path / "cache", cache_gb=0))
    assert not (tmp_path / "cache").exists()
    assert_equal(trained(run), trained(uncached))
    lengths = [json.loads((folder / "metrics.json").read_text())["lengths"] for folder in (run, uncached)]
    assert lengths[0] == lengths[1]


def test_split_of_one_run_serves_another(run: Path, tmp_path: Path) -> None:
    again = train(settings(tmp_path / "again", split=run / "split.json", seed=1, queries_per_class=None))
    assert json.loads((again / "split.json").read_text()) == json.loads((run / "split.json").read_text())


@pytest.mark.parametrize("changes", [{}, {"loss": "dpsh", "shots": 2}, {"adapter": "none", "batch_norm": False}])
def test_interrupted_run_resumes_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object]
) -> None:
    whole = train(settings(tmp_path / "whole", **changes))
    interrupted = tmp_path / "interrupted"
    train_epoch = Trainer._train_epoch

    def stop_in_third_epoch(self: Trainer, bar: object) -> None:
        if self.epoch == 2:
            raise KeyboardInterrupt
        train_epoch(self, bar)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_epoch", stop_in_third_epoch)
        with pytest.raises(KeyboardInterrupt):
            train(settings(interrupted, **changes))
    assert not (interrupted / "model.safetensors").exists()
    train(settings(interrupted, resume=interrupted, **changes))
    assert_equal(trained(whole), trained(interrupted))
    assert_equal(load_file(whole / "checkpoint.safetensors"), load_file(interrupted / "checkpoint.safetensors"))
    assert (whole / "history.json").read_bytes() == (interrupted / "history.json").read_bytes()


@pytest.mark.parametrize("begun", [[], ["config.yaml"], ["config.yaml", "split.json"]], ids=len)
def test_a_run_killed_before_its_first_checkpoint_begins_anew(
    run: Path, tmp_path: Path, begun: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in begun:
        shutil.copy(run / name, folder)
    unfinished(folder / "split.json")
    train(settings(folder, **({"resume": folder} if begun else {})))
    assert ("starts again" in capsys.readouterr().out) == bool(begun)
    assert {path.name for path in folder.iterdir()} == {path.name for path in run.iterdir()}
    assert_equal(trained(folder), trained(run))


def test_a_finished_run_without_its_checkpoint_is_left_as_it_is(run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run, tmp_path / "run")
    (folder / "checkpoint.safetensors").unlink()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(NestKALAError, match=r"holds a trained model but no checkpoint.safetensors"):
        train(settings(folder, resume=folder, epochs=5))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_no_shots_give_the_codes_that_the_class_names_alone_place(run: Path, tmp_path: Path) -> None:
    folder = train(settings(tmp_path / "run", shots=0))
    assert not (folder / "checkpoint.safetensors").exists()
    assert not (folder / "history.json").exists()
    dataset = load_dataset("images", Path())
    split = load_split(folder / "split.json", dataset)
    assert split.train.tolist() == []
    assert split.query.tolist() == load_split(run / "split.json", dataset).query.tolist()

    config = settings(tmp_path, shots=0)
    backbone = load_backbone("tiny", num_adapted=0)
    anchors = class_anchors(config, backbone, dataset.class_names, seed=0)
    with seeded(0):
        model = spec_of_run(config, backbone, dataset.class_names).build(backbone.tower, anchors)
    tokens = TokenSource(backbone, "fp32", batch_size=128, workers=0).batches(dataset, sorted(split.gallery.tolist()))
    center = text_center(config, backbone)
    start = closed_form(model, tokens, [], torch.zeros(0, 10), config, seed=0, has_texts=True, text_center=center)
    start.apply(model)
    assert start.accuracy is None
    for name, tensor in trained(folder).items():
        torch.testing.assert_close(tensor, model.trained_state()[name], msg=name)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["lengths"]["20"]["map"] > 0.1
    assert metrics["seconds"]["train"] == 0
    assert metrics["constant_bits"] == []
    assert metrics["leave_one_out_accuracy"] is None


def test_labels_alone_start_in_closed_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [tmp_path / "three", tmp_path / "all"]
    for folder, bits in zip(folders, ("3", "20"), strict=True):
        given = ("--data", "images", "--queries-per-class", "3", "--shots", "3", "--epochs", "0", "--workers", "0")
        chosen = ("--head-init", "labels", "--class-bits", bits, "--anchors", "orthonormal", "--lengths", "4,12,20")
        assert main(["train", *given, *chosen, "--output", str(folder)]) == 0
        shown = capsys.readouterr().out
        accuracy = json.loads((folder / "metrics.json").read_text())["leave_one_out_accuracy"]
        assert 0.1 < accuracy <= 1  # above chance
        assert f"leave-one-out estimate: the other labels give {accuracy:.2f} of" in shown
        assert load_config(str(folder / "config.yaml")).class_bits == int(bits)
        said = json.loads((folder / "model.json").read_text())
        assert (said["class_layer"], said["has_text_codes"], said["batch_norm"]) == (True, False, False)
        assert json.loads((folder / "metrics.json").read_text())["lengths"]["20"]["map"] > 0.1
    three, every = (trained(folder)["head.linear.weight"] for folder in folders)
    assert three.shape == every.shape == (20, 384 + 10)
    of_classes = [int(weight[:, 384:].any(dim=1).sum()) for weight in (three, every)]
    assert of_classes == [3, 20]
    assert not three[3:, 384:].any()


def test_no_shots_need_a_start_from_text(tmp_path: Path) -> None:
    for given in ({"head_init": "random"}, {"backbone": "tiny:random"}, {"anchors": "orthonormal"}):
        with pytest.raises(NestKALAError, match="shots is 0, which needs a start from text"):
            settings(tmp_path, shots=0, **given)


def test_a_start_from_text_needs_the_features_own_text(tmp_path: Path) -> None:
    with pytest.raises(NestKALAError, match="head_init text needs anchors in the features' space"):
        settings(tmp_path, head_init="text", anchors="orthonormal")


def test_codes_start_at_the_centers_of_the_labels(tmp_path: Path) -> None:
    centers = torch.tensor([[1.0, 1, -1, -1], [-1, 1, 1, -1], [1, -1, 1, -1]])
    targets = torch.tensor([[0.0, 1, 0], [1, 0, 1], [1, 1, 1]])
    nested = make_loss(settings(tmp_path, lengths=(2, 4)), NestedHashHead(3, (2, 4)), targets, seed=0, centers=centers)
    two, four = (codes for name, codes in nested.state_dict().items() if name.endswith("codes"))
    assert torch.equal(two, four[:, :2])
    assert four[0].tolist() == [-1, 1, 1, -1]
    assert four[1, [0, 3]].tolist() == [1, -1]  # the two labels disagree on the others
    assert four[2].tolist() == [1, 1, 1, -1]
    assert torch.equal(four.abs(), torch.ones(3, 4))


def test_run_folder_that_exists_is_refused(run: Path) -> None:
    with pytest.raises(NestKALAError, match="already exists: resume it with --resume"):
        train(settings(run))


@pytest.mark.parametrize(
    "changes",
    [
        {"adapter": "none"},
        {"loss": "dpsh"},
        {"distillation": 0.0},
        {"adapter_scale": 0.0},
        {"alpha": 0.0},
        {"projections": ("q", "k", "v", "o"), "rank": 3, "adapt_blocks": 2},
        {"lengths": (9,)},
        {"head_init": "random"},
        {"head_init": "labels"},
        {"class_bits": 3},
        {"unlabeled": 20},
        {"max_grad_norm": 0.1},
    ],
    ids=str,
)
def test_every_switch_changes_what_is_trained(run: Path, tmp_path: Path, changes: dict[str, object]) -> None:
    state = trained(train(settings(tmp_path / "run", **changes)))
    assert all(torch.isfinite(tensor).all() for tensor in state.values())
    pairs = [(state[name], trained(run)[name]) for name in ("head.linear.weight", "anchor_to_code.weight")]
    assert any(ours.shape != theirs.shape or not torch.equal(ours, theirs) for ours, theirs in pairs)


def test_adaptive_weighting_changes_what_is_trained(tmp_path: Path) -> None:
    many: dict[str, object] = {"lengths": tuple(range(2, 21, 2)), "epochs": 30, "lr": 0.05, "head_init": "random"}
    adaptive, uniform = (
        trained(train(settings(tmp_path / weighting, weighting=weighting, **many)))["head.linear.weight"]
        for weighting in ("adaptive", "uniform")
    )
    assert torch.isfinite(adaptive).all()
    assert not torch.equal(adaptive, uniform)


def test_bfloat16_trains_close_to_float32(tmp_path: Path) -> None:
    mixed, full = (
        trained(train(settings(tmp_path / precision, precision=precision, head_init="random")))
        for precision in ("bf16", "fp32")
    )
    assert all(tensor.dtype == torch.float32 for name, tensor in mixed.items() if "num_batches" not in name)
    error = (mixed["head.linear.weight"] - full["head.linear.weight"]).norm() / full["head.linear.weight"].norm()
    assert 0 < error < 0.1


def test_bfloat16_starts_in_closed_form_from_nearly_the_same_features(run: Path, tmp_path: Path) -> None:
    mixed, full = trained(train(settings(tmp_path / "mixed", precision="bf16"))), trained(run)
    assert all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in mixed.values())
    error = (mixed["class_layer.mean"] - full["class_layer.mean"]).norm() / full["class_layer.mean"].norm()
    assert 0 < error < 0.05  # of 8 bits of mantissa


def test_loss_that_is_not_finite_names_step_length_and_term(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nestkala.losses import KIDDO

    terms = KIDDO.terms
    calls = 0

    def poisoned(self: KIDDO, h: torch.Tensor, *rest: torch.Tensor) -> dict[str, torch.Tensor]:
        nonlocal calls
        calls += 1
        result = terms(self, h, *rest)
        if calls == 8:  # third step, second of three lengths
            result["quantization"] = result["quantization"] * float("nan")
        return result

    monkeypatch.setattr(KIDDO, "terms", poisoned)
    folder = tmp_path / "run"
    with pytest.raises(NestKALAError, match=r"step 2 \(epoch 2\): the loss at 12 bits .* 'quantization' is nan"):
        train(settings(folder))
    assert all(torch.isfinite(tensor).all() for tensor in load_file(folder / "checkpoint.safetensors").values())


def test_fewer_images_than_a_batch_are_one_batch(tmp_path: Path) -> None:
    few, exact = (trained(train(settings(tmp_path / f"by {size}", batch_size=size))) for size in (16, 10))
    for name in exact:
        torch.testing.assert_close(few[name], exact[name], msg=name)


@pytest.mark.parametrize("scale", [1, 10, 100])
def test_features_of_any_scale_train_from_a_random_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale: int
) -> None:
    def scaled(name: str, num_adapted: int) -> Backbone:
        backbone = load_backbone(name, num_adapted)
        with torch.no_grad():
            for parameter in backbone.tower.vit.head.parameters():
                parameter.mul_(scale)
        return backbone

    monkeypatch.setattr("nestkala.training.steps.model.load_backbone", scaled)
    random: dict[str, object] = {"head_init": "random", "batch_norm": False, "epochs": 60, "checkpoint_every": 60}

    def scores(limit: float) -> list[float]:
        folder = train(settings(tmp_path / f"at most {limit}", **random, max_grad_norm=limit))
        found = json.loads((folder / "metrics.json").read_text())["lengths"]
        return [of_length["map_tie_aware"] for of_length in found.values()]

    chance = 0.1
    assert min(scores(1.0)[1:]) > 1.5 * chance
    if scale > 1:
        assert max(scores(0)) < 1.3 * chance


def test_launcher_and_settings_must_agree_on_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(NestKALAError, match="asks for mixed precision bf16, but the settings ask for fp32"):
        train(settings(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_is_not_installed_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(NestKALAError, match="tracker 'clearml' is not installed"):
        train(settings(tmp_path / "run", tracker="clearml"))
    assert not (tmp_path / "run").exists()


def test_a_broken_gallery_image_does_not_cost_the_trained_model(tmp_path: Path, images: Path) -> None:
    shutil.copytree(images, tmp_path / "images")
    config = settings(tmp_path / "run", data=str(tmp_path / "images"), head_init="random")
    train(config.model_copy(update={"output": tmp_path / "whole"}))
    split = json.loads((tmp_path / "whole" / "split.json").read_text())
    victim = next(name for name in split["gallery"] if name not in split["train"])
    (tmp_path / "images" / victim).write_bytes(b"broken now")
    with pytest.raises(NestKALAError, match=victim):
        train(config)
    assert_equal(trained(tmp_path / "whole"), trained(tmp_path / "run"))


def test_constant_bits_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = train(settings(tmp_path / "run", batch_norm=False, head_init="random", epochs=1, lr=1e-6))
    metrics = json.loads((folder / "metrics.json").read_text())
    shown = capsys.readouterr().out
    assert metrics["constant_bits"]
    assert f"{len(metrics['constant_bits'])} of 20 bits are the same for all training images" in shown


def test_broken_image_stops_the_run_or_is_counted(tmp_path: Path) -> None:
    shutil.copytree("images", tmp_path / "images")
    broken = tmp_path / "images" / "zero" / "broken.png"
    broken.write_bytes(b"not an image")
    with pytest.raises(NestKALAError, match=r"zero/broken\.png"):
        train(settings(tmp_path / "stopped", data=str(tmp_path / "images")))
    skipped = train(settings(tmp_path / "skipped", data=str(tmp_path / "images"), on_broken="skip"))
    assert json.loads((skipped / "metrics.json").read_text())["broken_images"] == ["zero/broken.png"]


OWN_LOSSES = {name: plugin.load() for name, plugin in plugins("losses").items() if plugin.origin == "nestkala"}
SEVERAL_LABELS = [name for name, loss in OWN_LOSSES.items() if loss.multi_label]


@pytest.mark.parametrize("loss", [*SEVERAL_LABELS, "hashnet-hswd"])
def test_multi_label_lists_train_and_evaluate(coco256: Path, tmp_path: Path, loss: str) -> None:
    changes: dict[str, object] = {"queries_per_class": None, "shots": 1, "top_k": 50, "epochs": 2}
    folder = train(settings(tmp_path / "run", data=str(coco256), head_init="random", loss=loss, **changes))
    scores = json.loads((folder / "metrics.json").read_text())["lengths"]
    assert all(0 < measure < 1 for of_length in scores.values() for measure in of_length.values())


def test_tensorboard_events_are_written(tmp_path: Path) -> None:
    folder = train(settings(tmp_path / "run", tracker="tensorboard"))
    assert list(folder.rglob("events.out.tfevents.*"))


ONE_AFTER_ANOTHER = """
import json, sys
from accelerate import Accelerator
from nestkala.cli import train_main

accelerator = Accelerator()  # makes one process group for all runs
for arguments in json.loads(sys.argv[1]):
    if code := train_main(arguments):
        sys.exit(code)
accelerator.end_training()
"""


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    """Of a loss without memory, and of all that have one."""
    script = tmp_path / "one_after_another.py"
    script.write_text(ONE_AFTER_ANOTHER)
    adsh = "--loss adsh --head cascade --loss-args queries 12 round_epochs 1 --gallery labeled"
    given = ["--loss dpsh", "--loss kiddo", "--loss dhn", "--loss mdsh", "--loss dsdh", adsh]
    common = [
        *("--precision", "fp64", "--epochs", "2", "--shots", "2", "--lengths", "4,12,20"),
        *("--batch-size", "8", "--queries-per-class", "3", "--data", "images", "--threads", "1"),
        *("--max-grad-norm", "0.1"),  # shorter than any gradient
    ]
    for n in (1, 2):
        runs = [[*common, *loss.split(), "--output", str(tmp_path / f"{n}" / f"{i}")] for i, loss in enumerate(given)]
        with Launch(n, script, json.dumps(runs), folder=tmp_path / f"log of {n}") as launch:
            assert launch.done().count(f"{n} process(es) on cpu") == len(given)
    for run in map(str, range(len(given))):
        one, two = (load_file(tmp_path / n / run / "checkpoint.safetensors") for n in ("1", "2"))
        assert one.keys() == two.keys()
        for name in one:
            torch.testing.assert_close(one[name], two[name], rtol=1e-9, atol=1e-11, msg=f"{given[int(run)]} {name}")
        one, two = (json.loads((tmp_path / n / run / "metrics.json").read_text()) for n in ("1", "2"))
        assert one["lengths"] == two["lengths"]


@pytest.mark.slow
def test_processes_that_cannot_share_a_batch_say_so(tmp_path: Path) -> None:
    few = ("--batch-size", "5", "--queries-per-class", "3", "--epochs", "1")
    arguments = ROOT / "train.py", *few, "--data", "images", "--output", tmp_path / "run"
    with Launch(2, *arguments, folder=tmp_path / "log") as launch:
        assert launch.wait() != 0
        assert "error: batch_size 5 cannot be shared equally by 2 processes" in launch.said

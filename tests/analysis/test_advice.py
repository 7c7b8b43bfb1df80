"""Quality of every prefix length against codes scored a length at a time, and what is recommended of a curve."""

import json
from pathlib import Path

import pytest

from nestkala import Hasher
from nestkala.analysis.advice import Length, measure_lengths, recommend
from nestkala.cli import main
from nestkala.data import load_dataset
from nestkala.data.splits import load_split
from nestkala.evaluation import evaluate
from nestkala.utils.errors import NestKALAError


def test_every_length_has_the_score_of_its_own_codes(noise_model: Path) -> None:
    lengths = measure_lengths(noise_model)
    assert [length.bits for length in lengths] == list(range(1, 21))
    assert [length.bytes for length in lengths] == [1] * 8 + [2] * 8 + [3] * 4
    assert all(length.ms > 0 for length in lengths)
    dataset = load_dataset(str(noise_model.parent / "images"), Path())
    split, hasher = load_split(noise_model / "split.json", dataset), Hasher.from_pretrained(noise_model, "cpu")
    for length in lengths:
        query, gallery = (
            hasher.encode([noise_model.parent / "images" / dataset.names[i] for i in part], length.bits)
            for part in (split.query, split.gallery)
        )
        labels = dataset.targets[split.query], dataset.targets[split.gallery]
        alone = evaluate(query, labels[0], gallery, labels[1], [length.bits])[length.bits]
        assert (length.map, length.map_tie_aware) == (alone.map, alone.map_tie_aware)


CURVE = [
    Length(bits, -(-bits // 8), 0.0, quality, ms)
    for bits, quality, ms in [
        (1, 0.2, 0.1),
        (8, 0.5, 0.1),
        (9, 0.45, 0.2),
        (16, 0.6, 0.3),
        (32, 0.62, 0.9),
        (40, 0.61, 1),
    ]
]


@pytest.mark.parametrize(
    ("bounds", "bits"),
    [
        ({}, 16),  # 0.6 is more than 95 % of 0.62
        ({"min_map": 0.5}, 8),
        ({"min_map": 0.61}, 32),
        ({"min_map": 0.3, "max_ms": 0.2}, 8),
        ({"max_ms": 0.35}, 16),
        ({"max_bytes": 1}, 8),
        ({"max_bytes": 9, "max_ms": 5}, 32),
        ({"max_bytes": 2, "max_ms": 0.2}, 8),
    ],
)
def test_the_shortest_that_suffices_or_the_best_within_bounds(bounds: dict[str, float], bits: int) -> None:
    assert recommend(CURVE, **bounds).bits == bits


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ({"min_map": 0.8}, "reaches a tie-aware mAP of 0.8: the best is 0.6200, at 32 bits"),
        ({"min_map": 0.55, "max_bytes": 1}, "reaches a tie-aware mAP of 0.55: the best is 0.5000, at 8 bits"),
        ({"max_ms": 0.01}, r"no length is within the limits: .* the fastest 0.100 ms \(1 bits\)"),
        ({"max_bytes": 0}, "no length is within the limits"),
    ],
)
def test_what_no_length_can_do_is_said(bounds: dict[str, float], said: str) -> None:
    with pytest.raises(NestKALAError, match=said):
        recommend(CURVE, **bounds)


def test_the_command_shows_marks_and_draws(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["advise", str(noise_model), "--max-bytes", "1", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    within = {length["bits"]: length["map_tie_aware"] for length in said["lengths"] if length["bytes"] == 1}
    assert said["recommended"] == max(within, key=within.__getitem__)
    for name in ("plot.png", "plot.svg"):
        assert main(["advise", str(noise_model), "--max-bytes", "1", "--plot", str(tmp_path / name)]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in rows if line.endswith("*")] == [str(said["recommended"])] * 2
    assert f"recommended: {said['recommended']} bits" in rows[-1]
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert f"{said['recommended']} bits" in (tmp_path / "plot.svg").read_text()


def test_mistakes_are_told(noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["advise", str(tmp_path)]) == 2
    assert "is not a run folder: it contains no config.yaml" in capsys.readouterr().err
    assert main(["advise", str(noise_model), "--plot", str(tmp_path / "plot.xyz")]) == 2
    assert "plot.xyz: give a file that ends in .png or .svg" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

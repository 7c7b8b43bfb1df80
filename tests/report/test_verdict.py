"""What a report says first, against codes that are ranked one by one; bits that are nearly alike."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nestkala.analysis.finished_run import FinishedRun
from nestkala.codes import pack, unpack
from nestkala.evaluation.collapse import Collapse
from nestkala.report import write_report
from nestkala.report.code_statistics import bit_statistics, similar_bits
from nestkala.report.groups import Group
from nestkala.report.measurements import RunMeasurements, _nearly_repeated, measure
from nestkala.report.verdict import headlines, verdict


@pytest.fixture(scope="module")
def measured(noise_model: Path) -> RunMeasurements:
    run = FinishedRun.open(noise_model)
    return measure(run, run.encode(), (4, 20))


def with_scores(run: RunMeasurements, quality: dict[int, float], low: float = 1.0, **others: object) -> Group:
    """A run of these tie-aware mAPs, the lower end of whose intervals is `low`, and with 0.83 right results."""
    (some, *_) = run.lengths.values()
    lengths = {
        bits: replace(
            some, precision_at_first=0.83, scores=replace(some.scores, map_tie_aware=value, map_interval=(low, 1.0))
        )
        for bits, value in quality.items()
    }
    return Group("run", [replace(run, lengths=lengths, num_gallery=5000, chance=0.011, **others)], {})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("quality", "bits", "longer"),
    [
        ({8: 0.4, 16: 0.8, 32: 0.8}, 16, "; longer codes do not help"),
        ({8: 0.4, 16: 0.8, 32: 0.81}, 16, "; longer codes help little"),
        ({8: 0.4, 16: 0.8}, 16, "; shorter codes find fewer"),
        ({8: 0.4}, 8, ""),
    ],
)
def test_the_verdict_is_one_sentence(
    measured: RunMeasurements, quality: dict[int, float], bits: int, longer: str
) -> None:
    sentence = f"At {bits} bits, 8.3 of the first 10 results show the right class; chance is 1 in 91{longer}."
    assert verdict(with_scores(measured, quality)) == sentence


def test_the_verdict_of_other_runs(measured: RunMeasurements) -> None:
    at_chance = verdict(with_scores(measured, {8: 0.011, 16: 0.011}, low=0.01))
    assert at_chance.startswith("No length is clearly better than chance: at 8 bits, ")
    assert "share a class with the query" in verdict(with_scores(measured, {8: 0.4}, multi_label=True))
    even = with_scores(measured, {8: 0.9})
    halves = Group("halves", [replace(even.first, chance=0.5)], {})
    assert "chance is 5 in 10" in verdict(halves)
    seeds = Group("seeds", [*with_scores(measured, {8: 0.6}).runs, *with_scores(measured, {8: 0.8}).runs], {})
    assert headlines(seeds)[0].value == "70.0 %"


def test_its_numbers_are_those_of_codes_ranked_one_by_one(noise_model: Path, measured: RunMeasurements) -> None:
    run = FinishedRun.open(noise_model)
    codes = run.encode()
    rng = np.random.default_rng(0)
    size = len(codes.gallery)
    same = (codes.query_labels[:, None] & codes.gallery_labels).any(axis=2)
    for bits in (4, 20):
        q, g = unpack(codes.queries, bits).astype(int), unpack(codes.gallery, bits).astype(int)
        distances = (bits - q @ g.T) // 2
        shares = []
        for _ in range(3000):
            order = rng.permutation(size)
            ranked = order[np.argsort(distances[:, order], kind="stable")][:, :10]
            shares.append(np.take_along_axis(same, ranked, axis=1).mean())
        assert measured.lengths[bits].precision_at_first == pytest.approx(np.mean(shares), abs=0.02)
    assert measured.num_copies == len(codes.copies)
    by_class, by_copy = headlines(Group("run", [measured], {}))
    assert by_class.beside == f"chance: {100 * same.mean():.1f} %; {len(q)} queries"
    found = []
    c, g = unpack(codes.copies, 20).astype(int), unpack(codes.gallery, 20).astype(int)
    for copy, original in zip(c, codes.originals, strict=True):
        distance = (20 - g @ copy) // 2
        ties = (distance == distance[original]).sum()
        found.append(0 if (distance < distance[original]).any() else 1 / ties)
    assert by_copy.value == f"{100 * np.mean(found):.1f} %"
    assert by_copy.beside == f"chance: {100 / size:.1f} %; {len(codes.copies)} queries"


def test_the_page_opens_with_it(noise_model: Path, tmp_path: Path, measured: RunMeasurements) -> None:
    page = write_report([noise_model], tmp_path / "report").read_text()
    opening = page[page.index("<main>") : page.index("<table>")]
    assert re.findall(r'<p class="verdict">(.*)</p>', opening) == [verdict(Group("run", [measured], {}))]
    assert [number.title in opening for number in headlines(Group("run", [measured], {}))] == [True, True]


def flipped(signs: np.ndarray, rows: int) -> np.ndarray:
    return np.concatenate([-signs[:rows], signs[rows:]])


@pytest.mark.parametrize("reverse", [lambda signs: signs, lambda signs: -signs])
def test_bits_that_are_nearly_alike(reverse: Callable[[np.ndarray], np.ndarray]) -> None:
    signs = np.random.default_rng(0).choice([-1, 1], (1000, 9))
    signs[:, 4] = reverse(flipped(signs[:, 1], 10))  # |correlation| about 0.98
    signs[:, 6] = reverse(flipped(signs[:, 2], 100))  # about 0.8: not so
    signs[:, 7] = reverse(signs[:, 3])
    signs[:, 8] = 1
    codes = pack(signs)
    _, correlation = bit_statistics(codes, 9)
    pairs = {(i, j) for i in range(8) for j in range(i) if abs(np.corrcoef(signs[:, i], signs[:, j])[0, 1]) >= 0.95}
    assert set(similar_bits(correlation).items()) == pairs == {(4, 1), (7, 3)}
    (line,) = _nearly_repeated(Collapse.of(codes, 9), correlation)  # 7 repeats 3 wholly, which is another warning
    assert line == "warning: 1 of 9 bits nearly repeat or reverse another (|correlation|: 4 like 1, 0.98)"
    few = codes[:20]
    assert _nearly_repeated(Collapse.of(few, 9), bit_statistics(few, 9)[1]) == []

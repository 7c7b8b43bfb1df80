"""Drawn splits of any labels, shots and parts: what the docstring says, or an error that names the setting."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import multi_hot

from nestkala.data.splits import draw_split
from nestkala.utils.errors import NestKALAError
from tests.data.test_splits import dataset_of


@st.composite
def labels(draw: st.DrawFn) -> np.ndarray:
    num, classes = draw(st.integers(1, 30)), draw(st.integers(1, 5))
    found: np.ndarray = draw(multi_hot(num, classes)).numpy().astype(bool)
    return found


@st.composite
def parts(draw: st.DrawFn, num: int) -> dict[str, list[int]]:
    """Some of the parts that a source may define; they may overlap, and be empty."""
    names = draw(st.sets(st.sampled_from(["train", "database", "test"])))
    return {name: draw(st.lists(st.integers(0, num - 1), unique=True).map(sorted)) for name in sorted(names)}


counts = st.one_of(st.none(), st.integers(-1, 8))


@given(labels(), st.integers(-1, 9), st.integers(-1, 99), counts, counts, counts, st.data())
@example(np.zeros((4, 2), bool), 1, 0, None, None, None, None)
@example(np.ones((1, 1), bool), 1, 0, None, None, None, None)
def test_a_split_is_what_it_says_or_an_error(
    targets: np.ndarray,
    shots: int,
    seed: int,
    per_class: int | None,
    queries: int | None,
    pool: int | None,
    data: st.DataObject | None,
) -> None:
    given_parts = data.draw(st.one_of(st.just({}), parts(len(targets)))) if data else {}
    dataset = dataset_of(targets, given_parts)
    settings = {"shots": shots, "seed": seed, "queries_per_class": per_class, "queries": queries, "train_pool": pool}
    try:
        split = draw_split(dataset, **settings)  # type: ignore[arg-type]
    except NestKALAError:
        return
    train, query, gallery = (set(part.tolist()) for part in (split.train, split.query, split.gallery))
    assert [len(train), len(query), len(gallery)] == [len(split.train), len(split.query), len(split.gallery)]
    assert not query & (train | gallery)
    assert gallery
    if "test" in given_parts:
        assert split.query.tolist() == given_parts["test"]
    else:
        assert targets[split.query].any(axis=1).all()
        if per_class is not None:
            assert targets[split.query].sum(axis=0).tolist() == [per_class] * targets.shape[1]
        elif queries is not None:
            assert len(query) == queries
        else:
            assert len(query) == max(1, targets.any(axis=1).sum() // 10)
    assert gallery == set(given_parts.get("database", range(len(targets)))) - query
    assert train <= set(given_parts.get("train", gallery))
    assert pool is None or len(train) <= pool
    taken = targets[split.train].sum(axis=0)
    assert (taken <= shots).all()
    assert targets[split.train].any(axis=1).all()
    if (targets.sum(axis=1) == 1).all():
        assert (taken == shots).all()
    elif pool is None:  # nothing more could be taken: every labeled image left shows a class that is full
        left = sorted(set(given_parts.get("train", gallery)) - train - query)
        assert ((targets[left] & (taken >= shots)).any(axis=1) | ~targets[left].any(axis=1)).all()
    again = draw_split(dataset, **settings)  # type: ignore[arg-type]
    assert [again.train.tolist(), again.query.tolist(), again.gallery.tolist()] == [
        part.tolist() for part in (split.train, split.query, split.gallery)
    ]

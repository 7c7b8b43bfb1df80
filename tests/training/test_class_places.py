"""Which bits of a code are for the class, and which for the image itself."""

import pytest
import torch

from nestkala.training.closed_form.bits import class_places, detail_rows


@pytest.mark.parametrize(
    ("bits", "class_bits", "few_images", "expected"),
    [
        (8, None, False, "c" * 8),
        (24, None, False, "c" * 16 + "i" * 8),
        (128, None, False, "c" * 32 + "i" * 96),
        (64, 40, False, "c" * 40 + "i" * 24),
        (64, 40, True, "c" * 40 + "i" * 24),  # what is asked for
        (6, None, True, "c" * 6),
        (24, None, True, "c" * 16 + "i" * 8),
        (128, None, True, 2 * ("c" * 16 + "i" * 16) + "c" * 32 + "i" * 32),
    ],
)
def test_few_images_get_as_many_bits_for_the_image_at_every_doubling(
    bits: int, class_bits: int | None, few_images: bool, expected: str
) -> None:
    places = class_places(bits, class_bits, few_images)
    assert "".join("c" if place else "i" for place in places.tolist()) == expected


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        (6, "c" * 6),
        (12, "c" * 8 + "i" * 4),
        (24, "c" * 8 + "i" * 8 + "c" * 8),
        (128, 2 * ("c" * 8 + "i" * 8) + "c" * 16 + "i" * 16 + "c" * 32 + "i" * 32),
    ],
)
def test_clusters_of_few_images_get_fewer_of_the_first_bits_than_named_classes(bits: int, expected: str) -> None:
    places = class_places(bits, None, few_images=True, are_named=False)
    assert "".join("c" if place else "i" for place in places.tolist()) == expected


def test_the_first_bits_for_the_image_are_plain_components_if_images_are_few() -> None:
    generator = torch.Generator().manual_seed(0)
    units = torch.nn.functional.normalize(torch.randn(60, 40, generator=generator, dtype=torch.float64), dim=1)
    probabilities = torch.randn(60, 3, generator=generator, dtype=torch.float64).softmax(dim=1)
    variances = units.var(dim=0)
    rows = detail_rows(units, probabilities, variances, variances.mean(), 24, generator, few_images=True)
    assert rows.shape == (24, 43)
    assert (rows[:, 40:] == 0).all()
    centered = units - units.mean(dim=0)
    first = torch.linalg.svd(centered, full_matrices=False).Vh[:16]  # (16, k)
    plain = rows[:16, :40]
    torch.testing.assert_close(plain @ plain.T, torch.eye(16, dtype=torch.float64))  # a rotation of them
    torch.testing.assert_close(plain @ first.T @ first, plain)

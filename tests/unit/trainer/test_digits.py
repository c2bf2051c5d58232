from __future__ import annotations

import io

import numpy as np
from PIL import Image

from fallback.answer import Subject
from gateway.manifest import check
from gateway.preprocess import to_tensor
from trainer import digits


def test_the_parts_are_fixed_and_apart() -> None:
    """200 of 20 a label, 1,200, 397: all digits, each in one part, the same for ever."""
    found = digits.load()
    assert (len(found.seed), len(found.stream), len(found.holdout)) == (200, 1200, 397)
    assert sorted(found.seed + found.stream + found.holdout) == list(range(1797))
    assert np.bincount(found.labels[list(found.seed)]).tolist() == [20] * 10
    assert found.seed[:3] + found.stream[:3] + found.holdout[:3] == (1486, 168, 347, 986, 115, 1309, 133, 1275, 1029)


def test_no_digit_of_the_holdout_is_in_another_part_in_disguise() -> None:
    """All 1,797 images differ."""
    found = digits.load()
    assert len({pixels.tobytes() for pixels in found.pixels}) == 1797


def test_a_png_becomes_the_tensor_that_the_model_was_trained_on() -> None:
    """The gateway's preprocessing of the picture and the trainer's numbers are the same, bit for bit."""
    found = digits.load()
    manifest = digits.manifest("digits")
    for index in (0, 7, 1796):
        png = found.png(index)
        picture = Image.open(io.BytesIO(png))
        assert (picture.format, picture.mode, picture.size) == ("PNG", "L", (8, 8))
        subject = Subject(content=png, media_type="image/png")
        row = to_tensor(subject, manifest.inputs[0], manifest.preprocess, sizes=(1, 8, 8), pixels_max=64)
        np.testing.assert_array_equal(row, found.tensor((index,))[0])


def test_the_manifest_can_be_served_and_its_keys_are_the_digits() -> None:
    """0 to 9 on the keyboard, can't tell offered, provisional answers for unaware clients."""
    manifest = digits.manifest("numbers")
    check(manifest)
    assert manifest.task is not None
    assert [(option.label, option.key) for option in manifest.task.labels] == [(d, d) for d in "0123456789"]
    assert manifest.task.cant_tell
    assert manifest.on_deferral == "provisional"
    assert (manifest.policy.threshold, manifest.policy.audit_share) == (0.9, 0.1)

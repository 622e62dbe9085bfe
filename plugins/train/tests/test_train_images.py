"""Batches: drawn from the number of the step alone, every image once in an epoch."""

import pickle
from collections import Counter

import pytest
import torch
from preimage_train.images import Feed, Images
from preimage_train.settings import Batches

from preimage import Dataset, Key
from preimage.errors import BadData, BadParameter


class Numbered(Dataset):
    """Image i is a ramp whose first pixel says i."""

    def __init__(self, count, shape=(1, 8, 8), broken=()):
        self.shape, self._count, self._broken = shape, count, broken

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        if index in self._broken:
            raise BadData(f"{index} is broken")
        return index + torch.linspace(0, 0.5, self.shape[1] * self.shape[2]).reshape(self.shape).clone()

    def label(self, index):
        return f"image-{index}"


def feed(count=6, **settings):
    return Feed(Images.of([Numbered(count)]), Batches(**settings), Key(1))


def test_every_image_once_in_an_epoch_in_another_order_each_time():
    batches = feed(size=2, flips=False)
    epochs = [[int(i) for step in range(3 * e, 3 * e + 3) for i in batches[step][0][:, 0, 0, 0]] for e in range(3)]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_a_step_does_not_depend_on_the_steps_before():
    one, other = feed(size=4, crop=5, turns=True), feed(size=4, crop=5, turns=True)
    for step in (9, 2, 5):
        other[step - 1]
        a, b = one[step], other[step]
        assert torch.equal(a[0], b[0])
        assert a[1] == b[1]


def test_crops_flips_and_turns_all_occur():
    batches = Feed(Images.of([Numbered(1, (1, 6, 6))]), Batches(size=1, crop=5, turns=True), Key(0))
    seen = Counter(tuple(batches[step][0].flatten().tolist()) for step in range(400))
    assert len(seen) == 4 * 8  # four places, eight symmetries
    plain = Feed(Images.of([Numbered(1, (1, 6, 6))]), Batches(size=1, flips=False), Key(0))
    assert len({tuple(plain[step][0].flatten().tolist()) for step in range(10)}) == 1


def test_processes_share_a_batch_in_order():
    images, whole = Images.of([Numbered(6)]), feed(size=4, crop=3)
    parts = [Feed(images, Batches(size=4, crop=3), Key(1), rank, 2) for rank in range(2)]
    for step in range(5):
        assert torch.equal(whole[step][0], torch.cat([part[step][0] for part in parts]))
        assert whole[step][1] == parts[0][step][1] + parts[1][step][1]
    with pytest.raises(BadParameter, match="multiple of 3"):
        Feed(images, Batches(size=4), Key(1), 0, 3)


def test_workers_get_a_copy_that_draws_the_same():
    batches = feed(size=3, crop=4)
    copied = pickle.loads(pickle.dumps(batches))
    assert torch.equal(batches[7][0], copied[7][0])


def test_several_sets_are_one():
    images = Images.of([Numbered(2), Numbered(3)])
    assert len(images) == 5
    assert [images.label(i) for i in range(5)] == ["image-0", "image-1", "image-0", "image-1", "image-2"]


def test_sets_of_other_channels_or_shapes_are_refused():
    with pytest.raises(BadData, match="channels"):
        Images.of([Numbered(2), Numbered(2, (3, 8, 8))])
    images = Images.of([Numbered(2), Numbered(2, (1, 9, 9))])
    with pytest.raises(BadParameter, match="one shape, or a crop"):
        Feed(images, Batches(), Key(0))
    assert Feed(images, Batches(crop=8), Key(0)).shape == (1, 8, 8)
    with pytest.raises(BadParameter, match="square"):
        Feed(Images.of([Numbered(2, (1, 8, 9))]), Batches(turns=True), Key(0))


def test_unreadable_images_are_named_or_skipped():
    broken = Numbered(5, broken=(1, 3))
    with pytest.raises(BadData, match="2 of 5 images cannot be read: image-1"):
        Images.of([broken])
    images = Images.of([broken], skip=True)
    assert len(images) == 3
    assert [images.label(i) for i in range(3)] == ["image-0", "image-2", "image-4"]
    assert len(images.skipped) == 2
    with pytest.raises(BadData, match="no images"):
        Images.of([Numbered(1, broken=(0,))], skip=True)


def test_the_digest_sees_every_pixel():
    class Other(Numbered):
        def __getitem__(self, index):
            image = super().__getitem__(index)
            image[0, -1, -1] += 1e-3 if index == 2 else 0
            return image

    assert Images.of([Numbered(4)]).digest() == Images.of([Numbered(4)]).digest()
    assert Images.of([Numbered(4)]).digest() != Images.of([Other(4)]).digest()

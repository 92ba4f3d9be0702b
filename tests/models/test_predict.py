"""Prediction: batches, views and single patches agree; memory stays flat."""

import subprocess
import sys

import numpy as np
import pytest

from histopath.models.predict import eight_views, predict
from histopath.models.registry import build_model


@pytest.fixture(scope="module")
def network():
    return build_model("simple_cnn", size=96)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (11, 96, 96, 3), dtype="uint8")


def test_eight_views_are_the_dihedral_group(images):
    views = list(eight_views(images[:2]))
    turned = [np.rot90(images[:2], k, axes=(1, 2)) for k in range(4)]
    expected = turned + [view[:, :, ::-1] for view in turned]
    assert {view.tobytes() for view in views} == {np.ascontiguousarray(view).tobytes() for view in expected}
    assert len(views) == 8 and (views[0] == images[:2]).all()


@pytest.mark.parametrize("views", [1, 8])
def test_batches_give_what_single_patches_give(network, images, views):
    together = predict(network, images, views=views, batch_size=4)
    alone = [predict(network, images, [i], views=views, batch_size=1)[0] for i in range(len(images))]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert together.shape == (11,) and together.dtype == np.float32


def test_the_answer_follows_the_order_of_the_rows(network, images):
    rows = np.array([7, 0, 10, 3, 3])
    np.testing.assert_allclose(predict(network, images, rows), predict(network, images)[rows], atol=1e-5)


def test_eight_views_are_the_mean_of_single_views(network, images):
    singles = [predict(network, view, views=1) for view in eight_views(images)]
    np.testing.assert_allclose(predict(network, images, views=8), np.mean(singles, axis=0), atol=1e-5)


def test_a_turned_patch_gets_the_same_answer_with_eight_views(network, images):
    turned = np.ascontiguousarray(np.rot90(images, axes=(1, 2)))
    np.testing.assert_allclose(predict(network, turned), predict(network, images), atol=1e-5)
    assert abs(predict(network, turned, views=1) - predict(network, images, views=1)).max() > 1e-6


def test_a_network_that_answers_all_views_alike_is_asked_once(images):
    compact = build_model("compact")
    asked = []
    single = predict(compact, images, views=1)
    for view in eight_views(images):
        np.testing.assert_allclose(predict(compact, view, views=1), single, atol=1e-5)
    compact.predict_on_batch, answer = lambda batch: asked.append(batch) or answer(batch), compact.predict_on_batch
    np.testing.assert_array_equal(predict(compact, images, views=8, batch_size=11), single)
    assert len(asked) == 1


def test_a_side_that_is_not_halved_evenly_gets_its_eight_views(images):
    odd = build_model("compact", size=90)
    turned = predict(odd, images[:, :90, :90], views=8)
    assert abs(turned - predict(odd, images[:, :90, :90], views=1)).max() > 1e-6


def test_no_patches_give_no_probabilities(network, images):
    assert predict(network, images, []).shape == (0,)


def test_patches_of_another_size_are_refused(network):
    with pytest.raises(ValueError, match="The patches are 64×64×3 and simple_cnn takes 96×96×3"):
        predict(network, np.zeros((2, 64, 64, 3), "uint8"))


MEMORY = """
import sys, numpy as np
from histopath.models.predict import predict
from histopath.models.registry import build_model
def resident():
    return int(next(l for l in open("/proc/self/status") if l.startswith("RssAnon")).split()[1]) / 1024
images = np.lib.format.open_memmap(sys.argv[1], mode="w+", dtype="uint8", shape=(6000, 96, 96, 3))
network = build_model("compact")
predict(network, images, np.arange(1000), views=1)  # until the allocator has what it needs
before = resident()
predict(network, images, np.arange(3000), views=1)
print(resident() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_does_not_grow_with_the_number_of_patches(tmp_path):
    done = subprocess.run([sys.executable, "-c", MEMORY, tmp_path / "x.npy"], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 30  # MiB; 2,000 patches more are 53 as uint8 and 211 as float32

"""The sample of patches: equal pixels everywhere, Kaggle's layout, true labels, no shortcut."""

import hashlib

import numpy as np
import pandas as pd
import pytest
import tifffile
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from histopath.synthetic import patches as sample

# Of parts, ids, slides, labels and pixels, which the first version drew, too.
GOLDEN_SHA256 = "8ef8d8b20c51de75d773ce7f3b0aa3d04469419c5d43e393606c8a34ea8477c1"


@pytest.fixture(scope="module")
def patches() -> list[sample.Patch]:
    return sample.render_patches(0)


@pytest.fixture(scope="module")
def folder(patches, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample, "render_patches", lambda seed: patches)
        return sample.PATCHES.write(tmp_path_factory.mktemp("home") / "sample")


@pytest.fixture(scope="module")
def arrays(patches):
    """Images (n, 96, 96, 3), labels (n,) and slide names (n,)."""
    images = np.stack([patch.image for patch in patches])
    labels, slides = ([getattr(patch, name) for patch in patches] for name in ("label", "slide"))
    return images, np.array(labels), np.array(slides)


def planted(patches, *kinds):
    return [patch for patch in patches if patch.kind in kinds]


def test_the_pixels_are_the_golden_ones(patches):
    digest = hashlib.sha256()
    for patch in patches:
        digest.update(repr(patch[:4]).encode() + patch.image.tobytes())
    assert digest.hexdigest() == GOLDEN_SHA256


def test_another_seed_draws_other_patches():
    one, other = (sample.make_slide(seed, 5).exposure for seed in (0, 1))
    assert not np.array_equal(one.stains, other.stains)


def test_files_are_uncompressed_tiffs_that_hold_the_patches_drawn(folder, patches):
    assert len(patches) == len(list(folder.glob("*/*.tif")))
    for patch in patches[::20]:
        with tifffile.TiffFile(folder / patch.part / f"{patch.id}.tif") as file:
            page = file.pages[0]
            assert (page.compression.name, page.photometric.name) == ("NONE", "RGB")
            assert np.array_equal(page.asarray(), patch.image)


def test_tables_list_every_file_once(folder):
    names = ("train_labels.csv", "sample_submission.csv", "slides.csv")
    labels, submission, slides = (pd.read_csv(folder / name) for name in names)
    for table, part in ((labels, "train"), (submission, "test")):
        assert sorted(table["id"]) == sorted(path.stem for path in folder.glob(f"{part}/*.tif"))
        assert list(table) == ["id", "label"]
    assert set(labels["label"]) == {0, 1} and set(submission["label"]) == {0}
    assert list(slides["id"]) == [*labels["id"], *submission["id"]]
    is_train = slides["id"].isin(labels["id"])
    train, test = set(slides["slide"][is_train]), set(slides["slide"][~is_train])
    assert len(train) == 24 and len(test) == 8 and not train & test
    assert len(labels) == 442 and len(submission) == 96


def test_a_name_is_the_hash_of_the_pixels(patches):
    for patch in patches[::10]:
        suffix = b"duplicate" if patch.kind == "exact" else b""
        assert patch.id == hashlib.sha1(patch.image.tobytes() + suffix).hexdigest()


def test_the_label_says_whether_the_center_holds_tumor(patches):
    assert all(patch.label == patch.mask[32:64, 32:64].any() for patch in patches)


def test_positives_hold_plenty_of_tumor_in_the_center(patches):
    shares = [patch.mask[32:64, 32:64].mean() for patch in patches if patch.label]
    assert min(shares) > 0.15 and np.median(shares) > 0.8


def test_some_negatives_hold_tumor_well_outside_the_center(patches):
    outside = [patch for patch in patches if not patch.label and patch.mask.any()]
    assert 0.04 < len(outside) / sum(not patch.label for patch in patches) < 0.15
    # A margin of 8 pixels, twice what a shift may move.
    assert not any(patch.mask[24:72, 24:72].any() for patch in outside)


def test_classes_are_nearly_balanced_and_slides_mixed(arrays):
    _, labels, slides = arrays
    shares = {slide: labels[slides == slide].mean() for slide in set(slides)}
    assert 0.38 < labels.mean() < 0.48
    assert sum(share == 0 for share in shares.values()) == len(sample.HEALTHY_SLIDES)
    assert max(shares.values()) < 0.95


def test_exact_duplicates_are_planted(patches):
    originals = {patch.image.tobytes(): patch for patch in patches if patch.kind != "exact"}
    copies = planted(patches, "exact")
    assert len(copies) == 2 and len(originals) == len(patches) - 2
    for copy in copies:
        original = originals[copy.image.tobytes()]
        assert copy.id != original.id
        assert (copy.slide, copy.label) == (original.slide, original.label)


def test_near_duplicates_are_planted(patches):
    drawn = planted(patches, "none", "center", "outside")
    train = {patch.image.tobytes(): patch for patch in drawn}
    flipped, turned, touched = (planted(patches, kind)[0] for kind in ("flipped", "turned", "touched"))
    assert train[flipped.image[:, ::-1].tobytes()].label == flipped.label
    assert train[np.rot90(turned.image, -1).tobytes()].label == turned.label
    restored = touched.image.copy()
    restored[0, 0, 0] ^= 1
    assert train[restored.tobytes()].slide == touched.slide


def test_near_white_and_near_black_patches_are_planted(patches):
    white, black = planted(patches, "white"), planted(patches, "black")
    assert len(white) == 3 and all(patch.image.min() > 235 for patch in white)
    assert len(black) == 2 and all(np.mean(patch.image < 20) > 0.99 for patch in black)
    assert not any(patch.label for patch in white + black)


def nuclear_hue(image: np.ndarray) -> np.ndarray:
    """Returns the shares of red, green and blue in the optical density of the darkest tissue."""
    density = -np.log10((image.reshape(-1, 3) + 1.0) / 256)
    density = density[density.sum(1) > 0.45]  # what is not glass
    if len(density) < 500:
        return np.full(3, np.nan)
    darkest = density[density.sum(1) >= np.quantile(density.sum(1), 0.8)].mean(0)
    return darkest / darkest.sum()


def test_color_varies_between_slides_far_more_than_within(arrays):
    images, _, slides = arrays
    hues = np.stack([nuclear_hue(image) for image in images])
    known = ~np.isnan(hues).any(1)
    groups = pd.DataFrame(hues[known]).groupby(slides[known])
    within, between = groups.var(ddof=0).mean(), groups.mean().var(ddof=0)
    assert between.sum() > 3 * within.sum()
    assert (between > within).all()


def auc_on_other_slides(arrays, features: np.ndarray) -> float:
    """Returns the mean AUC over four random choices of 16 slides to learn from, on the others."""
    _, labels, slides = arrays
    scores = []
    for seed in range(4):
        chosen = np.isin(slides, np.random.default_rng(seed).permutation(sorted(set(slides)))[:16])
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        model.fit(features[chosen], labels[chosen])
        scores.append(roc_auc_score(labels[~chosen], model.predict_proba(features[~chosen])[:, 1]))
    return float(np.mean(scores))


def test_mean_color_does_not_solve_it_and_texture_does(arrays):
    images = arrays[0].astype(float)
    center = images[:, 24:72, 24:72].mean(-1)
    sizes = (1, 2, 3, 4, 6, 8, 12)
    blurred = [center.reshape(-1, 48 // k, k, 48 // k, k).mean((2, 4)) for k in sizes]
    texture = np.log(np.stack([image.std((1, 2)) for image in blurred], 1) + 1)
    auc_color = auc_on_other_slides(arrays, images.mean((1, 2)))
    auc_texture = auc_on_other_slides(arrays, texture)
    print(f"AUC mean color {auc_color:.3f}, texture {auc_texture:.3f}, {len(images)} patches")
    assert 0.5 < auc_color < 0.74
    assert auc_texture > auc_color + 0.1

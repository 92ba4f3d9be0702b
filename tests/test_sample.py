"""The synthetic sample: equal bytes everywhere, the layout of the competition, true labels, no shortcut."""

import csv
import functools
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from histopath import sample, tissue

# What write_sample(folder, seed=0) of VERSION 1 writes; a change of the drawing must raise VERSION and this.
GOLDEN_SHA256 = "e37e9eee0c547ac03fe03fcda78ac94b045d4e08d1b29c1ee04f185c3e71ec6e"


def folder_sha256(folder: Path) -> str:
    """Returns one digest of the names and bytes of all files below `folder`."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        if path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def read_table(path: Path) -> dict[str, str]:
    """Returns the second column of a CSV by the first."""
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header[0] == "id" and len(dict(rows)) == len(rows)
    return dict(rows)


@pytest.fixture(scope="module")
def drawn():
    """Draws the sample once for all tests that look at it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample, "render_sample", functools.cache(sample.render_sample))
        yield sample.render_sample


@pytest.fixture(scope="module")
def folder(drawn, tmp_path_factory) -> Path:
    return sample.write_sample(tmp_path_factory.mktemp("home") / "data" / "sample")


@pytest.fixture(scope="module")
def patches(drawn) -> list[sample.Patch]:
    return drawn(0)


@pytest.fixture(scope="module")
def arrays(patches):
    """Images (n, 96, 96, 3), labels (n,) and slide names (n,)."""
    images = np.stack([patch.image for patch in patches])
    return images, np.array([patch.label for patch in patches]), np.array([patch.slide for patch in patches])


def planted(patches, *kinds):
    return [patch for patch in patches if patch.kind in kinds]


def test_the_bytes_are_the_golden_ones(folder):
    assert folder_sha256(folder) == GOLDEN_SHA256


def test_a_patch_drawn_twice_is_the_same():
    slide, cells = sample.make_slide(0, 2), tissue.draw_cells(0)
    (image, mask), (image_again, mask_again) = (
        sample.render_patch(tissue.generator(9), slide, cells, "centre") for _ in range(2)
    )
    assert np.array_equal(image, image_again) and np.array_equal(mask, mask_again)


def test_files_hold_the_patches_drawn(folder, patches):
    assert len(patches) == len(list(folder.glob("*/*.tif")))
    for patch in patches[::10]:
        assert np.array_equal(tifffile.imread(folder / patch.part / f"{patch.id}.tif"), patch.image)


@pytest.mark.slow
def test_a_second_writing_without_avx_is_the_same(tmp_path):
    features = "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR"
    environment = os.environ | {"NPY_DISABLE_CPU_FEATURES": features, "PYTHONHASHSEED": "7"}
    code = "import sys; from pathlib import Path; from histopath import sample; sample.write_sample(Path(sys.argv[1]))"
    root = Path(sample.__file__).parents[1]
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, tmp_path / "again"], env=environment, cwd=root, check=True)
    assert folder_sha256(tmp_path / "again") == GOLDEN_SHA256


def test_no_float_is_computed():
    slide, cells = sample.make_slide(0, 1), tissue.draw_cells(0)
    fields = [paint(tissue.generator(1), 3) for paint in sample.TISSUES.values()]
    fields += [part for cell in cells.values() for drawing in cell for part in drawing]
    fields += [slide.stains, slide.glass]
    assert all(np.issubdtype(field.dtype, np.integer) for field in fields)
    assert sample.render_patch(tissue.generator(1), slide, cells, "none")[0].dtype == np.uint8


def test_another_seed_draws_other_patches():
    slide, other = sample.make_slide(0, 5), sample.make_slide(1, 5)
    assert not np.array_equal(slide.stains, other.stains)


def test_files_are_tiffs_like_those_of_the_competition(folder):
    paths = sorted(folder.glob("train/*.tif"))
    assert {path.stat().st_size for path in paths} == {27_935}  # the size of every competition file
    for path in paths[::40]:
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            assert (page.shape, page.dtype, page.compression.name, page.photometric.name) == (
                (96, 96, 3), np.uint8, "NONE", "RGB")  # fmt: skip
            pixels = page.asarray().tobytes()
        assert path.stem in {hashlib.sha1(pixels + suffix).hexdigest() for suffix in (b"", b"duplicate")}


def test_tables_list_every_file_once(folder):
    labels, submission = read_table(folder / "train_labels.csv"), read_table(folder / "sample_submission.csv")
    assert set(labels) == {path.stem for path in folder.glob("train/*.tif")}
    assert set(submission) == {path.stem for path in folder.glob("test/*.tif")}
    assert set(labels.values()) == {"0", "1"} and set(submission.values()) == {"0"}
    slides = read_table(folder / "slides.csv")
    assert list(slides) == [*labels, *submission]
    train, test = ({slides[name] for name in table} for table in (labels, submission))
    assert len(train) == 24 and len(test) == 8 and not train & test
    assert 430 <= len(labels) <= 480 and len(submission) == 96


def test_readme_says_that_it_is_synthetic(folder):
    text = (folder / "README.txt").read_text()
    assert "synthetic" in text and "nothing found here says anything about medicine" in text


def test_the_label_says_whether_the_centre_holds_tumour(patches):
    assert all(patch.label == patch.mask[32:64, 32:64].any() for patch in patches)


def test_positives_hold_plenty_of_tumour_in_the_centre(patches):
    shares = [patch.mask[32:64, 32:64].mean() for patch in patches if patch.label]
    assert min(shares) > 0.15 and np.median(shares) > 0.8


def test_some_negatives_hold_tumour_well_outside_the_centre(patches):
    outside = [patch for patch in patches if not patch.label and patch.mask.any()]
    assert 0.04 < len(outside) / sum(not patch.label for patch in patches) < 0.15
    assert not any(patch.mask[24:72, 24:72].any() for patch in outside)  # an 8 pixel margin, twice what a shift may move


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
        assert copy.id == hashlib.sha1(copy.image.tobytes() + b"duplicate").hexdigest() != original.id
        assert (copy.slide, copy.label) == (original.slide, original.label)


def test_near_duplicates_are_planted(patches):
    train = {patch.image.tobytes(): patch for patch in patches if patch.kind in ("none", "centre", "outside")}
    (flipped,), (turned,), (touched,) = (planted(patches, kind) for kind in ("flipped", "turned", "touched"))
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
    """Returns the shares of red, green and blue in the optical density of the darkest fifth of the tissue."""
    density = -np.log10((image.reshape(-1, 3) + 1.0) / 256)
    density = density[density.sum(1) > 0.45]  # what is not glass
    if len(density) < 500:
        return np.full(3, np.nan)
    darkest = density[density.sum(1) >= np.quantile(density.sum(1), 0.8)].mean(0)
    return darkest / darkest.sum()


def test_colour_varies_between_slides_far_more_than_within(arrays):
    images, _, slides = arrays
    hues = np.stack([nuclear_hue(image) for image in images])
    kept = ~np.isnan(hues).any(1)
    groups = [hues[kept & (slides == slide)] for slide in sorted(set(slides))]
    within = np.mean([group.var(0) for group in groups], axis=0)
    between = np.var([group.mean(0) for group in groups], axis=0)
    print("variance of hue between slides, over that within:", between.sum() / within.sum(), between / within)
    assert between.sum() > 3 * within.sum()
    assert (between > within).all()


def colour_and_texture_auc(arrays, features: np.ndarray) -> float:
    """Returns the mean AUC over four random choices of 16 slides to learn from, scored on the others."""
    _, labels, slides = arrays
    scores = []
    for seed in range(4):
        chosen = np.isin(slides, np.random.default_rng(seed).permutation(sorted(set(slides)))[:16])
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(features[chosen], labels[chosen])
        scores.append(roc_auc_score(labels[~chosen], model.predict_proba(features[~chosen])[:, 1]))
    return float(np.mean(scores))


def test_mean_colour_does_not_solve_it_and_texture_does(arrays):
    images = arrays[0].astype(float)
    colour = images.mean((1, 2))
    centre = images[:, 24:72, 24:72].mean(-1)
    blurred = [centre.reshape(-1, 48 // k, k, 48 // k, k).mean((2, 4)) for k in (1, 2, 3, 4, 6, 8, 12)]
    texture = np.log(np.stack([image.std((1, 2)) for image in blurred], 1) + 1)
    auc_colour, auc_texture = (colour_and_texture_auc(arrays, features) for features in (colour, texture))
    print(f"AUC mean colour {auc_colour:.3f}, texture {auc_texture:.3f}, {len(images)} patches")
    assert 0.5 < auc_colour < 0.74
    assert auc_texture > auc_colour + 0.1


def test_a_finished_sample_is_left_alone(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert sample.write_sample(folder) == folder
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize("name", ["notes.txt", "sample.json"])
def test_a_folder_with_something_else_is_refused_and_untouched(tmp_path, name):
    (tmp_path / "sample").mkdir()
    (tmp_path / "sample" / name).write_text("mine")
    with pytest.raises(ValueError, match="holds something else: move it away or name another folder"):
        sample.write_sample(tmp_path / "sample")
    assert [path.name for path in tmp_path.iterdir()] == ["sample"]
    assert (tmp_path / "sample" / name).read_text() == "mine"


def test_a_sample_of_another_seed_is_refused(folder):
    with pytest.raises(ValueError, match="seed 1"):
        sample.write_sample(folder, seed=1)


def test_nothing_is_left_when_writing_fails(tmp_path, monkeypatch, drawn):
    def full_disk(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space left"):
        sample.write_sample(tmp_path / "sample")
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_is_filled(tmp_path, drawn):
    (tmp_path / "sample").mkdir()
    assert folder_sha256(sample.write_sample(tmp_path / "sample")) == GOLDEN_SHA256
    assert [path.name for path in tmp_path.iterdir()] == ["sample"]


def test_the_sample_stands_under_data(tmp_path):
    assert sample.sample_folder(tmp_path) == tmp_path / "data" / "sample"

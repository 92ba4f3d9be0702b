"""What the notebooks work on: data found or written, names that keep one data set's results apart from another's."""

import shutil

import pytest

from histopath.files import InputError
from histopath.project import SYNTHETIC, open_workspace


@pytest.fixture
def at_home(monkeypatch, tmp_path, sample):
    """A home of its own that already holds the sample."""
    monkeypatch.setenv("HISTOPATH_HOME", str(tmp_path))
    shutil.copytree(sample, tmp_path / "data" / "sample")
    return tmp_path


def test_the_sample_is_named_synthetic_and_written_under_its_preset(at_home):
    work = open_workspace()
    assert (work.name, work.words) == ("sample", SYNTHETIC)
    assert work.run_folder == at_home / "runs" / "sample"
    assert work.submission == at_home / "submission" / "sample_submission.csv"
    assert work.figure("roc") == at_home / "assets" / "sample" / "roc.png"
    assert len(work.rows("train")) == 442 and len(work.rows("test")) == 96


def test_own_data_never_lands_among_the_sample_s_figures(at_home, tmp_path):
    own = shutil.copytree(at_home / "data" / "sample", tmp_path / "mine")
    assert open_workspace("sample", own).words == SYNTHETIC
    (own / "sample.json").unlink()
    work = open_workspace("sample", own, epochs=2)
    assert work.name == "sample-mine" and work.config.epochs == 2
    assert "synthetic" not in work.words
    assert open_workspace("full", own, weights="none").name == "full"


def test_the_full_preset_without_data_says_how_to_name_it(at_home):
    with pytest.raises(ValueError, match="make run PRESET=full DATA=FOLDER"):
        open_workspace("full")


@pytest.mark.slow
@pytest.mark.parametrize(("story", "recipe", "size"), [("gastric", "simple_cnn", 224), ("organs", "inceptionv3", 96)])
def test_the_other_stories_have_samples_recipes_and_names_of_their_own(at_home, story, recipe, size):
    work = open_workspace(story=story)
    assert (work.name, work.config.recipe, work.words) == (f"sample-{story}", recipe, SYNTHETIC)
    assert work.patches.images.shape[1:] == (size, size, 3) and work.patches.root == at_home / "data" / f"sample-{story}"
    assert work.at_size(32).images.shape[1:] == (32, 32, 3)
    assert open_workspace(story=story, epochs=7).configure("compact", epochs=3).epochs == 7
    with pytest.raises(InputError, match=f"needs the {story} data"):
        open_workspace("full", story=story)

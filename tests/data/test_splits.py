"""Splits share nothing, keep their fractions, and refuse what cannot be divided."""

import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histopath.data.splits import check_splits, count_leaks, describe_grouping, split_patches


def table(count=400, slides=20, seed=0, part="train"):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "id": [f"p{i}" for i in range(count)],
            "label": rng.integers(0, 2, count),
            "slide": [f"s{i % slides}" if slides else "" for i in range(count)],
            "part": part,
            "pixel_hash": [f"h{i}" for i in range(count)],
            "perceptual_hash": np.uint64(0),
        }
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), slides=st.sampled_from([0, 12, 40]))
def test_splits_share_no_row_slide_or_pixels(seed, slides):
    splits = split_patches(table(slides=slides, seed=seed), 0.15, 0.2, seed)
    for column in ("row", "slide", "pixel_hash"):
        known = splits[splits[column] != ""]
        assert (known.groupby(column)["split"].nunique() == 1).all()
    assert len(splits) == 400
    assert splits["split"].value_counts()["holdout"] == pytest.approx(80, abs=45)


def test_copies_stay_together_also_across_slides():
    patches = table(slides=0)
    patches.loc[1::2, "pixel_hash"] = patches.loc[::2, "pixel_hash"].to_numpy()
    splits = split_patches(patches)
    assert (splits.groupby("pixel_hash")["split"].nunique() == 1).all()
    by_slide = table()
    by_slide["pixel_hash"] = [f"h{i // 2}" for i in range(400)]  # copies in neighboring slides
    splits = split_patches(by_slide)
    assert (splits.groupby("pixel_hash")["split"].nunique() == 1).all()
    assert (splits.groupby("slide")["split"].nunique() == 1).all()


def test_patches_that_look_the_same_stay_together():
    rng = np.random.default_rng(0)
    looks = rng.integers(1, 2**63, 200, dtype="uint64")
    for slides in (0, 20):
        patches = table(slides=slides)
        patches["perceptual_hash"] = np.concatenate([looks, looks ^ np.uint64(5)])  # every patch again, two bits changed
        splits = split_patches(patches)
        halves = splits.assign(pair=splits["row"] % 200).groupby("pair")["split"].nunique()
        assert (halves == 1).all() and splits["duplicate_group"].nunique() == len(halves)


def test_the_same_seed_gives_the_same_splits_and_another_seed_others():
    first, again, other = (split_patches(table(), seed=seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first, again)
    assert (first["split"] != other["split"]).any()


def test_published_parts_are_kept_and_the_missing_one_comes_out_of_train():
    parts = np.repeat(["train", "valid", "test"], [300, 50, 50])
    splits = split_patches(table(slides=0, part=parts))
    assert set(splits.loc[parts == "valid", "split"]) == {"val"}
    assert set(splits.loc[parts == "test", "split"]) == {"holdout"}
    splits = split_patches(table(slides=0, part=np.where(parts == "test", "test", "train")))
    assert set(splits.loc[parts == "test", "split"]) == {"holdout"}
    assert splits["split"].value_counts()["val"] > 40


def test_patches_without_a_label_are_in_no_split():
    patches = table()
    patches.loc[:99, "label"] = -1
    assert set(split_patches(patches)["row"]) == set(range(100, 400))


def test_patches_of_unknown_slide_stay_in_train_and_the_words_say_so():
    patches = table()
    patches.loc[:50, "slide"] = ""
    splits = split_patches(patches)
    assert set(splits.loc[splits["slide"] == "", "split"]) == {"train"}
    assert "51 patches of unknown slide are in train only" in describe_grouping(splits)


def test_the_words_name_the_grouping():
    assert describe_grouping(split_patches(table())) == "split by slide (20 slides)"
    assert "may be too high" in describe_grouping(split_patches(table(slides=0)))


def test_a_leak_is_found():
    splits = split_patches(table())
    for column in ("row", "slide", "pixel_hash"):
        leaking = splits.copy()
        first = {name: leaking.index[leaking["split"] == name][0] for name in ("train", "holdout")}
        leaking.loc[first["train"], column] = leaking.loc[first["holdout"], column]
        with pytest.raises(ValueError, match=f"The {column} .* more than one split"):
            check_splits(leaking)


def test_counts_add_up():
    counts = check_splits(split_patches(table()))
    assert list(counts.index) == ["train", "val", "holdout"]
    assert counts["patches"].sum() == 400 and counts["slides"].sum() == 20


def test_many_classes_are_divided_alike_and_a_rare_one_is_named():
    patches = table(slides=0).assign(label=np.arange(400) % 9)
    splits = split_patches(patches)
    shares = splits.groupby("split")["label"].value_counts(normalize=True)
    assert shares.min() > 0.09 and shares.max() < 0.13
    assert list(check_splits(splits)["classes"]) == [9, 9, 9]
    with pytest.raises(ValueError, match="^The class kidney has 2 different labeled patches[^\n]*remove the class.$"):
        split_patches(patches.iloc[:20], class_names=["brain"] * 2 + ["kidney"] * 7)


def test_a_random_split_leaks_slides_and_a_split_by_slide_does_not():
    leaks = count_leaks(table(), 0.15, 0.2)
    assert leaks["random split"] == (20, 20) and leaks["split by slide"] == (0, 20)
    assert count_leaks(table(slides=0), 0.15, 0.2)["random split"] == (0, 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.assign(label=-1), "No patch has a label"),
        (lambda t: t.assign(label=1), "are of class 1"),
        (lambda t: t.assign(label=np.where(np.arange(400) == 7, 2, t["label"])), "The class 2 has 1 different labeled patches"),
        (lambda t: t.assign(slide=np.where(np.arange(400) % 2, "a", "b")), "2 slides are too few"),
    ],
)
def test_what_cannot_be_divided_is_refused_in_one_sentence(change, words):
    with pytest.raises(ValueError, match="^[^\n]*$") as error:
        split_patches(change(table()))
    assert words in str(error.value)


def uneven(seed=0, slides=60):
    """Slides of 1 to 100 patches, most of them almost without tumor, some full of it."""
    draw = np.random.RandomState(seed)
    sizes = draw.randint(1, 101, slides)
    rates = np.where(draw.rand(slides) < 0.25, 0.9, 0.05)
    slide = np.repeat(np.arange(slides), sizes)
    label = (draw.rand(len(slide)) < rates[slide]).astype(int)
    return table(count=len(slide)).assign(slide=[f"s{number}" for number in slide], label=label)


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.35, 0.45])
def test_whole_slides_come_near_the_wanted_share_and_the_rate_of_tumor(fraction):
    for seed in range(5):
        patches = uneven(seed)
        held = split_patches(patches, 0.1, fraction, seed).query("split == 'holdout'")
        assert len(held) / len(patches) == pytest.approx(fraction, abs=0.02)
        assert held["label"].mean() == pytest.approx(patches["label"].mean(), abs=0.02)


def test_folds_of_uneven_slides_have_like_sizes_and_rates_of_tumor():
    patches = uneven()
    for fold in range(1, 6):
        held = split_patches(patches, 0.1, fold=(fold, 5)).query("split == 'holdout'")
        assert len(held) / len(patches) == pytest.approx(0.2, abs=0.02)
        assert held["label"].mean() == pytest.approx(patches["label"].mean(), abs=0.02)


@pytest.mark.parametrize(
    ("patches", "fold", "digest"),
    [
        (uneven(), (0, 0), "a7e6e3afa842"),
        (uneven(), (2, 5), "009c10a0ebad"),
        (uneven().assign(slide=""), (0, 0), "2f75b50de0be"),
        (uneven().assign(slide=""), (2, 5), "055cc45bcc5c"),
    ],
)
def test_the_same_seed_gives_these_splits_with_every_version_of_the_libraries(patches, fold, digest):
    splits = split_patches(patches, seed=3, fold=fold)
    assert hashlib.sha1("".join(splits["split"].str[0]).encode()).hexdigest()[:12] == digest


def test_six_patches_of_two_classes_are_enough():
    counts = check_splits(split_patches(table().iloc[:6].assign(label=[0, 1] * 3, slide="")))
    assert list(counts["patches"]) == [2, 2, 2] and list(counts["positives"]) == [1, 1, 1]


def test_220_025_patches_split_in_seconds():
    splits = split_patches(table(count=220_025, slides=0))
    assert len(splits) == 220_025

"""Settings: presets, recipes, conversion and refusal."""

import json

import pytest

from histopath.config import PRESETS, RECIPES, Config, get_config, home, parse_settings, read_config
from histopath.models.registry import REGISTRY


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_recipe_is_complete_in_every_preset(preset, recipe):
    config = get_config(preset, recipe)
    assert config.model in REGISTRY
    assert (config.preset, config.recipe) == (preset, recipe)


def test_own_settings_win_and_take_the_type_of_the_field():
    config = get_config("sample", "compact", parse_settings(["epochs=3", "learning_rate=1e-4", "tensorboard=true"]))
    assert (config.epochs, config.learning_rate, config.tensorboard) == (3, 1e-4, True)


def test_the_full_preset_of_the_main_network_starts_from_imagenet_and_the_sample_from_nothing():
    assert get_config("full").weights == "imagenet"
    assert get_config("sample").weights == "none"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epoch": 3}, "'epoch' is not a setting"),
        ({"epochs": "many"}, "epochs takes int and got 'many'"),
        ({"epochs": 0}, "epochs must be above 0"),
        ({"dropout": 1.5}, "dropout must lie in [0, 1)"),
        ({"views": 4}, "choose one of 1, 8"),
        ({"val_fraction": 0.6, "holdout_fraction": 0.5}, "leave something for training"),
        ({"augmentation": "mixup"}, "choose one of dihedral, classic, rotation, none"),
        ({"tensorboard": "perhaps"}, "tensorboard takes bool"),
        ({"shift": -1}, "shift must lie in 0-32 pixels"),
        ({"seed": -1}, "seed must lie in"),
        ({"learning_rate": "inf"}, "must be above 0 and finite"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_sentence(settings, words):
    with pytest.raises(ValueError, match="^[^\n]*$") as error:
        get_config("sample", "compact", settings)
    assert words in str(error.value)


def test_unknown_preset_recipe_and_pair_name_the_choices():
    for call in (lambda: get_config("huge"), lambda: get_config("sample", "resnet"), lambda: parse_settings(["epochs"])):
        with pytest.raises(ValueError, match="choose one of|key=value"):
            call()


def test_settings_survive_their_file(tmp_path):
    config = get_config("full", "compact", {"seed": 7})
    (tmp_path / "config.json").write_text(config.to_json())
    assert read_config(tmp_path / "config.json") == config


@pytest.mark.parametrize("text", ["", "{", '{"unknown": 1}', "[]"])
def test_a_damaged_settings_file_is_named(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match="config.json"):
        read_config(tmp_path / "config.json")


def test_home_is_the_repository_unless_it_is_set(monkeypatch, tmp_path):
    monkeypatch.delenv("HISTOPATH_HOME", raising=False)
    assert (home() / "pyproject.toml").is_file()
    monkeypatch.setenv("HISTOPATH_HOME", str(tmp_path))
    assert home() == tmp_path


def test_a_config_of_another_version_opens_and_unknown_settings_are_named(tmp_path, capsys):
    values = json.loads(get_config("sample", "compact", {"epochs": 7}).to_json())
    del values["stain"]
    (tmp_path / "config.json").write_text(json.dumps(values | {"of_a_later_version": 1}))
    config = read_config(tmp_path / "config.json")
    assert (config.epochs, config.stain) == (7, Config().stain)
    assert "ignoring the unknown settings of_a_later_version" in capsys.readouterr().err

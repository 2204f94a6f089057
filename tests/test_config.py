"""config.json: every mistake is named with its place, its value and the remedy; nothing is guessed."""

import dataclasses
import json
from importlib.util import find_spec

import pytest

from core.config import Config, allowed_values, check_config, explain, fields, load_config
from core.config_edit import set_value
from core.errors import UserError
from core.optimizer_names import OPTIMIZERS
from core.trainer_keys import HONOURED, IRRELEVANT, OWNED


def complaint(values) -> str:
    with pytest.raises(UserError) as problem:
        check_config(values)
    return str(problem.value)


def test_no_file_means_all_defaults(tmp_path):
    assert load_config(tmp_path / "config.json") == Config()


def test_every_default_is_allowed_by_the_schema():
    assert check_config(json.loads(Config().model_dump_json())) == Config()


def test_the_key_settings_of_the_contract_exist():
    assert {"hero", "seed", "batch_size", "learning_rate", "max_length", "eval_steps", "save_steps", "profile", "trainer", "packing",
            "school", "validation_fraction", "max_bad_rows", "save_minutes", "idle_generation", "skill_priorities",
            "training_defaults", "replay_ratio", "temple", "retention", "disk", "dice", "oracle", "tavern", "alerts",
            "profile.name", "idle_generation.enabled", "temple.mode", "oracle.url", "tavern.host", "tavern.port",
            "tavern.require_token"} <= fields().keys()  # fmt: skip


@pytest.mark.parametrize("field", fields())
def test_every_field_is_described_in_a_sentence_and_says_what_it_allows(field):
    about = explain(field)
    assert len(about["description"]) > 10 and about["description"].rstrip("`)").endswith((".", "}"))
    assert about["allowed"] and "$ref" not in about["allowed"]


@pytest.mark.parametrize(
    ("values", "named", "offered"),
    [
        ({"batchsize": 4}, "'batchsize'", "'batch_size'"),
        ({"learning_rat": 0.1}, "'learning_rat'", "'learning_rate'"),
        ({"tavern": {"prot": 80}}, "'tavern.prot'", "'tavern.port'"),
        ({"idle_generation": {"enable": True}}, "'idle_generation.enable'", "'idle_generation.enabled'"),
        ({"port": 80}, "'port'", "'tavern.port'"),
        ({"epochs": 3}, "'epochs'", "'training_defaults.epochs'"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(values, named, offered):
    text = complaint(values)
    assert f"unknown field {named}; did you mean {offered}?" in text


@pytest.mark.parametrize(
    ("values", "place", "value", "allowed"),
    [
        ({"batch_size": "16"}, "batch_size", '"16"', "integer ≥ 1 ≤ 4096"),
        ({"batch_size": True}, "batch_size", "true", "integer"),
        ({"batch_size": 0}, "batch_size", "0", "≥ 1"),
        ({"batch_size": 2.5}, "batch_size", "2.5", "integer"),
        ({"learning_rate": 0}, "learning_rate", "0", "> 0"),
        ({"learning_rate": 2}, "learning_rate", "2", "≤ 1"),
        ({"packing": 1}, "packing", "1", "boolean"),
        ({"seed": 2**31}, "seed", str(2**31), "< 2147483648"),
        ({"temple": {"mode": "loud"}}, "temple.mode", '"loud"', "strict, advise, off"),
        ({"replay_ratio": 0.95}, "replay_ratio", "0.95", "≤ 0.9"),
        ({"retention": {"keep_last": 1}}, "retention.keep_last", "1", "≥ 2"),
        ({"tavern": {"port": 70000}}, "tavern.port", "70000", "≤ 65535"),
        ({"oracle": {"url": "ftp://x"}}, "oracle.url", '"ftp://x"', "^https?://"),
        ({"hero": {"name": "D-IO"}}, "hero.name", '"D-IO"', "matching"),
        ({"hero": "DIO"}, "hero", '"DIO"', "object"),
        ({"skill_priorities": {"BIN": -1}}, "skill_priorities.BIN", "-1", "greater than or equal to 0"),
    ],
)
def test_a_wrong_value_is_named_with_its_place_and_what_is_allowed(values, place, value, allowed):
    text = complaint(values)
    assert f"{place} = {value}: " in text and allowed in text


def test_whole_numbers_are_numbers():
    assert check_config({"save_minutes": 5, "learning_rate": 1}).save_minutes == 5.0


def test_all_mistakes_are_named_at_once():
    text = complaint(
        {"batchsize": 4, "seed": -1, "tavern": {"port": 0, "hots": "x"}, "trainer": {"max_steps": 1, "warmup": 2}}
    )
    assert len(text.splitlines()) == 5
    for words in ("batchsize", "seed", "tavern.port", "tavern.hots", "trainer.max_steps", "trainer.warmup"):
        assert words in text


@pytest.mark.parametrize("text", ["[]", "3", '"x"', "null"])
def test_a_config_that_is_no_object_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match="must be one JSON object"):
        load_config(tmp_path / "config.json")


def test_broken_json_is_named_by_file_line_and_column(tmp_path):
    (tmp_path / "config.json").write_text('{\n  "seed": 7,\n  "packing": tru\n}')
    with pytest.raises(UserError, match=r"config\.json:3:\d+: not JSON"):
        load_config(tmp_path / "config.json")


def test_a_config_never_changes_after_the_check():
    with pytest.raises(ValueError, match="frozen"):
        Config().seed = 3


@pytest.mark.parametrize(
    "values",
    [{"profile": {"name": "regime4"}}, {"dice": {"sides": 20}}],
)
def test_what_is_not_built_yet_is_refused_and_not_ignored(values):
    complaint(values)


def test_skills_that_do_not_exist_are_refused_with_the_nearest():
    assert "no skill is called 'BINN'; did you mean 'BIN'?" in complaint({"skill_priorities": {"BINN": 1}})


# Changing


def test_a_value_that_is_set_is_read_back_and_the_rest_of_the_file_stays(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"seed": 3, "tavern": {"host": "0.0.0.0"}}')
    for field, value in {"tavern.port": 9000, "learning_rate": 0.25, "trainer": {"weight_decay": 0.1}}.items():
        set_value(path, field, value)
    assert json.loads(path.read_text()) == {"seed": 3, "tavern": {"host": "0.0.0.0", "port": 9000}, "learning_rate": 0.25,
                                            "trainer": {"weight_decay": 0.1}}  # fmt: skip
    config = load_config(path)
    assert (config.seed, config.tavern.port, config.learning_rate) == (3, 9000, 0.25)


def test_setting_a_wrong_value_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"seed": 3}')
    for field, value in {"seed": -1, "sed": 4, "tavern.port": "x"}.items():
        with pytest.raises(UserError):
            set_value(path, field, value)
    assert path.read_text() == '{"seed": 3}'
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["{", "[]", '{"tavern": 3}'])
def test_setting_a_value_in_a_broken_file_is_refused_in_words(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(UserError):
        set_value(path, "tavern.port", 9000)
    assert path.read_text() == text


def test_explaining_an_unknown_field_offers_the_nearest():
    with pytest.raises(UserError, match=r"unknown field 'tavern\.prt'; did you mean 'tavern\.port'"):
        explain("tavern.prt")


def test_optional_fields_allow_null():
    assert allowed_values("learning_rate").endswith("or null")


# transformers' own keys


@pytest.mark.parametrize("key", OWNED)
def test_a_key_that_the_realm_owns_is_refused_with_what_to_use_instead(key):
    assert f"trainer.{key} belongs to the realm: {OWNED[key]}" in complaint({"trainer": {key: 1}})


def test_an_unknown_trainer_key_is_refused_with_the_nearest():
    assert "trainer.weight_decy is not honoured; did you mean 'weight_decay'?" in complaint(
        {"trainer": {"weight_decy": 0.1}}
    )


@pytest.mark.parametrize("key", IRRELEVANT)
def test_a_key_that_means_nothing_here_is_refused_with_why(key):
    assert f"trainer.{key} means nothing here: {IRRELEVANT[key]}" in complaint({"trainer": {key: 1}})


@pytest.mark.parametrize(
    "values",
    [{"weight_decay": "0.1"}, {"weight_decay": -0.1}, {"adam_beta1": 1}, {"adam_epsilon": 0}, {"warmup_steps": 2.5},
     {"warmup_steps": True}, {"warmup_steps": 0.1}, {"max_grad_norm": -1}, {"max_grad_norm": True}, {"bf16": 1},
     {"optim": 3}, {"optim_args": {}}, {"optim_target_modules": []}, {"activation_checkpointing": "yes"},
     {"activation_checkpointing_kwargs": {"every_n_layers": 0}}, {"activation_checkpointing_kwargs": {"offload": True}}],
)  # fmt: skip
def test_a_trainer_value_of_wrong_type_or_size_is_refused(values):
    key = next(iter(values))
    assert f"trainer.{key} = {values[key]!r} must be " in complaint({"trainer": values})


def test_every_argument_of_transformers_is_honoured_or_owned_or_irrelevant_and_only_one_of_them():
    from transformers import TrainingArguments

    named = [*HONOURED, *OWNED, *IRRELEVANT]
    assert sorted(named) == sorted(field.name for field in dataclasses.fields(TrainingArguments))
    for key, rule in HONOURED.items():
        others = {"optim_args": {"optim": "sgd"}, "optim_target_modules": {"optim": "adamw_torch"}}.get(key, {})
        if key != "optim_target_modules":
            assert check_config({"trainer": {**others, key: rule.example}}).trainer[key] == rule.example


def test_every_optimizer_of_transformers_is_known_by_name():
    from transformers.training_args import OptimizerNames

    assert sorted(OPTIMIZERS) == sorted(name.value for name in OptimizerNames)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"optim": "adamw_torch_fuse"}, "did you mean 'adamw_torch_fused'"),
        ({"optim": "galore_adamw", "optim_target_modules": "all-linear"}, "pip install galore-torch"),
        ({"optim": "adamw_torch_8bit"}, "memory.moments"),
        ({"optim": "galore_adamw_layerwise"}, "use galore_adamw without"),
        ({"optim": "sgd", "optim_args": "momentun=0.9"}, "did you mean 'momentum'"),
        ({"optim": "sgd", "optim_args": "momentum"}, "NAME=VALUE"),
        ({"optim_args": "rank=3"}, "adamw_torch_fused has no argument 'rank'; it takes none"),
        ({"optim_target_modules": "all-linear"}, "it is for GaLore and APOLLO"),
    ],
)
def test_an_optimizer_that_cannot_be_used_is_refused_with_what_to_do(values, words):
    assert not any(OPTIMIZERS[name].package and find_spec(OPTIMIZERS[name].package) for name in ("galore_adamw",))
    assert words in complaint({"trainer": values})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"memory": {"weights": "fp32", "rounding": "kahan"}}, "is for bf16 weights"),
        ({"memory": {"weights": "bf16"}, "trainer": {"bf16": False}}, "unset trainer.bf16"),
        ({"memory": {"weights": "bf16"}, "trainer": {"optim": "sgd"}}, "memory.weights is for AdamW"),
        ({"memory": {"moments": "8bit"}, "trainer": {"optim": "adafactor"}}, "memory.moments is for AdamW"),
        ({"memory": {"gib": 0}}, "> 0"),
    ],
)
def test_means_that_contradict_each_other_are_refused(values, words):
    assert words in complaint(values)


def test_a_key_of_a_map_can_be_set_like_a_field(tmp_path):
    path = tmp_path / "config.json"
    assert set_value(path, "trainer.weight_decay", 0.1).trainer == {"weight_decay": 0.1}
    with pytest.raises(UserError, match="belongs to the realm"):
        set_value(path, "trainer.max_steps", 3)

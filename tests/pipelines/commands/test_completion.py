"""What the shell offers after a part of a setting; as the shell asks, by variables of the environment."""

import pytest
from click.shell_completion import BashComplete, ZshComplete

from pipelines.commands.main import main

Shell = type[BashComplete | ZshComplete]


def offered(words: str, monkeypatch: pytest.MonkeyPatch, *, shell: Shell) -> list[str]:
    """What may stand in the place of the last word."""
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    complete = shell(main, {}, "vlp", "_VLP_COMPLETE")
    return [item.value for item in complete.get_completions(*complete.get_completion_args())]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("vlp pretrain conf/run/flip.yaml mask.", {"mask.mask_ratio=", "mask.name="}),
        ("vlp pretrain conf/run/cluster_rgb.yaml mask.an", {"mask.anchor_ratio="}),
        ("vlp pretrain conf/run/flip.yaml machine.checkpoints.keep_b", {"machine.checkpoints.keep_best="}),
        ("vlp evaluate evaluation.ret", {"evaluation.retrieval="}),
        ("vlp sweep num_tr", {"num_trials="}),
        ("vlp convert-set lay", {"layout.name="}),
        ("vlp export check", {"checkpoint="}),
        ("vlp run see", {"seeds="}),
        ("vlp doctor machine.num_w", {"machine.num_workers="}),
    ],
)
def test_settings_are_those_of_the_command_and_of_what_the_file_chooses(
    words: str, expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = offered(words, monkeypatch, shell=BashComplete)
    assert expected <= set(found)
    assert all(one.startswith(words.split(" ")[-1]) for one in found)
    assert "mask.anchor_ratio=" not in found or "cluster" in words


def test_a_command_that_takes_nothing_but_the_machine_is_offered_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = offered("vlp doctor ", monkeypatch, shell=BashComplete)
    assert found
    assert {one for one in found if one.endswith("=") and not one.startswith("machine.")} == set()


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("mask.name=r", ["random"]),
        ("training.precision=", ["fp32", "bf16", "fp16"]),
        ("machine.use_gpu=", ["true", "false"]),
        ("objective.loss.name=s", ["sigmoid"]),
    ],
)
def test_values_are_the_choices_of_a_setting_in_bash_and_in_zsh(
    setting: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key, _, value = setting.partition("=")
    command = "vlp pretrain conf/run/flip.yaml"
    whole = offered(f"{command} {setting}", monkeypatch, shell=ZshComplete)
    assert whole == [f"{key}={one}" for one in expected]
    words = f"{command} {key} = {value}" if value else f"{command} {key} ="  # as bash splits them
    assert offered(words, monkeypatch, shell=BashComplete) == expected


def test_files_are_offered_too_and_a_file_that_is_wrong_does_no_harm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "conf/ru" in offered("vlp pretrain conf/ru", monkeypatch, shell=BashComplete)
    assert "mask.name=" in offered("vlp pretrain nowhere.yaml mask.na", monkeypatch, shell=BashComplete)

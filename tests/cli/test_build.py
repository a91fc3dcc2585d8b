"""The commands `build` and `plans`, through the command line."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from kontext_trt.cli.app import app
from kontext_trt.engine.builder.build import Built
from kontext_trt.engine.bundle.bundle import Bundle
from kontext_trt.engine.components import Precision
from kontext_trt.engine.errors import (
    KontextError,
    OptionError,
    PlanError,
    RequestError,
    TargetError,
    UntrustedPlanError,
)
from kontext_trt.engine.plans.coverage import Coverage


def run(*arguments: object) -> str:
    """What a command prints on standard output. Raises what the command raises."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


ONE_SIZE = ("--size", "128x128", "--max-steps", "8")


def test_build_list_verify_inspect_prune(wide_bundle: Bundle) -> None:
    path = wide_bundle.path
    said = run("build", path, "--gpu", "rtx 5090", "--gpu", "sm_86", "--component", "clip", *ONE_SIZE)
    assert [line.partition(":")[0] for line in said.splitlines()] == [
        "clip for sm_120, tensorrt_rtx 1.7.1.116",
        "clip for sm_86, tensorrt_rtx 1.7.1.116",
    ]
    again = json.loads(run("build", path, "--gpu", "sm_86", "--component", "clip", *ONE_SIZE, "--json"))
    assert [plan["reused"] for plan in again] == [True]
    listed = run("plans", "list", path)
    assert listed.count("covers 128x128; edit and generate; batch 1; up to 8 steps; default options") == 2
    assert again[0]["manifest"]["key"] in listed
    assert run("plans", "verify", path) == "2 plans, all sound\n"
    assert "0 of 2 attention fused" in run("inspect", path)
    assert len(json.loads(run("inspect", path, "--json"))["plans"]) == 2
    assert "would remove" in run("plans", "prune", path, "--all", "--dry-run")
    assert run("plans", "prune", path, "--all").count("(asked for)") == 2
    assert "no plans" in run("plans", "list", path)
    assert run("plans", "verify", path).startswith("no plans; build them with")


def test_verify_fails_for_a_damaged_plan(wide_bundle: Bundle) -> None:
    (plan,) = json.loads(run("build", wide_bundle.path, "--gpu", "89", "--component", "clip", *ONE_SIZE, "--json"))
    with open(plan["path"], "r+b") as file:
        file.truncate(1000)
    with pytest.raises(PlanError, match="is cut short or altered: 1,000 bytes of"):
        run("plans", "verify", wide_bundle.path)


def test_plans_of_others_are_verified_with_trust_and_signed_when_asked(
    wide_bundle: Bundle, put_clip_plan: Callable[..., Built]
) -> None:
    path = put_clip_plan(coverage=Coverage(sizes=((128, 128),), max_steps=8)).path
    path.with_suffix(".sig").unlink()
    assert "not signed by you" in run("plans", "list", wide_bundle.path)
    with pytest.raises(PlanError, match=r"is not signed by your key .*--trust"):
        run("plans", "verify", wide_bundle.path)
    assert run("plans", "verify", wide_bundle.path, "--trust") == "1 plan, all sound\n"
    build = ("build", wide_bundle.path, "--gpu", "sm_89", "--component", "clip", *ONE_SIZE)
    with pytest.raises(UntrustedPlanError, match=r"plans trust .*To build it anew: --rebuild"):
        run(*build)
    with pytest.raises(UntrustedPlanError, match="nobody can be asked"):
        run("plans", "trust", wide_bundle.path)
    signed = run("plans", "trust", wide_bundle.path, "--yes")
    assert "clip bf16 for sm_89" in signed, "they are shown"
    assert "1 plan signed with" in signed
    assert run("plans", "verify", wide_bundle.path) == "1 plan, all sound\n"
    assert json.loads(run(*build, "--json"))[0]["reused"]
    assert "every sound plan is signed by you" in run("plans", "trust", wide_bundle.path)


def test_a_damaged_plan_is_not_signed(wide_bundle: Bundle, put_clip_plan: Callable[..., Built]) -> None:
    path = put_clip_plan().path
    path.with_suffix(".sig").unlink()
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(PlanError, match="was altered: its hash is not its manifest's"):
        run("plans", "trust", wide_bundle.path, "--yes")
    assert not path.with_suffix(".sig").exists()


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (("--gpu", "sm_90"), TargetError, "has no sm_90; it builds for"),
        (("--gpu", "sm_120", "--component", "unet"), OptionError, "component must be one of clip, t5"),
        (("--gpu", "sm_120", "--workspace", "lots"), OptionError, "written like 512MiB or 2GiB, not 'lots'"),
        (("--gpu", "sm_120", "--size", "100x100"), RequestError, "size 100x100 is not possible"),
        (("--gpu", "sm_120", "--flavour", "trt"), OptionError, "flavour must be one of"),
    ],
)
def test_bad_arguments_are_refused_in_words(
    wide_bundles: Callable[[Precision], Bundle], arguments: tuple[str, ...], kind: type[KontextError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        run("build", wide_bundles(Precision.BF16).path, *arguments)


@pytest.mark.parametrize(("option", "value"), [("--task", "inpaint"), ("--refit", "yes"), ("--compatibility", "some")])
def test_values_that_an_option_does_not_have_are_wrong_usage(
    wide_bundles: Callable[[Precision], Bundle], option: str, value: str
) -> None:
    path = wide_bundles(Precision.BF16).path
    result = CliRunner().invoke(app, ["build", str(path), "--gpu", "sm_120", option, value])
    assert result.exit_code == 2
    assert f"'{value}' is not one of" in result.output

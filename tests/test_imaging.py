"""Images on the command line: what is decoded, what is written, what is counted, and what an interruption leaves."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from distributions.mar import masking
from distributions.mar.digits import DATA, KINDS, ROLES, file_of, trained
from distributions.mar.sequence import Start
from distributions.tape import GeneratorTape
from tests.imaging_models import random_model
from verify import cli
from verify.decode import Trace
from verify.errors import SubjectError
from verify.imaging import run as running
from verify.imaging import setting as settings
from verify.imaging.command import add_options, run_decode
from verify.imaging.figures import counted, grid, heat, summary
from verify.imaging.run import Decoded, batches
from verify.imaging.setting import ALONE, Forgetful, Setting, rules

SHIPPED = all(file_of(kind, data, role).is_file() for kind in KINDS for data in DATA for role in ROLES)
CAUSAL = Setting("digits.causal", draft_length=3, steps=3)
MASKED = replace(CAUSAL, model="digits.mar")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "trained", random_model)


def tokens_of(parts: Any) -> Tensor:
    return torch.cat([part.tokens for part in parts])


# --- what is decoded -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", sorted({*rules(), ALONE} - {"pooled_noise"}))
@pytest.mark.parametrize("setting", [CAUSAL, MASKED], ids=["causal", "mar"])
def test_every_rule_fills_every_place(setting: Setting, name: str) -> None:
    part = next(batches(replace(setting, verifier=name), 3, 3))
    assert part.tokens.shape == (3, 16, 4) and bool(part.tokens.isfinite().all())
    assert bool((part.tokens != 0).any(-1).all())  # no place was left as it was made
    assert part.label.tolist() == [0, 1, 2] and part.seconds > 0
    assert torch.equal(part.place.sort(1).values, torch.arange(16).expand(3, -1))


@pytest.mark.parametrize("drafter", ["small", "none"])
@pytest.mark.parametrize("name", ["coalescing", "coalescing_jacobi"])
def test_drafts_are_kept_and_save_evaluations(name: str, drafter: str) -> None:
    setting = replace(CAUSAL, verifier=name, drafter=drafter)
    part = next(batches(setting, 20, 20))
    found = summary(setting, [part])
    assert 0 < found["acceptance"] < 1 and found["target_calls"] < 16
    assert found["target_calls_per_token"] == found["target_calls"] / 16
    alone = replace(setting, verifier=ALONE)
    assert summary(alone, [next(batches(alone, 3, 3))])["target_calls"] == 16


def test_tokens_of_masked_images_are_at_their_places() -> None:
    """The order is drawn first, and an image is filled from its end; in raster order token i is that of place i."""
    part = next(batches(MASKED, 4, 4))
    order = Start.random(GeneratorTape(0), 4, 16).order
    assert torch.equal(order, masking.orders(GeneratorTape(0), 4, 16))
    assert torch.equal(part.place, order.flip(1))
    for row in range(4):
        for step in range(16):
            assert torch.equal(part.tokens[row, order[row, 15 - step]], part.trace.tokens[row, step])


def test_the_law_of_a_masked_image_knows_its_places() -> None:
    """Given the image that was decoded, the model's own state has each token where ``place`` says."""
    part = next(batches(MASKED, 2, 2))
    model: Any = MASKED.models[0]
    state = model.start(2, Start(part.place.flip(1), part.label))
    state = model.extend(state, part.trace.tokens, torch.full((2,), 16))
    assert torch.equal(state.tokens, part.tokens)


@pytest.mark.parametrize("setting", [CAUSAL, MASKED], ids=["causal", "mar"])
def test_images_do_not_depend_on_how_many_are_asked_for(setting: Setting) -> None:
    many = tokens_of(batches(setting, 7, 3))
    assert torch.equal(tokens_of(batches(setting, 4, 3)), many[:4])
    assert not torch.equal(many[0:3], many[3:6])
    other = replace(setting, seed=1)
    assert not torch.equal(tokens_of(batches(other, 3, 3)), many[:3])


def test_prefill_is_the_targets_own() -> None:
    """The first tokens are drawn one by one; the share is rounded up, and 1 leaves nothing to draft."""
    for share, first in ((0.0, 0), (0.05, 1), (0.15, 3), (0.25, 4), (1.0, 16)):
        part = next(batches(replace(CAUSAL, prefill=share), 2, 2))
        assert bool((part.trace.lengths[:first] == 1).all()) and not bool(part.kept[:, :first].any())
        assert bool(part.trace.log_accept[:first].isnan().all())
    assert float(part.trace.rounds.double().mean()) == 16 and counted(part) == (0, 0)


def test_guidance_and_temperature_reach_the_sampler() -> None:
    setting = replace(CAUSAL, guidance=2.0, temperature=0.5)
    assert (setting.sampler.guidance, setting.sampler.temperature, setting.sampler.steps) == (2.0, 0.5, 3)
    plain = tokens_of(batches(CAUSAL, 2, 2))
    for changed in (replace(CAUSAL, guidance=2.0), replace(CAUSAL, temperature=0.5), replace(CAUSAL, steps=4)):
        assert not torch.equal(tokens_of(batches(changed, 2, 2)), plain)


def test_jacobi_decodings_first_window_knows_no_token() -> None:
    """Every node has the law of the next token: the target's, given what is there and none of the drafted tokens."""
    target: Any = CAUSAL.models[0]
    model = Forgetful(target)
    state = model.start(2, torch.tensor([3, 4]))
    value = GeneratorTape(0).normal("x", (2, 3, 4))
    told = model.law(state, value).kernel.condition
    assert torch.equal(told, model.law(state).kernel.condition.expand(-1, 4, -1))
    after = model.extend(state, value, torch.tensor([1, 3]))
    assert torch.equal(model.select(after, torch.tensor([1])).last, value[1:, 2])


# --- what is kept of it ----------------------------------------------------------------------------------------------
class Interrupted(Exception):
    """What stops a run in these tests."""


def test_a_killed_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches that were written are not made again, those that were not are; the images are those of one run."""
    whole = tokens_of(batches(CAUSAL, 8, 3))
    made: list[int] = []

    def noted(self: Setting, batch: int, number: int) -> Any:
        if number == 2 and len(made) == 2:
            raise Interrupted
        made.append(number)
        return decoded(self, batch, number)

    decoded = Setting.decoded
    monkeypatch.setattr(Setting, "decoded", noted)
    with pytest.raises(Interrupted):
        list(batches(CAUSAL, 8, 3, tmp_path))
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "batch-00000.safetensors", "batch-00001.safetensors", "setting.json",
    ]  # fmt: skip
    made.append(-1)
    parts = list(batches(CAUSAL, 8, 3, tmp_path))
    assert made == [0, 1, -1, 2] and torch.equal(tokens_of(parts), whole)
    again = list(batches(CAUSAL, 8, 3, tmp_path))
    assert made == [0, 1, -1, 2]
    for first, second in zip(parts, again, strict=True):
        assert first.seconds == second.seconds and torch.equal(first.kept, second.kept)
        assert torch.equal(first.trace.log_accept.nan_to_num(9.0), second.trace.log_accept.nan_to_num(9.0))


def test_more_images_can_be_asked_of_a_folder_later(tmp_path: Path) -> None:
    """A last batch is written whole: what was cut off it before is there."""
    assert len(tokens_of(batches(CAUSAL, 4, 3, tmp_path))) == 4
    found = list(batches(CAUSAL, 6, 3, tmp_path))
    assert len(tokens_of(found)) == 6 and torch.equal(tokens_of(found), tokens_of(batches(CAUSAL, 6, 3)))
    few, all_of_them = list(batches(CAUSAL, 4, 3, tmp_path))[1], found[1]
    assert few.seconds == pytest.approx(all_of_them.seconds / 3)


def test_a_write_that_was_cut_short_is_no_batch(tmp_path: Path) -> None:
    (tmp_path / "batch-00000.safetensors.part").write_bytes(b"half of")
    whole = tokens_of(batches(CAUSAL, 2, 2))
    assert torch.equal(tokens_of(batches(CAUSAL, 2, 2, tmp_path)), whole)


@pytest.mark.parametrize(
    ("changed", "batch"),
    [({"seed": 1}, 3), ({"verifier": "restarting"}, 3), ({"guidance": 2.0}, 3), ({"prefill": 0.5}, 3), ({}, 2)],
)
def test_a_folder_holds_images_of_one_setting(tmp_path: Path, changed: dict[str, Any], batch: int) -> None:
    list(batches(CAUSAL, 3, 3, tmp_path))
    with pytest.raises(SubjectError, match="another setting"):
        list(batches(replace(CAUSAL, **changed), 3, batch, tmp_path))
    assert len(list(batches(replace(CAUSAL, device="cpu:0"), 3, 3, tmp_path))) == 1  # the device is not of the setting


# --- what is counted -------------------------------------------------------------------------------------------------
def by_hand(kept: list[list[list[int]]], lengths: list[list[int]], size: int) -> Decoded:
    """A trace of rounds x rows x nodes; log_accept NaN where a round drafted nothing: where ``kept`` is -1."""
    coins = torch.tensor(kept)
    log_accept = torch.where(coins < 0, math.nan, -0.5).double()
    count = torch.tensor(lengths)
    rows = count.shape[1]
    trace = Trace(torch.zeros(rows, size, 4).double(), count, coins > 0, log_accept)
    place = torch.arange(size).expand(rows, -1)
    return Decoded(trace, place, torch.arange(rows), 1.0)


def test_counting_against_a_trace_by_hand() -> None:
    """Two images of 7 tokens, drafts of 3. Row 0: a prefilled token; keeps 2 of 3 and is refused one (3 examined);
    keeps 3 and a bonus, of which three are needed: 3 examined. Row 1: a prefilled token; refuses the first (1 examined,
    the others wait); keeps 1 (2 examined); refuses the first; then one token is left: of its 3 drafts one counts.
    """
    part = by_hand(
        [
            [[-1, -1, -1], [-1, -1, -1]],
            [[1, 1, 0], [0, 0, 0]],
            [[1, 1, 1], [1, 0, 0]],
            [[-1, -1, -1], [0, 0, 0]],
            [[-1, -1, -1], [0, 0, 0]],
            [[-1, -1, -1], [1, 1, 1]],
        ],
        [[1, 1], [3, 1], [4, 2], [0, 1], [0, 1], [0, 4]],
        7,
    )
    assert counted(part) == (3 + 3 + (1 + 2 + 1 + 1 + 1), 2 + 3 + (0 + 1 + 0 + 0 + 1))
    assert part.kept.tolist() == [
        [False, True, True, False, True, True, True],
        [False, False, True, False, False, False, True],
    ]
    found = summary(CAUSAL, [part])
    assert found["acceptance"] == 7 / 12 and found["kept_share"] == 7 / (2 * 16)  # CAUSAL has images of 16
    assert found["target_calls"] == (3 + 6) / 2 and found["seconds_per_image"] == 0.5


def test_a_rule_that_goes_on_after_a_refusal_examines_all() -> None:
    """Two rounds of 3 in an image of 5 tokens: the sixth draft is beyond the end."""
    part = by_hand([[[0, 1, 1]], [[1, 0, 1]]], [[3], [3]], 5)
    assert counted(part) == (5, 3)
    assert part.kept.tolist() == [[False, True, True, True, False]]


def test_nothing_drafted_is_nothing_kept() -> None:
    part = by_hand([[[-1]], [[-1]]], [[1], [1]], 2)
    assert counted(part) == (0, 0) and summary(CAUSAL, [part])["acceptance"] == 0.0


def test_acceptance_of_equal_models_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in the last round, whose drafts go beyond the image: 16 = 4 + 4 + 4 + 4."""
    monkeypatch.setattr(settings, "trained", lambda kind, data, role: random_model(kind, data, "target"))
    part = next(batches(replace(CAUSAL, seed=1), 3, 3))  # models are those of the first look: another setting
    assert counted(part) == (3 * 12, 3 * 12) and part.trace.lengths.tolist() == [[4] * 3] * 4
    assert part.kept.tolist() == [[True, True, True, False] * 4] * 3


# --- what is drawn ---------------------------------------------------------------------------------------------------
def test_figures_show_the_images_and_the_kept_places() -> None:
    parts = list(batches(MASKED, 12, 6))
    sheet = grid(MASKED.images, tokens_of(parts)).axes[0].images[0].get_array()
    assert sheet is not None and sheet.shape == (2 * 10, 10 * 10)  # images of 8 x 8 with a frame
    ink = 1 - MASKED.images.ink(tokens_of(parts))
    assert torch.equal(torch.from_numpy(np.array(sheet)[11:19, 11:19]), ink[11])
    shown = heat(MASKED.images, parts)
    place, number = shown.axes[0].images[0].get_array(), shown.axes[1].lines[0].get_ydata()
    kept = torch.cat([part.kept for part in parts]).double()
    assert place is not None and place.shape == (4, 4)
    assert float(place.mean()) == pytest.approx(float(kept.mean()))
    assert torch.equal(torch.as_tensor(number), kept.mean(0))
    where = torch.cat([part.place for part in parts])
    assert float(place[1, 2]) == pytest.approx(float(kept[where == 6].mean()))


# --- the command -----------------------------------------------------------------------------------------------------
def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.parse_args(list(words))


def test_the_options_are_those_of_a_setting() -> None:
    given = options()
    plain = Setting()
    for name in ("model", "verifier", "drafter", "draft_length", "prefill", "guidance", "temperature", "steps", "seed"):
        assert getattr(given, name) == getattr(plain, name)
    words = ("--model digits.mar --verifier restarting --drafter none --draft-length 7 --prefill .2 --guidance 2 "
             "--temperature .9 --steps 9 --images 5 --batch 2 --seed 3 --output there").split()  # fmt: skip
    given = options(*words)
    assert (given.model, given.verifier, given.drafter, given.draft_length) == ("digits.mar", "restarting", "none", 7)
    assert (given.prefill, given.guidance, given.temperature, given.steps) == (0.2, 2.0, 0.9, 9)
    assert (given.images, given.batch, given.seed, given.output) == (5, 2, 3, Path("there"))


def test_the_command_writes_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "made"
    words = f"decode --model digits.causal --steps 3 --images 5 --batch 2 --draft-length 3 --output {folder}".split()
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    found = json.loads((folder / "summary.json").read_text())
    assert found["images"] == 5 and 0 <= found["acceptance"] <= 1 and found["peak_megabytes"] > 50
    for name in found:
        assert name in out
    for name in ("images.png", "kept.png", "summary.json", "batch-00002.safetensors"):
        assert (folder / name).stat().st_size > 0
    first = (folder / "batch-00000.safetensors").stat().st_mtime_ns
    assert cli.main(words) == 0 and (folder / "batch-00000.safetensors").stat().st_mtime_ns == first
    setting = replace(CAUSAL, draft_length=3)
    parts = list(batches(setting, 5, 2, folder))
    assert summary(setting, parts)["acceptance"] == found["acceptance"]


@pytest.mark.parametrize(
    "words",
    [
        "--model mnist", "--model mnist.vae", "--model cats.mar", "--verifier rejection", "--verifier nobody",
        "--draft-length 0", "--prefill 1.5", "--prefill nan", "--steps 1", "--steps 1001", "--temperature 0",
        "--guidance nan", "--images 0", "--batch 0", "--seed -1", "--device nowhere",
    ],
)  # fmt: skip
def test_a_wrong_call_is_one_sentence(words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--model", "digits.causal", "--images", "1", "--batch", "1", "--steps", "3", *words.split()]
    assert cli.main(["decode", *given, "--output", str(tmp_path / "made")]) == 3
    told = capsys.readouterr()
    assert told.err.startswith("specproof: ") and told.err.count("\n") == 1 and not told.out
    assert len(told.err) < 300 and "Traceback" not in told.err


def test_an_interrupt_ends_the_command_and_keeps_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written = running._write

    def once(found: Decoded, file: Path) -> None:
        written(found, file)
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "_write", once)
    words = f"decode --model digits.causal --steps 3 --images 4 --batch 2 --output {tmp_path}".split()
    assert cli.main(words) == cli.INTERRUPTED
    assert (tmp_path / "batch-00000.safetensors").is_file() and not (tmp_path / "summary.json").exists()
    assert capsys.readouterr().err.startswith("interrupted: 1 of 2 batches ")


# --- what ships ------------------------------------------------------------------------------------------------------
@pytest.mark.skipif(not SHIPPED, reason="weights of the image models are absent; make them with specproof train")
@pytest.mark.parametrize("model", [f"{data}.{kind}" for data in DATA for kind in KINDS])
def test_the_models_that_ship_decode(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ink, on paper that is paper: the mean of the pixels is near that of the data, and drafts are kept."""
    monkeypatch.setattr(settings, "trained", trained)
    given = options(*f"--model {model} --images 10 --batch 10 --output {tmp_path}".split())
    assert run_decode(given) == 0
    setting = Setting(model)
    parts = list(batches(replace(setting, seed=0), 10, 10, tmp_path))
    ink = setting.images.ink(tokens_of(parts))
    data = (setting.images.centre + setting.images.spread * setting.images.pixels).clamp(0, 1)
    assert abs(float(ink.mean()) - float(data.mean())) < 0.1
    assert summary(setting, parts)["acceptance"] > 0.02

"""Published figures against their bounds: the formulas by summation, the shipped tables, and tables of every shape."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verify.claims.audit import Audit, audit
from verify.claims.bounds import Series, fit, least_alpha, speedup, tokens_at_most, tokens_per_call
from verify.claims.table import figures, find, remarks, shipped
from verify.cli import main
from verify.errors import SubjectError
from verify.studies.ablations.published import lines as study_lines

# --- bounds


@given(alpha=st.floats(0, 1), gamma=st.integers(1, 40))
def test_tokens_of_a_call_are_the_geometric_sum(alpha: float, gamma: int) -> None:
    """Leviathan et al., equation 1, summed; between 1 and 1 + g a, and so between 1 and g + 1."""
    found = tokens_per_call(alpha, gamma)
    assert found == pytest.approx(sum(alpha**power for power in range(gamma + 1)), rel=1e-9)
    assert 1 <= found <= tokens_at_most(alpha, gamma) * (1 + 1e-12) <= (gamma + 1) * (1 + 2e-12)


def test_limits_of_the_bounds() -> None:
    assert tokens_per_call(0.0, 5) == tokens_at_most(0.0, 5) == 1.0
    assert tokens_per_call(1.0, 5) == tokens_at_most(1.0, 5) == 6.0
    assert tokens_per_call(0.5, 1) == tokens_at_most(0.5, 1) == 1.5
    assert tokens_per_call(0.75, np.inf) == 4.0 and tokens_at_most(0.0, np.inf) == 1.0
    assert speedup(3.0, 4, 0.0) == 3.0 and speedup(3.0, 4, 0.25) == 1.5


def test_tokens_of_a_call_by_enumeration() -> None:
    """All outcomes of four tests that are passed with probability 0.3: kept until the first failure, and one more."""
    alpha, gamma, mean, kept_share = 0.3, 4, 0.0, 0.0
    for outcome in range(2**gamma):
        passed = [bool(outcome >> node & 1) for node in range(gamma)]
        chance = np.prod([alpha if good else 1 - alpha for good in passed])
        kept = passed.index(False) if False in passed else gamma
        mean, kept_share = mean + chance * (kept + 1), kept_share + chance * kept / gamma
    assert tokens_per_call(alpha, gamma) == pytest.approx(mean, rel=1e-12)
    assert tokens_at_most(kept_share, gamma) == pytest.approx(mean, rel=1e-12)  # the other meaning of alpha


@given(alpha=st.floats(0.01, 0.99), gamma=st.integers(1, 40))
def test_the_least_acceptance_is_the_inverse(alpha: float, gamma: int) -> None:
    found = least_alpha(tokens_per_call(alpha, gamma), gamma)
    assert found is not None and found == pytest.approx(alpha, abs=1e-6)
    assert least_alpha(gamma + 1.01, gamma) is None and least_alpha(0.9, gamma) == 0.0


@pytest.mark.parametrize("prefilled", [None, 0.15])
def test_the_fit_finds_the_model_that_made_the_figures(prefilled: float | None) -> None:
    """Two series with costs 0.2 and 0.6, 15 % pre-filled: recovered without error; with rollback it does not fit."""
    gammas = np.array([2.0, 4.0, 8.0, 16.0])
    times = [0.15 + 0.85 * (gammas * cost + 1) / gammas for cost in (0.2, 0.6)]
    found = fit([Series(gammas, gammas, 1 / time) for time in times], prefilled)
    assert found.costs == pytest.approx((0.2, 0.6), abs=1e-3)
    assert found.prefilled == pytest.approx(0.15, abs=2e-3) and found.worst < 1e-3
    tokens = np.array([tokens_per_call(0.3, gamma) for gamma in gammas])
    assert fit([Series(tokens, gammas, 1 / time) for time in times], prefilled).worst > 0.2


# --- the shipped tables


def shipped_audit(name: str, **options: Any) -> Audit:
    return audit(name, figures(find(name)), **options)


def test_table_1() -> None:
    """arXiv 2411.11925 v1: 48 speed-ups, counted here a second time from the file and the sum, not the closed form."""
    with find("cspd_table1").open() as file:
        rows = list(csv.DictReader(file))
    beyond = sum(
        float(row[name]) > sum(float(row["alpha"]) ** power for power in range(int(row["gamma"]) + 1))
        for row in rows
        for name in ("bs1", "bs8", "bs128", "bs256")
    )
    found = shipped_audit("cspd_table1")
    assert (found.beyond_rollback, len(found.checked)) == (beyond, 48) == (21, 48)
    assert found.beyond_rounding == 21 and found.beyond_any == 0
    assert found.summary()[-1] == "21 of 48 speed-ups exceed the bound with a free drafter"


@pytest.mark.parametrize("prefilled", [None, 0.15])
def test_table_1_is_reproduced_without_rollback_only(prefilled: float | None) -> None:
    """Its text says that 15 % of the tokens are pre-filled; the table does not. With counts of 256 tokens in place of
    the limit (39 pre-filled, 217 drafted, 55, 28, 14 or 7 calls) the largest error changes by less than 0.1 points.
    """
    found = shipped_audit("cspd_table1", prefilled=prefilled)
    assert found.without_rollback is not None and found.with_rollback is not None and found.kept_of_drafted is not None
    assert len(found.without_rollback.costs) == 12 and len(found.without_rollback.errors) == 48
    assert found.without_rollback.worst < 0.05
    assert found.with_rollback.worst > 0.4 and found.kept_of_drafted.worst > 0.15
    groups: dict[tuple[str, ...], list[Any]] = {}
    for row in found.checked:
        groups.setdefault(row.figure.series, []).append(row.figure)
    calls = {4: 55, 8: 28, 16: 14, 32: 7}
    worst = max(
        min(
            max(abs(256 / ((39 + 217 * cost + calls[int(item.gamma)]) * item.speedup) - 1) for item in group)
            for cost in np.linspace(0, 1, 2001)
        )
        for group in groups.values()
    )
    assert worst < 0.05
    if prefilled is not None:
        assert worst == pytest.approx(found.without_rollback.worst, abs=1e-3)


def test_table_4_pairs_each_speedup_with_its_own_acceptance() -> None:
    found = shipped_audit("cspd_table4")
    assert len(found.checked) == 36
    first = found.checked[:3]
    assert [(row.figure.alpha, row.figure.speedup, row.figure.setting) for row in first] == [
        (0.27, 1.24, "0"),
        (0.34, 1.22, "5"),
        (0.37, 1.21, "15"),
    ]
    beyond = sum(row.figure.speedup > (1 - row.figure.alpha**33) / (1 - row.figure.alpha) for row in first)  # type: ignore[operator]
    assert beyond == sum(row.exceeds(row.tokens) for row in first) == 0
    assert found.beyond_rollback == sum(row.exceeds(row.tokens) for row in found.checked) > 0


def test_the_tables_agree_with_those_that_the_studies_use() -> None:
    wanted: dict[tuple[str, str, str, int], set[float]] = {}
    for line in study_lines():
        key = (line["table"], line["target"], line["drafter"], int(line["draft_length"]))
        wanted.setdefault(key, set()).add(float(line["alpha"]))
    for table in ("1", "4"):
        for item in figures(shipped()[f"cspd_table{table}"]):
            target, drafter = item.series[:2]
            assert item.alpha in wanted[table, target, drafter, int(item.gamma or 0)]


# --- tables of every shape


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_any_subset_of_the_columns(tmp_path: Path) -> None:
    """Without an acceptance any is possible, without a draft length any is, without speed-ups there are the bounds."""
    (row,) = audit("t", figures(table(tmp_path, "gamma,speedup\n3,4.5\n"))).rows
    assert row.tokens == row.most == 4.0 and row.exceeds(row.tokens) and row.needed() is None
    (row,) = audit("t", figures(table(tmp_path, "alpha,speedup\n0.5,2.1\n"))).rows
    assert row.tokens == 2.0 and row.exceeds(row.tokens) and not row.exceeds(row.most)
    found = audit("t", figures(table(tmp_path, "alpha,gamma\n0.5,2\n")))
    assert not found.checked and found.rows[0].tokens == 1.75 and "no speed-up" in found.summary()[0]
    assert found.without_rollback is None
    found = audit("t", figures(table(tmp_path, "alpha,gamma,speedup\n0.5,2,\n,,2\n0.5,2,1.5\n")))
    assert [row.figure.row for row in found.rows] == [4]


def test_the_cost_of_the_drafter(tmp_path: Path) -> None:
    """a = 0.5, g = 1: 1.5 tokens a call; at a cost of 0.25 at most 1.2 times as fast. A column precedes the option."""
    text = "alpha,gamma,speedup,cost\n.5,1,1.3,.25\n.5,1,1.1,.25\n.5,1,1.3,\n"
    found = audit("t", figures(table(tmp_path, text)))
    assert [row.paid for row in found.rows] == [1.2, 1.2, None]
    assert "1 of 2 speed-ups exceed the bound with the drafter's cost" in found.summary()
    found = audit("t", figures(table(tmp_path, text)), cost=1.0)
    assert [row.paid for row in found.rows] == [1.2, 1.2, 0.75]


def test_numbers_as_tables_print_them(tmp_path: Path) -> None:
    (item,) = figures(table(tmp_path, "\ufeffModel,Acceptance Rate,Draft Length,Speed-up\nA, 26 %,32,2.33×\n"))
    assert (item.label, item.alpha, item.gamma, item.speedup) == ("A", 0.26, 32, 2.33)


@pytest.mark.parametrize("heading", ["Acc. Rate", "acc", "Accept-rate", "acceptance_rate"])
def test_names_of_acceptance(heading: str, tmp_path: Path) -> None:
    (item,) = figures(table(tmp_path, f"model,{heading},num_speculative_tokens,Speed up\nA,.3,4,2x\n"))
    assert (item.label, item.alpha, item.gamma, item.speedup) == ("A", 0.3, 4, 2)


def test_what_a_table_lacks_is_said(tmp_path: Path, capsys: Any) -> None:
    path = table(tmp_path, "alpha,k,speed up\n.3,4,2\n")
    assert main(["claims", str(path)]) == 0
    out = capsys.readouterr().out
    assert "note: no column of draft length" in out and "read as labels: k;" in out
    assert main(["claims", str(path), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["remarks"]) == 2
    assert remarks(shipped()["cspd_table1"]) == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("alpha;gamma\n.3;4\n", "separated with semicolons; separate them with commas"),
        ("alpha\tgamma\n.3\t4\n", "separated with tabs"),
        ("", "has no rows"),
        ("alpha,gamma\n", "has no rows"),
        ("fid,is\n1,2\n", "no column of acceptance or draft length among fid, is"),
        ("alpha,gamma\n.3,4\nhigh,4\n", "row 3, column alpha: 'high' is not a number"),
        ("alpha,gamma\n1.2,4\n", "row 2, column alpha: '1.2' is not a probability"),
        ("alpha,gamma\nnan,4\n", "row 2, column alpha: 'nan' is not a probability"),
        ("alpha,gamma\n.2,4.5\n", "row 2, column gamma: '4.5' is not a whole number"),
        ("alpha,gamma,speedup\n.2,4,-1\n", "row 2, column speedup: '-1' is not a positive number"),
        ("alpha,gamma,cost\n.2,4,inf\n", "row 2, column cost: 'inf' is not a number from 0"),
        ("alpha,gamma\n.2\n", "row 2: 1 cells under 2 headings"),
        ("alpha,acceptance\n.2,.3\n", "the columns alpha and acceptance mean the same"),
        ("alpha,gamma\n-,-\n", "no row of"),
    ],
)
def test_what_cannot_be_read_is_named_in_a_sentence(text: str, says: str, tmp_path: Path, capsys: Any) -> None:
    assert main(["claims", str(table(tmp_path, text))]) == 3
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_files_that_are_no_tables(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "image").write_bytes(bytes(range(256)))
    assert main(["claims", str(tmp_path / "image")]) == 3
    assert "save it as CSV" in capsys.readouterr().err
    assert main(["claims", "no_such_table"]) == 3
    assert "specproof claims lists the tables" in capsys.readouterr().err
    with pytest.raises(SubjectError, match="pre-filled share"):
        shipped_audit("cspd_table1", prefilled=1.0)
    assert main(["claims", "cspd_table1", "--cost", "-1"]) == 3


def test_the_command(capsys: Any) -> None:
    assert main(["claims"]) == 0
    assert "cspd_table1  48 figures" in capsys.readouterr().out
    assert main(["claims", "cspd_table1"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "21 of 48 speed-ups exceed the bound with a free drafter"
    assert sum("per call" in line for line in out.splitlines()[2:]) == 22  # and one in the heading
    assert main(["claims", "cspd_table1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["beyond_rollback"], found["speedups"], len(found["rows"])) == (21, 48, 48)
    assert found["without_rollback"]["worst"] < 0.05

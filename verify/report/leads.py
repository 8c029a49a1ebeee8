"""One or two sentences on each study, their numbers read from its tables."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from verify.report.written import Rows, Written

Studies = Mapping[str, Written]


def lead(words: Callable[[Studies], str], studies: Studies) -> str:
    """The sentences; none where a study is missing, or has not the columns that they are read from."""
    try:
        return words(studies)
    except (KeyError, IndexError, ValueError, TypeError):
        return ""


def engine(studies: Studies) -> str:
    """Calibration, the whole engine's false alarms, and what each level of evidence sees."""
    tables = studies["engine_trial"].tables
    alarms = _table(tables, "False alarms of every check")
    whole = _table(tables, "False alarms of the whole suite")
    planted = _table(tables, "Planted defects")
    beyond = sum(row["beyond the band"] not in ("", "-") for row in alarms)
    level = min((key.removeprefix("confirmed at ") for key in whole[0] if key.startswith("confirmed at")), key=float)
    runs, blamed = sum(row["of suites"] for row in whole), sum(row[f"confirmed at {level}"] for row in whole)
    seen = sum(row["first"] not in ("", "-") for row in planted)
    return (
        f"**Calm:** {len(alarms)} combinations of check and exact sampler were drawn up to "
        f"{max(row['suites'] for row in alarms):,} times; {_count(beyond)} leave the band that chance allows. In "
        f"{runs:,} runs of the whole engine on exact samplers, at its own level of {level}, {_count(blamed)} accused. "
        f"**Sharp:** {seen} of {len(planted)} planted defects that state a bias are seen at some level of evidence; "
        f"the figures show how many rows that takes."
    )


def ladder(studies: Studies) -> str:
    """Which rules on paths are certified lossy, and what the exact ones keep."""
    rows = _table(studies["ladder"].tables, "Every rule on every sampler")
    verdicts, kept = defaultdict(set), defaultdict(list)
    for row in rows:
        verdicts[row["rule"]].add(row["verdict"])
        kept[row["rule"]].append(float(str(row["acceptance"]).split()[0]))
    lossy = [rule for rule, found in verdicts.items() if "lossy" in found]
    clean = [rule for rule in verdicts if rule not in lossy]
    best = sorted(clean, key=lambda rule: -max(kept[rule]))[:3]
    most = ", ".join(f"`{rule}` up to {max(kept[rule]):.2f}" for rule in best)
    return (
        f"Rules for tokens that a diffusion head draws, on {len({(row['data'], row['sampler']) for row in rows})} "
        f"samplers. A bias is certified for {_names(lossy)} and seen in none of the {len(clean)} others. Exactness "
        f"costs acceptance: of the others {most} of their drafts are kept at best."
    )


def matrices(studies: Studies) -> str:
    """What is seen, what sampled checks miss, and that no control is accused."""
    tokens, continuous = studies["kill_matrix"].tables, studies["continuous_kill_matrix"].tables
    defects = [*_table(tokens, "Saboteur by check"), *_table(continuous, "Saboteur by check")]
    passed = [*_table(tokens, "Control by check"), *_table(continuous, "Control by check")]
    blind = [row for row in defects if SEES not in row.values()]
    accused = [row for row in passed if SEES in row.values()]
    missed = re.search(r"sampled ones miss (\d+) of (\d+)", " ".join(studies["kill_matrix"].text.split()))
    tests = (
        f" The sampled tests that projects write miss {missed[1]} of {missed[2]} defects of tokens." if missed else ""
    )
    return (
        f"{len(defects)} public bugs and mutants, one in each row; {_count(len(blind))} unseen by every check."
        f"{tests} Of {len(passed)} lossless rules that were called lossy somewhere, {_count(len(accused))} is accused."
    )


def jacobi(studies: Studies) -> str:
    """What coupled drafts gain over redrawn ones at the largest window, and which conditions keep the law."""
    rows = _table(studies["jacobi"].tables, "Speed-up in target evaluations")
    last = max((key for key in rows[0] if key.startswith("window ")), key=lambda key: int(key.split()[1]))
    speed = {(row["model"], row["rule"]): float(str(row[last]).split()[0]) for row in rows if row[last]}
    gains = [speed[model, "scd"] / speed[model, rule] for model, rule in speed if rule == "sjd"]
    text = (
        f"At a {last.replace(' ', ' of ')}, coupled drafts (`scd`) save {min(gains):.1f} to {max(gains):.1f} times as "
        f"many target evaluations as redrawn ones (`sjd`) do, on {len(gains)} models."
    )
    if "jacobi_conditions" in studies:
        exact: dict[str, bool] = defaultdict(lambda: True)
        for row in _table(studies["jacobi_conditions"].tables, "Conditions"):
            exact[row["condition"]] &= row["verdict"] == "exact"
        text += (
            f" Of {len(exact)} ways to implement it, {len(exact) - sum(exact.values())} change the law of the image."
        )
    return text


def images(studies: Studies) -> str:
    """How many cells of exact and of other decoders are flagged."""
    rows = _table(studies["images"].tables, "Every decoder against the known law")
    flagged = {claim: [row["verdict"] != "no bias seen" for row in rows if row["claims"] == claim] for claim in CLAIMS}
    exact, others = (flagged[claim] for claim in CLAIMS)
    cost = _table(studies["images"].tables, "Acceptance, evaluations, time")
    best = max(row["speed-up"] for row in cost if row["exact"] == "yes")
    small = ": models so small gain nothing from one" if best < 1 else ""
    return (
        f"Small image models, decoded by every rule and held against the known law of their sequences: "
        f"{_count(sum(exact))} of {len(exact)} cells of exact decoders are flagged, and {sum(others)} of {len(others)} "
        f"of decoders known not to be. The fastest exact rule with a drafter runs at {best:.2f} times the target's own "
        f"speed here{small}."
    )


def live(studies: Studies) -> str:
    """How many modes of generate() have the law of the same call without drafts."""
    (rows,) = studies["live_audit"].tables.values()
    good = sum(row["verdict"] == "lossless" for row in rows)
    bad = [row["mode"] for row in rows if row["verdict"] != "lossless"]
    return (
        f"{good} of {len(rows)} modes in which the installed `generate()` drafts have the law of the same call without "
        f"drafts, up to single precision; {len(bad)} do not: {'; '.join(bad)}."
    )


SEES = "sees it"
CLAIMS = ("exact", "lossy")


def _table(tables: Mapping[str, Rows], caption: str) -> Sequence[Mapping[str, Any]]:
    return next(rows for name, rows in tables.items() if name.startswith(caption))


def _count(number: int) -> str:
    return f"{number:,}" if number else "none"


def _names(names: Sequence[str]) -> str:
    return " and ".join(f"`{name}`" for name in names) or "none"

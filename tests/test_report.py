"""The report: self-contained, the same bytes on a rerun, safe against hostile names, and true to the verdicts."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure

from verify.errors import SubjectError
from verify.records import Counterexample, Finding, Verdict
from verify.report.chapters import chapters
from verify.report.figures import drawing, excess_figure, gap_figure
from verify.report.groups import MOST_OUTCOMES, Row, groups, outcomes, separation, tiles
from verify.report.leads import lead
from verify.report.pages import html_page, write_report
from verify.report.provenance import provenance
from verify.report.store import Results, load, save
from verify.report.svg import themed
from verify.report.words import allowance, banner, bias, code, markdown_cell, markdown_fence, number, risk
from verify.report.written import written
from verify.study import Study, write

HOSTILE = "</script><script>alert('x')</script> | `a` <img src=http://example.org/x.png> $x$ [l](javascript:1) &amp; \""
ORIGIN = {"command": "specproof audit", "seed": "0"}
CASE = Counterexample(
    0.25,
    "print(fn)  # </code></pre><b>``` ````",
    "token 2 after [0] <i>",
    {"vocab": 3},
    {"0": 0.75, "1": 0.25},
    {"0": 0.5, "1": 0.5},
)
FINDING = Finding("name", "scenario", "check", 1.5, 0.01, 0.001, 100, 0, bound=math.inf)


def verdict(status: str = "lossless", low: float = 0.0, high: float = 0.0, **options: Any) -> Verdict:
    return Verdict(status, low, high, **({"metric": "tv", "evidence": "exact", "confidence": 1.0} | options))


VERDICTS = (
    verdict(subject="good", acceptance=0.5, overlap=0.5, expected="lossless", seconds=1234.5678),
    verdict("lossy", 0.25, 0.25, subject=HOSTILE, acceptance=0.7, overlap=0.5, counterexample=CASE, expected="lossy"),
    verdict("lossy", 0.1, 0.1, subject="surprise", acceptance=0.3, overlap=0.5, expected="lossless", diagnosis=HOSTILE),
    verdict(
        "inconclusive", 0.0, math.inf, subject="vague", evidence="sampled", confidence=0.999, needs="more rows",
        notes=(HOSTILE,), findings=(FINDING,), scope=HOSTILE,
    ),
)  # fmt: skip
RESULTS = Results(VERDICTS, ORIGIN, ("one | thing <b>",))


class Page(HTMLParser):
    """Tags in order, the ids, what is linked or loaded, and whether every tag is closed in its turn."""

    VOID = {"meta", "link", "br", "hr", "img", "input", "wbr"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.stack: list[str] = []
        self.text: dict[str, str] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.stack.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(str(value))
            if name in {"src", "href", "xlink:href", "srcset", "action", "data"}:
                self.links.append(str(value))
            assert not name.startswith("on"), f"an event handler in <{tag}>"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.stack.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.stack and self.stack[-1] == tag, f"</{tag}> closes <{self.stack[-1:]}>"
        self.stack.pop()

    def handle_data(self, data: str) -> None:
        where = self.stack[-1] if self.stack else ""
        self.text[where] = self.text.get(where, "") + data


@pytest.fixture(scope="module")
def page() -> str:
    return html_page(RESULTS)


def test_the_page_is_well_formed_and_its_ids_are_its_own(page: str) -> None:
    parsed = Page(page)
    assert parsed.stack == []
    assert len(parsed.ids) == len(set(parsed.ids))
    for link in parsed.links:
        assert link.startswith("#") and link[1:] in parsed.ids
    for reference in re.findall(r"url\(([^)]*)\)", page):
        assert reference.removeprefix("#") in parsed.ids


def test_the_page_loads_nothing(page: str) -> None:
    """Addresses may stand in text (escaped) and name the namespaces of SVG; nothing may be fetched."""
    tags = "".join(re.findall(r"<[^>]*>", re.sub(r"<script.*?</script>", "", page, flags=re.S)))
    tags = re.sub(r'xmlns(:xlink)?="http://www\.w3\.org/[^"]*"', "", tags)
    assert not re.search(r"https?:|//\w|@import", tags)
    assert not {"link", "img", "iframe", "object", "embed", "base"} & set(Page(page).tags)
    assert not re.search(r"@import|https?:", "".join(re.findall(r"<style.*?</style>", page, flags=re.S)))


def test_hostile_names_are_text(page: str) -> None:
    parsed = Page(page)
    assert parsed.tags.count("script") == 2  # the data, and the few lines that open a case
    assert "alert(" not in "".join(re.findall(r"<script>(.*?)</script>", page, flags=re.S))
    assert "<img" not in page and "<b>" not in page and "<i>" not in page
    assert HOSTILE in parsed.text["div"] + parsed.text["p"]


def test_the_embedded_data_are_the_verdicts(page: str) -> None:
    (text,) = re.findall(r'<script type="application/json" id="results">(.*?)</script>', page, flags=re.S)
    assert json.loads(text) == json.loads(json.dumps(RESULTS.to_dict()))


def test_surprises_come_first_and_open(page: str) -> None:
    cases = re.findall(r'<details id="case-(\d)"( open)?>', page)
    assert cases == [("3", " open"), ("2", ""), ("4", "")]
    assert page.count('class="surprise"') == 2  # by itself before all others, and in its family


def test_both_colour_schemes_are_served(page: str) -> None:
    """Figures take their colours from the page, so that one drawing suits light and dark."""
    assert "prefers-color-scheme: dark" in page
    style = page[page.index("<style>") : page.index("</style>")]
    defined = re.findall(r"(--\w+):", style)
    for name in ("--page", "--ink", "--link", "--bad", "--muted", "--faint"):
        assert defined.count(name) == 2, name
    for picture in re.findall(r"<svg.*?</svg>", page, flags=re.S):
        assert "var(--ink" in picture
        assert not re.search(r"(?:fill|stroke): #", picture)


def test_a_rerun_gives_the_same_bytes(tmp_path: Path) -> None:
    """Also in another process with another hash seed, and whatever the time it took."""
    paths = write_report(VERDICTS, tmp_path / "a", provenance=ORIGIN, skipped=["x"])
    code = (
        "from verify.report.pages import write_report\nfrom verify.report.store import load\nfrom pathlib import Path\n"
        f"r = load(Path({str(tmp_path / 'a' / 'verdicts.json')!r}))\n"
        f"write_report(r.verdicts, {str(tmp_path / 'b')!r}, provenance=r.provenance, skipped=r.skipped)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONHASHSEED": "77"})
    assert {path.relative_to(tmp_path / "a") for path in paths} == {
        path.relative_to(tmp_path / "b") for path in (tmp_path / "b").rglob("*.*")
    }
    for path in paths:
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
    assert "1234.5678" not in (tmp_path / "a" / "index.html").read_text()


def test_figures_of_an_earlier_report_do_not_stay(tmp_path: Path) -> None:
    write_report(VERDICTS, tmp_path, provenance=ORIGIN)
    assert (tmp_path / "figures" / "gap.svg").is_file()
    write_report(VERDICTS[:1], tmp_path, provenance=ORIGIN)
    assert {path.name for path in (tmp_path / "figures").glob("[eg]*.svg")} == {"excess.svg"}


def test_the_markdown_table_has_a_row_a_verdict_and_shows_the_figures(tmp_path: Path) -> None:
    write_report(VERDICTS, tmp_path, provenance=ORIGIN, skipped=["one | thing <b>"])
    text = (tmp_path / "index.md").read_text()
    rows = [line for line in text.splitlines() if re.match(r"\| \d+ \|.*total variation", line)]
    assert len(rows) == len(VERDICTS)
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {9}
    for figure in re.findall(r"\]\((figures/[^)]*)\)", text):
        assert (tmp_path / figure).read_text().startswith("<svg")
    assert not re.search(r"<(script|img|b)\b", re.sub(r"`{3,}.*?`{3,}\n", "", text, flags=re.S))


def test_no_verdicts_make_a_page_too(tmp_path: Path) -> None:
    write_report([], tmp_path, provenance=ORIGIN)
    assert "Nothing was judged." in (tmp_path / "index.html").read_text()


# --- sentences


def test_the_banner_is_one_sentence() -> None:
    assert banner(RESULTS) == "1 of 4 verdicts are not as claimed or expected: surprise."
    assert banner(Results(VERDICTS[:1], ORIGIN)).endswith("every verdict is as claimed or expected: 1 lossless.")
    alone = verdict("lossy", 0.25, 0.25, subject="f.py::g")
    assert banner(Results((alone,), ORIGIN)) == "f.py::g is lossy: its bias is 0.25 (total variation)."


def test_the_allowance_adds_up_what_may_be_wrong() -> None:
    """The union bound: three sampled verdicts that err with probability 1e-3 each."""
    assert "no false alarm" in allowance([verdict(), verdict(evidence="enumeration")])
    sampled = [verdict(evidence="sampled", confidence=0.999)] * 3
    assert allowance([verdict(), *sampled]).endswith("the probability that any other is wrong is at most 0.003.")
    assert allowance(sampled[:1]).endswith("the probability that it is wrong is at most 0.001.")


@pytest.mark.parametrize(
    ("low", "high", "evidence", "says"),
    [
        (0.0, 0.0, "exact", "0"),
        (4.4e-16, 4.4e-16, "exact", "4.4e-16"),
        (0.1, 0.2, "sampled", "0.1 to 0.2"),
        (0.0, 0.0123456, "sampled", "at most 0.0123"),
        (0.1, math.inf, "sampled", "at least 0.1"),
        (0.1, 1.0, "sampled", "at least 0.1"),
        (0.0, 1.0, "sampled", "unknown"),
        (math.nan, math.nan, "sampled", "unknown"),
    ],
)
def test_a_bias_is_a_number_or_what_bounds_it(low: float, high: float, evidence: str, says: str) -> None:
    assert bias(verdict("lossy", low, high, evidence=evidence)) == says


def test_markdown_is_escaped() -> None:
    assert markdown_cell("a|b\n<i>_c_") == r"a\|b &lt;i&gt;\_c\_"
    assert markdown_fence("x ```` y").startswith("`````python\n")


# --- figures


def test_the_excess_figure_has_a_point_a_verdict_and_the_line_between_possible_and_not() -> None:
    points = [
        verdict(subject="a", acceptance=0.5, overlap=0.5),
        verdict("lossy", 0.3, 0.3, subject="b<", acceptance=0.7, overlap=0.5),
        verdict("lossy", 0.3, 0.3, subject="no acceptance"),
        verdict("lossy", 0.3, 0.3, subject="other metric", acceptance=0.7, overlap=0.5, metric="ks"),
    ]
    drawing = excess_figure(points)
    assert drawing is not None
    assert re.findall(r"<title>(.*?)</title>", drawing) == ["1. a: lossless", "2. b&lt;: lossy"]
    assert "impossible" in drawing
    assert excess_figure(points[2:]) is None


def test_the_gap_figure_needs_two_enumerated_verdicts_and_has_a_row_a_status() -> None:
    exact = [verdict(subject="a", high=1e-16), verdict("lossy", 0.25, 0.25, subject="b")]
    picture = gap_figure([*exact, verdict(subject="c", evidence="sampled")])
    assert picture is not None and "what counts as zero" in picture
    assert ">lossless<" in picture and ">lossy<" in picture and ">inconclusive<" not in picture
    assert gap_figure(exact[:1]) is None


def test_the_outcomes_shown_are_those_that_differ_most() -> None:
    names = [f"outcome {index}" for index in range(MOST_OUTCOMES + 5)]
    wanted = dict.fromkeys(names, 1 / len(names))
    found = {name: share + 1e-4 * index for index, (name, share) in enumerate(wanted.items())}
    shown, hidden = outcomes(Counterexample(0.1, "", found=found, wanted=wanted))
    assert hidden == 5 and [item.name for item in shown] == names[5:]
    assert max(item.found_share for item in shown) == pytest.approx(100.0)
    assert shown[0].wanted_share == pytest.approx(100 * wanted[names[5]] / found[names[-1]])
    assert outcomes(Counterexample(0.1, "")) == ([], 0)


def test_a_drawing_is_themed_and_small_and_stays_so() -> None:
    """Black is the page's ink, white the page; styles that repeat are classes; a second pass changes nothing."""
    figure = Figure((3, 2))
    axes = figure.add_subplot()
    axes.axhspan(1, 2, color="#ffffff")
    axes.plot([1, 2, 4], color="#2b303a")
    axes.set_title("$x^2$ & more")
    picture = drawing(figure, "one", "A drawing.")
    assert themed(picture) == picture
    assert ElementTree.fromstring(picture).tag.endswith("svg")
    assert not re.search(r"(?:fill|stroke): #(?:000000|2b303a|ffffff)", picture) and "var(--page" in picture
    assert not re.search(r' d="[^"]*\.\d{3}', picture)
    styles = re.findall(r' style="([^"]*)"', picture)
    assert all(styles.count(style) < 3 for style in styles)
    classes = set(re.findall(r' class="([^"]*)"', picture))
    assert classes and all(f".{name}{{" in picture for name in classes)


# --- chapters


def test_the_verdicts_stand_in_families_and_the_opening_counts_them() -> None:
    names = ("block", "saboteurs/a", "controls/b", "transformers 5 x", "saboteurs/c")
    status = ("lossless", "lossy", "lossless", "lossless", "lossless")
    every = [verdict(state, subject=name) for state, name in zip(status, names, strict=True)]
    found = groups([Row(place, item) for place, item in enumerate(every, 1)])
    assert [(group.name, len(group.rows)) for group in found] == [
        ("Built-in verifiers", 1), ("Planted defects", 2), ("Controls", 1), ("transformers as installed", 1),
    ]  # fmt: skip
    assert dict(map(reversed, tiles(Results(tuple(every), ORIGIN), 0.001)))["planted defects found"] == "1 of 2"
    assert ("0 of 1", "lossless controls accused") in tiles(Results(tuple(every), ORIGIN), 0.001)
    assert tiles(Results(tuple(every), ORIGIN), 0.0021)[-1][0] == "1 in 476"


def test_the_separation_is_of_enumerated_verdicts_alone() -> None:
    every = [verdict(high=4e-16), verdict("lossy", 1e-9, 1e-9), verdict(high=0.3, evidence="sampled")]
    assert "4.0e-16" in separation(every) and "1.0e-09" in separation(every) and "0.3" not in separation(every)
    assert separation(every[:1]) == ""


def test_every_chapter_says_how_to_make_what_is_missing(tmp_path: Path) -> None:
    write_report(VERDICTS, tmp_path, provenance=ORIGIN)
    page = (tmp_path / "index.html").read_text()
    for name in ("engine_trial", "ladder", "kill_matrix", "jacobi", "images", "live_audit"):
        assert f"specproof study {name}</code>" in page
    assert "make bench</code>" in page and "make render</code>" in page
    assert "28 are faster than the acceptance beside them allows" in page  # 21 of one shipped table, 7 of the other
    assert "verdicts.json" in page and 'id="results"' not in page


def test_a_chapter_shows_the_figures_tables_and_words_of_its_study(tmp_path: Path) -> None:
    """A matrix of planted defects, as the study writes it, and the sentence that is read from it."""
    figure = Figure((3, 2))
    figure.add_subplot().plot([1, 2])
    rows = [{"saboteur": "one", "law": "sees it", "ks": "-"}, {"saboteur": "two", "law": "", "ks": ""}]
    tables = {"Saboteur by check": rows, "Control by check": [{"control": "fine", "law": "", "ks": ""}]}
    for name in ("kill_matrix", "continuous_kill_matrix"):
        write(Study("The <matrix>", "Some `words`.", tables, {"A figure": figure}), name, tmp_path / "studies", ORIGIN)
    write_report(VERDICTS, tmp_path, provenance=ORIGIN)
    page = (tmp_path / "index.html").read_text()
    assert "4 public bugs and mutants, one in each row; 2 unseen by every check." in page
    assert "Of 2 lossless rules that were called lossy somewhere, none is accused." in page
    assert page.count('<td class="seen"') == 2 and page.count('<td class="unasked"') == 2
    assert "The &lt;matrix&gt;" in page and "Some <code>words</code>." in page
    (part,) = (part for part in chapters(written(tmp_path / "studies"), tmp_path) if part.anchor == "matrices")
    assert part.missing == []


def test_a_study_of_other_columns_is_shown_without_the_sentence() -> None:
    assert lead(lambda studies: str(studies["none"]), {}) == ""


def test_numbers_and_words() -> None:
    assert number(12345.678) == "12,346" and number(1 / 3) == "0.3333" and number(10000) == "10,000"
    assert number(None) == number(math.nan) == "–" and number("x") == "x" and number(True) == "True"
    assert code("a `b` **c** 3e-05 <") == "a <code>b</code> <strong>c</strong> 3e\u201105 &lt;"
    assert risk([verdict(), verdict(evidence="sampled", confidence=0.75)]) == 0.25


# --- storage and provenance


def test_verdicts_survive_the_disk(tmp_path: Path) -> None:
    save(RESULTS, tmp_path / "verdicts.json")
    again = load(tmp_path / "verdicts.json")
    assert again.to_dict() == RESULTS.to_dict()
    assert again.verdicts[1].counterexample == CASE
    assert again.surprises[0].subject == "surprise"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"results": [{}], "meta": {"provenance": {}, "skipped": []}}'])
def test_a_file_of_another_kind_is_refused_in_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "verdicts.json").write_text(text)
    with pytest.raises(SubjectError, match="run the audit again"):
        load(tmp_path / "verdicts.json")


def test_provenance_repeats_itself_and_has_no_date() -> None:
    origin = provenance("specproof audit", seed=3)
    assert origin == provenance("specproof audit", seed=3)
    assert {"command", "specproof", "commit", "seed", "python", "platform", "torch"} <= set(origin)
    assert re.fullmatch(r"[0-9a-f]{12}\+?|unknown", origin["commit"])
    assert not re.search(r"\d{4}-\d\d-\d\d|\d\d:\d\d", " ".join(origin.values()))

"""Studies: the folder is the list, and what is written can be read again."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure

from verify.errors import SubjectError
from verify.report.pages import write_report
from verify.report.written import written
from verify.study import Study, chosen, studies, write


def a_study() -> Study:
    figure = Figure((3, 2))
    figure.add_subplot().plot([1, 2, 4], label="a & b")
    rows = [{"rule": "block", "bias": 1 / 3}, {"rule": "a|b", "note": "x < y"}]
    return Study("Rules <compared>", "One `name`.\n\n**Another** paragraph.", {"Biases": rows}, {"A `curve`": figure})


def test_every_study_is_found_by_its_file_and_can_be_run():
    for name, run in studies().items():
        assert chosen(name) is run and callable(run)
    with pytest.raises(SubjectError, match="there is no study 'nothing'"):
        chosen("nothing")


def test_a_study_is_written_as_pages_data_and_pictures(tmp_path):
    paths = write(a_study(), "demo", tmp_path, {"command": "specproof study demo", "seed": "0"})
    assert [path.name for path in paths] == ["demo.html", "demo.md", "demo.json", "demo-1.svg"]
    page, text = paths[0].read_text(), paths[1].read_text()
    assert "One <code>name</code>.</p>" in page and "<p><strong>Another</strong> paragraph.</p>" in page
    assert "Rules &lt;compared&gt;" in page and ">0.3333</td>" in page
    assert "| a\\|b |  | x &lt; y |" in text and "![A `curve`](demo-1.svg)" in text
    assert json.loads(paths[2].read_text())["tables"]["Biases"][0] == {"rule": "block", "bias": 1 / 3}
    assert ElementTree.fromstring(paths[3].read_text()).tag.endswith("svg")


def test_the_same_study_is_the_same_bytes(tmp_path):
    first, second = (write(a_study(), "demo", tmp_path / part, {}) for part in ("one", "two"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_the_report_links_the_studies_beside_it(tmp_path):
    write(a_study(), "demo", tmp_path / "studies", {})
    found = written(tmp_path / "studies")
    assert {name: study.title for name, study in found.items()} == {"demo": "Rules <compared>"}
    write_report([], tmp_path, provenance={})
    assert '<a href="studies/demo.html">Rules &lt;compared&gt;</a>' in (tmp_path / "index.html").read_text()
    assert "(studies/demo.md)" in (tmp_path / "index.md").read_text()

"""Images are SVG files with the figures' text in them, the same from run to run."""

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from realignment.baselines.images import image_name, write_images


@pytest.fixture(scope="module")
def folder(comparison, tmp_path_factory):
    path = tmp_path_factory.mktemp("images")
    write_images(comparison, path)
    return path


def texts(path):
    root = ElementTree.parse(path).getroot()
    return ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]


def test_every_set_has_its_three_figures(comparison, tmp_path):
    images = write_images(comparison, tmp_path / "new")
    assert {image.set for image in images} == {"style", "labels"}
    assert len(images) == 6
    assert {image.file for image in images} == {file.name for file in (tmp_path / "new").iterdir()}
    assert images[0].file == image_name("style", "tradeoffs") == "methods-style-tradeoffs.svg"
    assert all(image.set in image.caption for image in images)


def test_images_are_the_same_from_run_to_run(comparison, folder, tmp_path):
    write_images(comparison, tmp_path)
    for file in folder.iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name


def test_text_stays_text(comparison, folder):
    found = texts(folder / "methods-style-tradeoffs.svg")
    for arm in comparison.arms("style"):
        assert found.count(arm) == 4
    assert "drift (KL), nats/token (less is better)" in found


def test_the_matrix_has_every_difference(comparison, folder):
    found = texts(folder / "methods-style-differences.svg")
    for row in comparison.all_pairs("style").to_dict("records"):
        mark = " *" if row["p_holm"] < 0.05 else ""
        points = 100 * row["difference"]
        if abs(points) >= 0.05:
            assert f"{points:+.1f}{mark}" in found
            assert f"{-points:+.1f}{mark}" in found


def test_bars_have_a_legend(folder):
    assert {"good answers", "violating answers", "retained answers"} <= set(
        texts(folder / "methods-labels-logratios.svg")
    )


def test_nothing_is_written_of_what_was_not_measured(comparison, tmp_path):
    means = comparison.means
    bare = means[(means["metric"] == "agreement") & (means["arm"] == "trace")]
    none = replace(comparison, means=bare, differences=comparison.differences.iloc[:0])
    assert write_images(none, tmp_path) == []


def test_names_of_sets_become_names_of_files():
    assert image_name("PKU-SafeRLHF (1,000)", "logratios") == "methods-pku-saferlhf-1-000-logratios.svg"


def test_dollar_signs_in_names_are_no_formulas(comparison, tmp_path):
    cells, means = (
        table.assign(arm=table["arm"].replace("sft", "a$b$"))
        for table in (comparison.cells, comparison.means)
    )
    pairs = comparison.differences.replace({"first": {"sft": "a$b$"}, "second": {"sft": "a$b$"}})
    write_images(replace(comparison, cells=cells, means=means, differences=pairs), tmp_path)
    assert "a$b$" in texts(tmp_path / "methods-style-logratios.svg")

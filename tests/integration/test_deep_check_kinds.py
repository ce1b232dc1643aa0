"""Every kind of damage that e2fsck finds is found by check_image(deep=True)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from integration.corrupt import Image
from integration.corrupt_kinds import make_image
from integration.corrupt_names import KINDS
from integration.oracle import judge
from layermelt import check_image


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_image(tmp_path_factory.mktemp("kinds"))


def test_the_image_is_good(good: Path, releases: list[judge.E2fsprogs]) -> None:
    assert releases
    for tools in releases:
        assert judge.complaints(good, tools) == []
    report = check_image(good, deep=True)
    assert report.problems == ()
    assert report.deep


def test_there_are_many_kinds() -> None:
    assert len(KINDS) >= 60


@pytest.mark.parametrize("name", KINDS)
def test_damage_is_found(name: str, good: Path, tmp_path: Path, releases: list[judge.E2fsprogs]) -> None:
    code, change = KINDS[name]
    path = tmp_path / "damaged.ext4"
    shutil.copyfile(good, path)
    image = Image(path)
    change(image)
    image.save()
    for tools in releases:
        # Some it only mentions: what it would set right is not always its exit code.
        assert judge.complaints(path, tools) != [], f"{tools.version} finds nothing wrong"
    report = check_image(path, deep=True)
    assert code in {problem.code for problem in report.problems}, report.problems

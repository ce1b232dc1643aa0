"""The kernel is the judge: each chain of oracle/cases, on each kind of store.

Kernel overlayfs shows the chain, kernel ext4 shows our image of it, and both
trees must be equal entry by entry. Where the kernel refuses, so do we.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from integration.conftest import Judge, Stores
from integration.oracle import chains, mounts, product
from integration.oracle.chains import Case
from integration.oracle.compare import differences, report
from integration.oracle.dump import dump

pytestmark = pytest.mark.root

CASES = chains.load()
EACH = [
    pytest.param(case, fs, id=f"{case.section}-{case.name}-{fs}")
    for case in CASES.values()
    for fs in case.stores
]


@pytest.mark.parametrize(("case", "fs"), EACH)
def test_image_is_what_the_kernel_shows(
    case: Case, fs: str, stores: Stores, tmp_path: Path, judge_image: Judge
) -> None:
    layers, claims = case.build(stores(fs), fs)
    with mounts.overlay(layers, userxattr=case.userxattr, metacopy=case.metacopy) as merged:
        kernel_view = dump(merged)
    false = chains.false_claims(claims, kernel_view)
    assert not false, "the case does not show what it claims: " + "\n".join(false)

    output = tmp_path / "image.ext4"
    if case.refused is not None:
        code, path = case.refused
        assert kernel_view.refused == {path.encode(): code}
    path_refused = case.refused[1] if case.refused else case.unrepresentable
    if case.clamped and path_refused is not None:
        result = product.build(layers, output)
        judge_image(output)
        assert any(f"/{path_refused}:" in warning for warning in result.warnings), result.warnings
        with mounts.image(output) as mounted:
            different = differences(kernel_view, dump(mounted))
        assert len(different) == 1, report(different)
        assert different[0].startswith(f"/{path_refused}: mtime_ns:")
        return
    if path_refused is not None:
        message = product.refusal(layers, output, userxattr=case.userxattr)
        assert f"/{path_refused}" in message, f"does not name {path_refused}: {message}"
        return

    assert kernel_view.refused == {}
    product.build(layers, output, userxattr=case.userxattr)
    judge_image(output, but_for=case.e2fsck_says)
    with mounts.image(output) as mounted:
        shown = dump(mounted)
    different = differences(chains.expected_tree(case, kernel_view), shown)
    assert not different, report(different)


@pytest.mark.parametrize(
    "name",
    [
        "metacopy_takes_data_from_below",
        "metacopy_through_metacopies",
        "metacopy_hard_links_are_those_of_the_top",
        "metacopy_of_a_sparse_file",
    ],
)
def test_metacopy_of_user_marks(name: str, stores: Stores, tmp_path: Path, judge_image: Judge) -> None:
    """No mount option makes the kernel follow user.overlay.metacopy.

    We follow it as we follow trusted.overlay.metacopy without a mount option:
    the image is what the kernel shows of the same chain with trusted marks.
    """
    case = CASES[name]
    trusted, _ = case.build(stores("ext4"), "ext4")
    user, _ = replace(case, userxattr=True).build(stores("ext4"), "ext4")
    with mounts.overlay(trusted, metacopy=True) as merged:
        kernel_view = dump(merged)
    output = tmp_path / "image.ext4"
    product.build(user, output, userxattr=True)
    judge_image(output)
    with mounts.image(output) as mounted:
        different = differences(kernel_view, dump(mounted))
    assert not different, report(different)


def test_each_rule_has_a_case() -> None:
    """A section of the merge's specification without a case is a gap."""
    sections = {case.section for case in CASES.values()}
    assert sections == {f"2.{number}" for number in range(1, 12)}
    assert len(CASES) >= 100

"""The kernel is the judge: each chain of oracle/cases, on each kind of store.

Kernel overlayfs shows the chain, kernel ext4 shows our image of it, and both
trees must be equal entry by entry. Where the kernel refuses, so do we.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from integration.conftest import Judge, Stores
from integration.oracle import chains, mounts, product
from integration.oracle.chains import Case
from integration.oracle.compare import differences, report
from integration.oracle.dump import dump

pytestmark = pytest.mark.root

CASES = chains.load()
EACH = [pytest.param(case, fs, id=f"{case.name}-{fs}") for case in CASES.values() for fs in case.stores]


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
    if path_refused is not None:
        message = product.refusal(layers, output, userxattr=case.userxattr)
        assert f"/{path_refused}" in message, f"does not name {path_refused}: {message}"
        return

    assert kernel_view.refused == {}
    product.build(layers, output, userxattr=case.userxattr)
    judge_image(output)
    with mounts.image(output) as mounted:
        shown = dump(mounted)
    different = differences(chains.expected_tree(case, kernel_view), shown)
    assert not different, report(different)


def test_each_rule_has_a_case() -> None:
    """A section of the merge's specification without a case is a gap."""
    sections = {case.section for case in CASES.values()}
    assert sections == {f"2.{number}" for number in range(1, 12)}
    assert len(CASES) >= 100

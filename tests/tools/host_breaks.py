"""One-line breaks of how the package deals with hosts, guests' images and terminals: each undone once."""

from __future__ import annotations

from tools.breaks import MIDWAY, Break

CORE = "rust/core/src/"
PYTHON = "python/layermelt/"
INTEGRATION = "tests/integration/"
METER = "tests/unit/test_meter.py"

#: (rule, file, search, replace, tests)
_BREAKS: tuple[tuple[str, str, str, str, str], ...] = (
    (
        "nothing may be mounted inside what is compared",
        CORE + "layers/mounts.rs",
        ".filter(|rest| !rest.as_os_str().is_empty());",
        ".filter(|_| false);",
        INTEGRATION + "test_diff_edges.py::test_a_mount_inside_is_refused",
    ),
    (
        "the root of a mount is a directory like others",
        CORE + "layers/mounts.rs",
        ".filter(|rest| !rest.as_os_str().is_empty());",
        ";",
        INTEGRATION + "test_diff_edges.py::test_a_mount_inside_is_refused",
    ),
    (
        "a time limit is a number above 0",
        PYTHON + "job.py",
        "if seconds is not None and not seconds > 0:",
        "if seconds is not None and seconds < -5:",
        INTEGRATION + "test_inject_mount.py",
    ),
    (
        "a file that was written to is no part of an image",
        CORE + "ext4/write/mod.rs",
        "    opener.still_same(content, size, &file)?;\n    result.map_err",
        "    result.map_err",
        MIDWAY,
    ),
    (
        "what the deep check cannot tell it notes",
        CORE + "ext4/check/deep/records.rs",
        "None => self.note(NOT_FOLDED),",
        "None => {}",
        INTEGRATION + "test_deep_check_features.py",
    ),
    (
        "a feature e2fsck does not check under is told",
        CORE + "ext4/read/features.rs",
        "const COMPAT_CHECKED: u32 = 0x1e3f;",
        "const COMPAT_CHECKED: u32 = 0xffff_fe3f;",
        INTEGRATION + "test_deep_check_features.py",
    ),
    (
        "casefold needs an encoding",
        CORE + "ext4/check/superblock.rs",
        "sb.s_encoding != ENCODING_UTF8",
        "sb.s_encoding > ENCODING_UTF8",
        INTEGRATION + "test_deep_check_features.py",
    ),
    (
        "progress is shown after a while",
        PYTHON + "meter.py",
        "if time.monotonic() - self._begin < _PATIENCE:",
        "if False:",
        METER,
    ),
    ("progress leaves no line", PYTHON + "meter.py", '        line.write("")', "        pass", METER),
    (
        "progress is for terminals",
        PYTHON + "meter.py",
        "return sys.stderr.isatty()",
        "sys.stderr.isatty()\n        return True",
        METER,
    ),
    (
        "a longer line is wiped out",
        PYTHON + "meter.py",
        "{text.ljust(self._width)}",
        "{text}",
        METER,
    ),
)

HOST_BREAKS: tuple[Break, ...] = tuple(
    Break("host", rule, file, search, replace, tests) for rule, file, search, replace, tests in _BREAKS
)

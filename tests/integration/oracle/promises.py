"""What images hold, line by line, and what shows it: cases of the oracle and tests.

``oracle:NAME`` is a case on every store that can hold it, ``FILE::NAME`` a test. Random chains
(``test_random_trees.py``) lie on ext4, XFS and btrfs and have most of this together.
"""

from __future__ import annotations

import re
from pathlib import Path

from integration.oracle import chains

PROJECT = Path(__file__).resolve().parents[3]
RUST = "rust/core/tests/"
HERE = "tests/integration/"

PROMISES: dict[str, tuple[str, ...]] = {
    # Directories
    "htree from one block on": (
        "oracle:directory_of_many_blocks",
        "oracle:directory_blocks_that_are_just_full",
        HERE + "test_large_directories.py::test_every_name_is_found",
    ),
    "htree of three levels, and large_dir only then": (
        HERE + "test_large_directories.py::test_every_name_is_found",
        RUST + "block_sizes.rs::an_index_of_three_levels",
    ),
    "equal hashes over the end of a leaf": (HERE + "test_large_directories.py::test_every_name_is_found",),
    "300,000 names in a directory": (HERE + "test_large_directories.py::test_every_name_is_found",),
    "more than 65,000 subdirectories": (
        "oracle:directory_with_many_subdirectories",
        HERE + "test_large_directories.py::test_more_subdirectories_than_links_are_counted",
    ),
    "a million entries": (RUST + "least_size.rs::of_a_million_entries",),
    "more than 65,000 names of an inode": (
        "oracle:many_links",
        HERE + "test_kernel_layers.py::test_more_names_than_ext4_counts",
    ),
    "names of 255 bytes, and of any bytes": ("oracle:names_of_any_bytes",),
    # Files
    "files over 4 GiB, and to 16 TiB": (
        "oracle:sparse_files",
        HERE + "test_limits.py::test_the_largest_file",
        HERE + "test_limits.py::test_a_file_beyond_the_largest",
    ),
    "extent trees of depth two": (
        "oracle:files_of_many_extents",
        HERE + "test_limits.py::test_a_tree_of_extents_in_each_block_size",
    ),
    "holes, preallocated and compressed extents": (
        "oracle:sparse_files",
        "oracle:preallocated_files",
        "oracle:compressed_files",
    ),
    # Attributes
    "attributes in the inode, as the kernel packs them": (
        "oracle:xattrs_at_the_edge_of_the_inode",
        "oracle:xattrs_in_inode_and_block",
        HERE + "test_limits.py::test_attributes_lie_in_the_inode_as_the_kernel_puts_them",
    ),
    "one block for equal sets": (
        "oracle:xattrs_shared_by_many_inodes",
        "oracle:xattrs_at_the_edge_of_the_block",
        HERE + "test_kernel_use.py::test_written_to_by_the_kernel",
    ),
    "values to 64 KiB, in inodes of their own only where needed": (
        "oracle:xattr_beyond_the_block",
        "oracle:xattrs_of_hidden_entries_do_not_matter",
        HERE + "test_limits.py::test_the_longest_value",
        HERE + "test_kernel_use.py::test_features_are_those_of_the_profile",
    ),
    "POSIX ACLs and default ACLs": ("oracle:posix_acls", "oracle:xfs_lists_acls_twice"),
    "capabilities": ("oracle:capabilities",),
    "trusted and security attributes on every kind of node": ("oracle:every_namespace_on_every_kind",),
    # What an inode says
    "times from 1901 to 2446 in nanoseconds": ("oracle:times", "oracle:times_at_both_ends"),
    "times beyond are the nearest, with a warning": (
        "oracle:time_before_ext4_begins",
        "oracle:time_after_ext4_ends",
        HERE + "test_limits.py::test_times_beyond_ext4_are_the_nearest_ones",
    ),
    "owners to 2^32-2": ("oracle:modes_and_owners",),
    "device numbers of 12 and 20 bits": ("oracle:devices",),
    "inode flags where asked for": (
        HERE + "test_inode_flags.py::test_flags_are_what_the_overlay_shows",
        HERE + "test_inode_flags.py::test_the_image_s_kernel_obeys_them",
    ),
    "identity by 64 bits, and by subvolume": (
        "oracle:subvolumes_have_their_own_inode_numbers",
        HERE + "test_limits.py::test_inode_numbers_of_64_bits",
    ),
    # Images
    "profiles, block sizes, journals, inodes": (
        HERE + "test_profiles.py::test_the_kernel_shows_the_chain",
        RUST + "block_sizes.rs::every_profile_and_size_of_every_block_size_is_clean",
        RUST + "block_sizes.rs::journals_are_counted_in_blocks",
        RUST + "images.rs::profiles_are_what_they_say",
    ),
    "reserved blocks": (
        RUST + "images.rs::reserved_blocks_are_for_root_and_beside_the_free_ones",
        RUST + "least_size.rs::what_is_reserved_is_no_more_than_half",
    ),
    "not one block more than needed": (
        RUST + "block_sizes.rs::the_least_size_is_enough_and_one_block_less_is_not",
        RUST + "least_size.rs::one_block_less_is_never_enough",
    ),
    "images to 16 TiB": (
        HERE + "test_limits.py::test_the_largest_image",
        RUST + "block_sizes.rs::the_largest_images_of_small_blocks",
    ),
    "images of nothing": ("oracle:empty_chain", "oracle:empty_layers"),
    "the same bytes": (RUST + "golden.rs::the_bytes_of_images_are_those_of_their_epoch",),
    # What becomes of them
    "lived in": (
        HERE + "test_kernel_workload.py::test_the_kernel_works_in_it",
        HERE + "test_kernel_use.py::test_written_to_by_the_kernel",
    ),
    "grown offline": (
        HERE + "test_grow.py::test_any_make_grows",
        HERE + "test_grow.py::test_far",
        HERE + "test_kernel_use.py::test_grown_offline",
    ),
    "grown by a guest": (HERE + "test_boot.py::test_grown_by_the_guest",),
}


def not_there() -> list[str]:
    """Cases and tests of the table that do not exist."""
    cases = chains.load()
    missing = []
    for shown_by in PROMISES.values():
        for one in shown_by:
            where, _, name = one.replace("oracle:", "oracle::").partition("::")
            if where == "oracle":
                there = name in cases
            else:
                text = (PROJECT / where).read_text()
                there = re.search(rf"^(?:fn|def) {name}\(", text, re.MULTILINE) is not None
            if not there:
                missing.append(one)
    return missing

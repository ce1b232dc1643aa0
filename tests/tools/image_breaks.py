"""One-line breaks of what an image holds at its limits: each rule undone once, in the source text."""

from __future__ import annotations

from tools.breaks import LAYERS, Break

PLAN = "rust/core/src/ext4/plan/"
FORMAT = "rust/core/src/ext4/format/"
TESTS = "tests/integration/"


def _breaks(section: str, tests: str, *breaks: tuple[str, str, str, str]) -> tuple[Break, ...]:
    """Each is (rule, file, search, replace)."""
    return tuple(
        Break(section, rule, file, search, replace, TESTS + tests) for rule, file, search, replace in breaks
    )


IMAGE_BREAKS: tuple[Break, ...] = (
    *_breaks(
        "limits",
        "test_limits.py",
        (
            "a file beyond 2^32-1 blocks is refused",
            PLAN + "validate.rs",
            "if size > most_bytes =>",
            "if size > most_bytes + 4096 =>",
        ),
        (
            "a file's size has 64 bits",
            FORMAT + "inode.rs",
            "put_u32(&mut raw, 0x6c, high32(self.size)); // i_size_high",
            "put_u32(&mut raw, 0x6c, high32(self.size) & 0x7ff); // i_size_high",
        ),
        (
            "attributes are sorted as the kernel sorts them",
            FORMAT + "xattr.rs",
            "    inside.sort();\n    block.sort();",
            "    inside.sort();\n    inside.reverse();\n    block.sort();",
        ),
        (
            "attributes in the inode have no hashes",
            FORMAT + "xattr.rs",
            "        base: INODE_HEADER_SIZE,\n        hashed: false,",
            "        base: INODE_HEADER_SIZE,\n        hashed: true,",
        ),
        (
            "an ACL loses the ids that it does not need",
            FORMAT + "xattr.rs",
            "disk.extend_from_slice(&entry[..4]),",
            "disk.extend_from_slice(entry),",
        ),
        (
            "a large value has an inode whose number is told",
            FORMAT + "xattr.rs",
            "Some(inode) => put_u32(raw, at + 4, inode.number), // e_value_inum",
            "Some(inode) => put_u32(raw, at + 4, inode.number + 1), // e_value_inum",
        ),
        (
            "an inode is charged for values that lie outside",
            PLAN + "inodes.rs",
            "inode.blocks += self.attributes.value_blocks(meta.xattrs);",
            "",
        ),
        (
            "a symlink with values outside has a block",
            PLAN + "attributes.rs",
            "if on_links[set.index()] && parts.in_block.is_empty() {",
            "if false && on_links[set.index()] {",
        ),
        (
            "inode numbers have 64 bits",
            LAYERS + "fates.rs",
            "(entry.device, entry.inode)",
            "(entry.device, entry.inode & 0xffff_ffff)",
        ),
        (
            "a time beyond the range is the nearest one",
            FORMAT + "inode.rs",
            "let seconds = time.seconds.clamp(MIN_SECONDS, MAX_SECONDS);",
            "let seconds = time.seconds.clamp(MIN_SECONDS, MAX_SECONDS - 1);",
        ),
        (
            "... of whole seconds",
            FORMAT + "inode.rs",
            "nanoseconds: if at_an_end { 0 } else { time.nanoseconds },",
            "nanoseconds: if at_an_end { 1 } else { time.nanoseconds },",
        ),
        (
            "no image is larger than 16 TiB",
            PLAN + "size.rs",
            "_ => 16 << 40,",
            "_ => 17 << 40,",
        ),
        (
            "an inode for each 16 KiB",
            PLAN + "size.rs",
            "const BYTES_PER_INODE: u64 = 16384;",
            "const BYTES_PER_INODE: u64 = 32768;",
        ),
    ),
    *_breaks(
        "htree",
        "test_large_directories.py",
        (
            "a hash that goes on in the next block is marked",
            PLAN + "directories.rs",
            "let continued = u32::from(before == Some(hash));",
            "let continued = u32::from(before.is_none() && hash == 0);",
        ),
        (
            "names are hashed by signed chars, 32 bytes at a time",
            FORMAT + "htree.rs",
            "rest = rest.get(32..).unwrap_or_default();",
            "rest = rest.get(64..).unwrap_or_default();",
        ),
        (
            "a third level needs large_dir",
            PLAN + "directories.rs",
            "self.hashed.values().any(|hashed| hashed.levels.len() > 1)",
            "self.hashed.values().any(|hashed| hashed.levels.len() > 2)",
        ),
        (
            "the root says how many levels there are",
            FORMAT + "htree.rs",
            "raw[30] = levels; // indirect_levels",
            "raw[30] = levels.min(1); // indirect_levels",
        ),
        (
            "leaves are filled",
            PLAN + "directories.rs",
            "left = room(block_size);",
            "left = room(block_size) / 2;",
        ),
        (
            "the last leaf of a node is not the first of the next",
            PLAN + "directories.rs",
            "self.pointers(level + 1, start..below.min(start + limit))",
            "self.pointers(level + 1, start..below.min(start + limit - 1))",
        ),
        (
            "beyond 65,000 links the number is 1",
            PLAN + "inodes.rs",
            ".filter(|&links| u32::from(links) <= validate::LINK_MAX)",
            ".filter(|&links| u32::from(links) < u32::MAX)",
        ),
    ),
    *_breaks(
        "flags",
        "test_inode_flags.py",
        (
            "no flags unless asked for",
            LAYERS + "inspect.rs",
            "if shared.options.inode_flags && matches!(kind, Type::File | Type::Directory) {",
            "if matches!(kind, Type::File | Type::Directory) {",
        ),
        (
            "directories have flags",
            LAYERS + "inspect.rs",
            "if shared.options.inode_flags && matches!(kind, Type::File | Type::Directory) {",
            "if shared.options.inode_flags && kind == Type::File {",
        ),
        (
            "the root has flags",
            LAYERS + "inspect.rs",
            "Ok(found) => entry.inode_flags = found,\n                Err(error) => self\n",
            "Ok(_) => {}\n                Err(error) => self\n",
        ),
        (
            "each flag is its own",
            PLAN + "inodes.rs",
            "(tree::InodeFlags::NODUMP, InodeFlags::NODUMP),",
            "(tree::InodeFlags::NODUMP, InodeFlags::NOATIME),",
        ),
        (
            "append is kept",
            LAYERS + "flags.rs",
            "(IFlags::APPEND, InodeFlags::APPEND),",
            "",
        ),
        (
            "a metacopy's flags are its own",
            LAYERS + "merge.rs",
            "        flags: entry.inode_flags,",
            "        flags: if entry.has(Flags::METACOPY) { Default::default() } else { entry.inode_flags },",
        ),
        (
            "no flags at all are no error",
            LAYERS + "flags.rs",
            "Err(Errno::NOTTY | Errno::NOTSUP | Errno::NOSYS | Errno::INVAL) => IFlags::empty(),",
            "Err(Errno::NOSYS) => IFlags::empty(),",
        ),
    ),
    *_breaks(
        "kernel-use",
        "test_kernel_use.py",
        (
            "no features that old programs refuse",
            FORMAT + "features.rs",
            "                | RoCompat::METADATA_CSUM,",
            "                | RoCompat::METADATA_CSUM | RoCompat::from_bits_retain(0x2000),  // project",
        ),
        (
            "nothing is reserved unless asked for",
            PLAN + "encode.rs",
            "reserved_blocks: self.reserved_blocks,",
            "reserved_blocks: self.reserved_blocks + 1,",
        ),
        (
            "ctime is mtime",
            FORMAT + "inode.rs",
            "put_u32(&mut raw, 0x0c, seconds); // i_ctime",
            "put_u32(&mut raw, 0x0c, seconds + 1); // i_ctime",
        ),
        (
            "atime is mtime, in nanoseconds",
            FORMAT + "inode.rs",
            "put_u32(&mut raw, 0x8c, extra); // i_atime_extra",
            "put_u32(&mut raw, 0x8c, extra + 4); // i_atime_extra",
        ),
        (
            "reserved descriptors are at hand when the image grows",
            PLAN + "encode.rs",
            "let behind_superblock = 1 + self.geometry.descriptor_blocks + first;",
            "let behind_superblock = 2 + self.geometry.descriptor_blocks + first;",
        ),
        (
            "data of other groups is in their bitmaps",
            PLAN + "encode.rs",
            "let first = runs.partition_point(|run| run.end() <= start);",
            "let first = runs.partition_point(|run| run.start < start);",
        ),
        (
            "a bitmap that is not there is one that the kernel computes",
            PLAN + "groups.rs",
            "if group.used_blocks == superblock && number + 1 < geometry.groups {",
            "if group.used_blocks < per_group && superblock < u32::MAX && number + 1 < geometry.groups {",
        ),
        (
            "inodes behind the last one in use are unused",
            PLAN + "groups.rs",
            "itable_unused: geometry.inodes_per_group - group.table_used,",
            "itable_unused: (geometry.inodes_per_group - group.table_used + 1).min(geometry.inodes_per_group),",
        ),
        (
            "a shared block of attributes counts its users",
            PLAN + "attributes.rs",
            "                block.references += 1;\n",
            "",
        ),
    ),
    *_breaks(
        "profiles",
        "test_profiles.py",
        (
            "compat has no metadata_csum",
            FORMAT + "features.rs",
            "        features.ro_compat -= RoCompat::METADATA_CSUM;\n",
            "",
        ),
        (
            "nothing is reserved in readonly",
            FORMAT + "features.rs",
            "features.compat -= Compat::HAS_JOURNAL | Compat::RESIZE_INODE;",
            "features.compat -= Compat::HAS_JOURNAL;",
        ),
        (
            "nothing is free in readonly",
            PLAN + "size.rs",
            "Size::Auto if options.profile == Profile::Readonly => solver.min(),",
            "Size::Auto if options.profile == Profile::Readonly => solver.auto(),",
        ),
        (
            "the journal is of the wished size",
            PLAN + "validate.rs",
            "return Ok(Some(blocks as u32));",
            "return Ok(Some(blocks as u32 + 1));",
        ),
        (
            "an image has whole blocks",
            PLAN + "mod.rs",
            "Size::Bytes(bytes) => bytes - bytes % u64::from(block_size.bytes()),",
            "Size::Bytes(bytes) => bytes,",
        ),
        (
            "blocks of 2,048 bytes are counted in sectors",
            FORMAT + "inode.rs",
            "let sectors = self.blocks << (block.bits() - 9);",
            "let sectors = self.blocks << (block.bits().max(11) - 9);",
        ),
    ),
    *_breaks(
        "random",
        "test_random_trees.py",
        (
            "an image reserves no more than half",
            PLAN + "size.rs",
            ".max(2 * reserved_blocks(self.options, self.block_size))",
            "",
        ),
        (
            "a file shares its own blocks",
            "rust/core/src/ext4/write/mod.rs",
            "match clone_range(&file, offset, bytes, self.output, region.offset()) {",
            "match clone_range(&file, offset, bytes, self.output, region.offset() + 4096) {",
        ),
        (
            "what is not whole is written behind what is shared",
            "rust/core/src/ext4/write/mod.rs",
            "        let (_, rest) = region.split(blocks);\n        Ok(rest)",
            "        let (_, _) = region.split(blocks);\n        Ok(None)",
        ),
        (
            "immutable is kept",
            LAYERS + "flags.rs",
            "(IFlags::IMMUTABLE, InodeFlags::IMMUTABLE),",
            "",
        ),
        (
            "inodes as wished",
            PLAN + "size.rs",
            "let wished = self.options.inodes.unwrap_or(by_size);",
            "let wished = self.options.inodes.map_or(by_size, |_| 1);",
        ),
    ),
)

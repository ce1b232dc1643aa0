//! The value of a redirect mark.

/// Why a redirect is one that the kernel refuses.
pub(super) const INVALID: &str =
    "its overlay.redirect is neither a name nor an absolute path (the kernel answers EINVAL)";

/// The value as the kernel takes it, up to the first NUL; `None` where
/// `ovl_get_redirect_xattr` answers `EINVAL`: empty, a relative path of more
/// than one name, or an empty name in an absolute one.
pub(super) fn parse(value: &[u8]) -> Option<&[u8]> {
    if value.is_empty() {
        return None;
    }
    let value = value.split(|&byte| byte == 0).next().unwrap_or(value);
    let valid = match value.strip_prefix(b"/") {
        Some(path) => path
            .split(|&byte| byte == b'/')
            .all(|name| !name.is_empty()),
        None => !value.contains(&b'/'),
    };
    valid.then_some(value)
}

/// Whether the kernel's lookup takes `name` (`lookup_noperm_common`): it
/// answers `EACCES` for "", "." and "..".
pub(super) fn is_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_forms() {
        let cases: [(&[u8], Option<&[u8]>); 12] = [
            (b"name", Some(b"name")),
            (b"/a", Some(b"/a")),
            (b"/a/b", Some(b"/a/b")),
            (b"..", Some(b"..")),
            (b"/a/..", Some(b"/a/..")),
            (b"a\0/b", Some(b"a")),
            (b"\0", Some(b"")),
            (b"", None),
            (b"a/b", None),
            (b"/", None),
            (b"//a", None),
            (b"/a/", None),
        ];
        for (value, expected) in cases {
            assert_eq!(parse(value), expected, "{value:?}");
        }
    }
}

//! What this process may do, found out once.

use rustix::thread::CapabilitySet;

use super::chain::Chain;
use super::MergeOptions;

/// What this process may do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access {
    /// Whether every file can be read, whatever its mode.
    pub(super) reads_all: bool,
    /// Whether `O_NOATIME` is allowed on every file.
    pub(super) noatime: bool,
    /// Whether the kernel lists `trusted.*` attributes to us.
    pub(super) trusted: bool,
}

impl Access {
    /// Asks the kernel.
    pub(super) fn probe() -> Self {
        let held = rustix::thread::capabilities(None)
            .map_or(CapabilitySet::empty(), |sets| sets.effective);
        // Capabilities of another user namespace than the first one reach only
        // the owners mapped into it, and never `trusted.*`: the kernel asks
        // capable(CAP_SYS_ADMIN), not ns_capable.
        let first = in_first_user_namespace();
        Self {
            reads_all: first
                && held.intersects(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH),
            noatime: first && held.contains(CapabilitySet::FOWNER),
            trusted: first && held.contains(CapabilitySet::SYS_ADMIN),
        }
    }

    /// Marks that cannot be seen cannot be followed: the user must know.
    pub(super) fn warn(&self, chain: &Chain, options: MergeOptions, warnings: &mut Vec<String>) {
        if self.trusted || options.userxattr || options.fuse_overlayfs || chain.layers() < 2 {
            return;
        }
        warnings.push(format!(
            "{}: trusted.overlay.* marks of the layers (opaque directories, redirects) cannot be \
             seen without CAP_SYS_ADMIN, so files that they hide may show; build as root, or with \
             userxattr if the store was written with user.overlay.* marks",
            chain.path(chain.layers() - 1).display()
        ));
    }
}

/// Without `/proc` there is no way to know, and then no container either.
fn in_first_user_namespace() -> bool {
    let Ok(map) = std::fs::read_to_string("/proc/self/uid_map") else {
        return true;
    };
    let mut fields = map.split_ascii_whitespace();
    fields.next() == Some("0") && fields.next() == Some("0") && fields.next() == Some("4294967295")
}

//! One name in a merged directory, where redirects or metacopy files are met:
//! `ovl_lookup` of the kernel, step by step. (Without them the merge needs no
//! search: see [`super::merge`].)

use super::entry::Flags;
use super::redirect;
use super::scanned::{EntryId, Scan};

/// An entry and the directory that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) directory: u32,
    pub(super) entry: EntryId,
}

/// What a name is in the merged view.
#[derive(Debug)]
pub(super) enum Resolved {
    /// Nothing.
    Absent,
    /// What the topmost hit is; a regular file has the data of `data`.
    Other { top: Hit, data: Hit },
    /// A directory: its topmost hit, and all directories merged, top first.
    Directory { top: Hit, members: Vec<u32> },
}

/// A mark that the kernel answers with an error, and why.
#[derive(Debug)]
pub(super) struct Corrupt {
    pub(super) at: Hit,
    pub(super) reason: String,
}

/// `struct ovl_lookup_data`.
struct Search<'a> {
    scan: &'a Scan,
    /// The name in this directory's layers below, or the path in them.
    name: Vec<u8>,
    /// Who bears the redirect that made `name`.
    redirected: Option<Hit>,
    is_dir: bool,
    stop: bool,
    last: bool,
    metacopy: bool,
}

/// Looks `name` up in a directory merged from `stack`, top first. `roots` are
/// the roots of all layers, top first; in the root itself they are `stack`.
pub(super) fn lookup(
    scan: &Scan,
    userxattr: bool,
    stack: &[u32],
    roots: &[u32],
    name: &[u8],
) -> Result<Resolved, Corrupt> {
    let mut search = Search {
        scan,
        name: name.to_vec(),
        redirected: None,
        is_dir: false,
        stop: false,
        last: false,
        metacopy: false,
    };
    let layer = |directory: u32| scan.directories.get(directory).layer;
    let mut stack = stack;
    let mut top = None;
    let mut members = Vec::new();
    let mut data = None;
    let mut at = 0;
    while !search.stop && at < stack.len() {
        let base = stack[at];
        // Where redirects are not followed a mark in the parent's last layer
        // is not even looked at; else only one in the bottom layer is not.
        search.last = if userxattr {
            at + 1 == stack.len()
        } else {
            layer(base) == 0
        };
        let found = search.layer(base)?;
        at += 1;
        let Some(hit) = found else {
            continue;
        };
        top.get_or_insert(hit);
        let entry = scan.entry(hit.entry);
        if entry.is_directory() {
            members.push(entry.link);
        } else if search.metacopy && entry.has(Flags::METACOPY_BAD) {
            return Err(corrupt(hit, "its overlay.metacopy has no valid form"));
        } else {
            data = (!search.metacopy).then_some(hit);
        }
        if userxattr && search.redirected.is_some() {
            return Err(corrupt(
                hit,
                "it has a user.overlay.redirect, which the kernel refuses to follow (EPERM)",
            ));
        }
        if search.stop {
            break;
        }
        if search.redirected.is_some() && search.name.first() == Some(&b'/') && stack != roots {
            // An absolute path is looked up in every layer below this one, not
            // only in those that have the parent.
            stack = roots;
            at = roots
                .iter()
                .position(|&root| layer(root) < layer(base))
                .unwrap_or(roots.len());
        }
    }
    let Some(top) = top else {
        return Ok(Resolved::Absent);
    };
    if !members.is_empty() {
        return Ok(Resolved::Directory { top, members });
    }
    let Some(data) = data else {
        return Err(corrupt(
            top,
            "it is a metacopy file, and no layer below has its data (the kernel answers EIO)",
        ));
    };
    let (said, real) = (scan.entry(top.entry).size, scan.entry(data.entry).size);
    if top != data && said != real {
        return Err(corrupt(
            top,
            &format!("it is a metacopy file of {said} bytes, but its data has {real} bytes"),
        ));
    }
    Ok(Resolved::Other { top, data })
}

fn corrupt(at: Hit, reason: &str) -> Corrupt {
    Corrupt {
        at,
        reason: reason.into(),
    }
}

impl Search<'_> {
    /// `ovl_lookup_layer`: the name, or each name of the path, in one layer.
    fn layer(&mut self, base: u32) -> Result<Option<Hit>, Corrupt> {
        if self.name.first() != Some(&b'/') {
            let name = self.name.clone();
            return self.single(base, &name, 0, b"");
        }
        // Counted from the end, for what lies before may be renamed on the way.
        let mut rest = self.name.len() - 1;
        let mut base = base;
        loop {
            let name = self.name.clone();
            let start = name.len() - rest;
            let len = name[start..]
                .iter()
                .position(|&byte| byte == b'/')
                .unwrap_or(rest);
            let (this, post) = name[start..].split_at(len);
            let found = self.single(base, this, start, post)?;
            let Some(hit) = found else {
                return Ok(None);
            };
            if post.is_empty() {
                return Ok(Some(hit));
            }
            let entry = self.scan.entry(hit.entry);
            if !entry.is_directory() {
                return Ok(None);
            }
            base = entry.link;
            rest -= len + 1;
        }
    }

    /// `ovl_lookup_single`: one name in one directory of one layer. `prefix` is
    /// the length of the path before it, `post` the path after it.
    fn single(
        &mut self,
        base: u32,
        name: &[u8],
        prefix: usize,
        post: &[u8],
    ) -> Result<Option<Hit>, Corrupt> {
        let last_name = post.is_empty();
        if !redirect::is_name(name) {
            if let Some(at) = self.redirected {
                return Err(corrupt(
                    at,
                    "its overlay.redirect leads through \".\", \"..\" or an empty name \
                     (the kernel answers EACCES)",
                ));
            }
        }
        let Some(id) = self.scan.find(base, name) else {
            return Ok(None);
        };
        let hit = Hit {
            directory: base,
            entry: id,
        };
        let entry = self.scan.entry(id);
        if entry.has(Flags::WHITEOUT) {
            self.stop = true;
            return Ok(None);
        }
        let is_file = entry.kind() == super::entry::Type::File;
        if last_name && self.metacopy && !is_file {
            self.stop = true;
            return Ok(None);
        }
        if entry.is_directory() {
            if last_name {
                self.is_dir = true;
            }
            if self.last {
                return Ok(Some(hit));
            }
            if self.scan.is_opaque(entry) {
                self.stop = true;
                return Ok(Some(hit));
            }
        } else {
            if self.is_dir || !last_name {
                self.stop = true;
                return Ok(None);
            }
            self.metacopy = entry.has(Flags::METACOPY);
            self.stop = !self.metacopy;
            if !self.metacopy || self.last {
                return Ok(Some(hit));
            }
        }
        self.redirect(hit, prefix, post)?;
        Ok(Some(hit))
    }

    /// `ovl_check_redirect`: how the rest is called in the layers below.
    fn redirect(&mut self, hit: Hit, prefix: usize, post: &[u8]) -> Result<(), Corrupt> {
        let Some(value) = self.scan.redirect(hit.entry) else {
            return Ok(());
        };
        let value = redirect::parse(value).ok_or_else(|| corrupt(hit, redirect::INVALID))?;
        let mut name = Vec::with_capacity(prefix + value.len() + post.len());
        if value.first() == Some(&b'/') {
            // A directory further up may have been opaque; the redirect leads
            // elsewhere, so the search goes on.
            self.stop = false;
        } else {
            name.extend_from_slice(&self.name[..prefix]);
        }
        name.extend_from_slice(value);
        name.extend_from_slice(post);
        self.name = name;
        self.redirected = Some(hit);
        Ok(())
    }
}

//! Clones a file: by reflink where the file systems can, else by
//! `copy_file_range` over the parts with data, else by reading and writing
//! them. Holes stay holes in every way.

use std::fs::File;
use std::path::Path;

use rustix::io::Errno;

use super::{next_data, read_exact_at, write_all_at, NextData};
use crate::control::{Control, Phase};
use crate::error::{Error, Result};
use crate::sized::demand_empty;

/// Bytes for one `copy_file_range`: long enough for the kernel to work at its
/// pace, short enough that a stop is heard soon.
const STEP: u64 = 16 << 20;
/// Bytes for one read and write.
const BUFFER: usize = 1 << 20;
/// What is zero in stretches of this length becomes a hole.
const GRAIN: usize = 4096;

/// How the bytes came over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloneMethod {
    /// Both files share their blocks until one is written to.
    Reflink,
    /// The kernel copied.
    CopyFileRange,
    /// They were read and written.
    ReadWrite,
}

impl CloneMethod {
    /// The name used in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reflink => "reflink",
            Self::CopyFileRange => "copy_file_range",
            Self::ReadWrite => "read+write",
        }
    }
}

/// What a clone did.
#[derive(Clone, Debug)]
pub struct CloneReport {
    /// How.
    pub method: CloneMethod,
    /// Why not a faster way: one sentence for each way that was refused.
    pub reasons: Vec<String>,
    /// Bytes that are shared now.
    pub bytes_cloned: u64,
    /// Bytes that were copied.
    pub bytes_copied: u64,
    /// Bytes that are holes in the clone.
    pub holes: u64,
}

/// Clones `source` into `output`, which is empty and open for writing. The
/// paths are for messages. On an error the output's content is undefined.
pub fn clone_file(
    source: &File,
    source_path: &Path,
    output: &File,
    output_path: &Path,
    control: &Control,
) -> Result<CloneReport> {
    let before = rustix::fs::fstat(source).map_err(Error::io("look at", source_path))?;
    let size = u64::try_from(before.st_size).unwrap_or(0);
    if size == 0 {
        demand_empty(source, source_path)?;
    }
    control.begin(Phase::Write, size);
    let mut copy = Copy {
        source,
        source_path,
        output,
        output_path,
        control,
        report: CloneReport {
            method: CloneMethod::Reflink,
            reasons: Vec::new(),
            bytes_cloned: 0,
            bytes_copied: 0,
            holes: 0,
        },
        buffer: Vec::new(),
    };
    copy.run(size)?;
    let after = rustix::fs::fstat(source).map_err(Error::io("look at", source_path))?;
    if (before.st_size, before.st_mtime, before.st_mtime_nsec)
        != (after.st_size, after.st_mtime, after.st_mtime_nsec)
    {
        return Err(Error::LayerChanged {
            path: source_path.to_path_buf(),
            reason: "it was written to while it was cloned".into(),
        });
    }
    Ok(copy.report)
}

struct Copy<'a> {
    source: &'a File,
    source_path: &'a Path,
    output: &'a File,
    output_path: &'a Path,
    control: &'a Control,
    report: CloneReport,
    buffer: Vec<u8>,
}

impl Copy<'_> {
    fn run(&mut self, size: u64) -> Result<()> {
        match rustix::fs::ioctl_ficlone(self.output, self.source) {
            Ok(()) => {
                self.report.bytes_cloned = size;
                self.control.advance(size);
                return Ok(());
            }
            // The disk is full or fails: no other way would fare better.
            Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::IO)) => {
                return Err(Error::io("clone into", self.output_path)(error));
            }
            Err(error) => self.refused("reflink", error),
        }
        self.report.method = CloneMethod::CopyFileRange;
        self.output
            .set_len(size)
            .map_err(Error::io("size", self.output_path))?;
        let mut at = 0;
        while at < size {
            self.control.check()?;
            let (start, end) = self.next_data(at, size)?;
            self.report.holes += start - at;
            self.control.advance(start - at);
            self.copy(start, end)?;
            at = end;
        }
        Ok(())
    }

    fn refused(&mut self, way: &str, error: Errno) {
        // "Operation not supported (os error 95)": the number tells people nothing.
        let text = std::io::Error::from(error).to_string();
        let text = text.split(" (os error").next().unwrap_or(&text);
        self.report.reasons.push(format!("no {way}: {text}"));
    }

    /// The next part with data at or behind `at`; empty at the end.
    fn next_data(&self, at: u64, size: u64) -> Result<(u64, u64)> {
        let next = next_data(self.source, at, size)
            .map_err(Error::io("find the holes of", self.source_path))?;
        Ok(match next {
            NextData::Part(start, end) => (start, end),
            NextData::Nothing => (size, size),
            NextData::Unknown => (at, size),
        })
    }

    fn copy(&mut self, mut at: u64, end: u64) -> Result<()> {
        while at < end && self.report.method == CloneMethod::CopyFileRange {
            self.control.check()?;
            let (mut from, mut to) = (at, at);
            let len = usize::try_from(STEP.min(end - at)).unwrap_or(usize::MAX);
            let copied = rustix::fs::copy_file_range(
                self.source,
                Some(&mut from),
                self.output,
                Some(&mut to),
                len,
            );
            match copied {
                // Cut off meanwhile, or a kernel that says 0 where it cannot
                // (5.3 to 5.18 on some file systems): reading will tell.
                Ok(0) => self.report.method = CloneMethod::ReadWrite,
                Ok(count) => {
                    at += count as u64;
                    self.report.bytes_copied += count as u64;
                    self.control.advance(count as u64);
                }
                Err(Errno::INTR) => {}
                Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::IO | Errno::FBIG)) => {
                    return Err(Error::io("write", self.output_path)(error));
                }
                Err(error) => {
                    self.refused("copy_file_range", error);
                    self.report.method = CloneMethod::ReadWrite;
                }
            }
        }
        self.read_and_write(at, end)
    }

    fn read_and_write(&mut self, mut at: u64, end: u64) -> Result<()> {
        if at < end {
            self.buffer.resize(BUFFER, 0);
        }
        while at < end {
            self.control.check()?;
            let len = usize::try_from(end - at).unwrap_or(usize::MAX).min(BUFFER);
            read_exact_at(self.source, &mut self.buffer[..len], at)
                .map_err(|fault| fault.into_error(end, || self.source_path.to_path_buf()))?;
            self.write_but_zeros(len, at)?;
            at += len as u64;
            self.control.advance(len as u64);
        }
        Ok(())
    }

    /// Writes the first `len` bytes of the buffer, without stretches of zeros.
    fn write_but_zeros(&mut self, len: usize, at: u64) -> Result<()> {
        let data = &self.buffer[..len];
        let is_zero = |grain: usize| {
            data[grain * GRAIN..len.min((grain + 1) * GRAIN)]
                .iter()
                .all(|&byte| byte == 0)
        };
        let grains = len.div_ceil(GRAIN);
        let mut grain = 0;
        while grain < grains {
            let first = grain;
            let zero = is_zero(grain);
            while grain < grains && is_zero(grain) == zero {
                grain += 1;
            }
            let (start, end) = (first * GRAIN, len.min(grain * GRAIN));
            if zero {
                self.report.holes += (end - start) as u64;
            } else {
                write_all_at(
                    self.output,
                    &data[start..end],
                    at + start as u64,
                    self.output_path,
                )?;
                self.report.bytes_copied += (end - start) as u64;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, MetadataExt};
    use std::path::PathBuf;

    struct Scratch(PathBuf);

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn scratch(name: &str) -> Scratch {
        let path =
            std::env::temp_dir().join(format!("layermelt-clone-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn sparse(path: &Path) -> File {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path);
        let file = file.unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(&vec![7; 300_000], 5 << 20).unwrap();
        file.write_all_at(b"end", (64 << 20) - 3).unwrap();
        file
    }

    fn new(path: &Path) -> File {
        File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .unwrap()
    }

    #[test]
    fn keeps_bytes_and_holes() {
        let dir = scratch("holes");
        let (from, to) = (dir.0.join("from"), dir.0.join("to"));
        let source = sparse(&from);
        let output = new(&to);
        let report = clone_file(&source, &from, &output, &to, &Control::default()).unwrap();
        assert!(std::fs::read(&from).unwrap() == std::fs::read(&to).unwrap());
        assert_eq!(
            report.bytes_cloned + report.bytes_copied + report.holes,
            64 << 20
        );
        assert!(
            output.metadata().unwrap().blocks() * 512 < 2 << 20,
            "{report:?}"
        );
    }

    #[test]
    fn reading_and_writing_makes_holes_of_zeros() {
        let dir = scratch("zeros");
        let (from, to) = (dir.0.join("from"), dir.0.join("to"));
        let source = sparse(&from);
        let output = new(&to);
        output.set_len(64 << 20).unwrap();
        let control = Control::default();
        let mut copy = Copy {
            source: &source,
            source_path: &from,
            output: &output,
            output_path: &to,
            control: &control,
            report: CloneReport {
                method: CloneMethod::ReadWrite,
                reasons: Vec::new(),
                bytes_cloned: 0,
                bytes_copied: 0,
                holes: 0,
            },
            buffer: Vec::new(),
        };
        copy.copy(0, 64 << 20).unwrap();
        assert!(std::fs::read(&from).unwrap() == std::fs::read(&to).unwrap());
        assert!(copy.report.bytes_copied < 400_000, "{:?}", copy.report);
        assert!(output.metadata().unwrap().blocks() * 512 < 2 << 20);
    }

    #[test]
    fn a_stop_is_heard() {
        let dir = scratch("stop");
        let (from, to) = (dir.0.join("from"), dir.0.join("to"));
        let source = sparse(&from);
        let control = Control::default();
        control.stop();
        let result = clone_file(&source, &from, &new(&to), &to, &control);
        // Only a reflink is over before it is asked.
        assert!(matches!(result, Err(Error::Interrupted) | Ok(_)));
        if let Ok(report) = result {
            assert_eq!(report.method, CloneMethod::Reflink);
        }
    }
}

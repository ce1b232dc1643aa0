//! What the kernel looks at before it runs a program: the ELF header and the
//! program headers. Everything is foreign input.

/// A program is read by its bytes from an offset on.
pub(super) trait Bytes {
    /// Fills `out` from `offset` on; `false` when the file ends before.
    fn read(&mut self, offset: u64, out: &mut [u8]) -> crate::Result<bool>;
}

/// What an ELF file is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Machine {
    /// `EI_CLASS`: 1 is 32, 2 is 64 bits.
    class: u8,
    /// `EI_DATA`: 1 is little-endian, 2 big-endian.
    order: u8,
    /// `e_machine`.
    number: u16,
}

impl Machine {
    /// As people call it.
    pub(super) fn name(self) -> String {
        let name = match self.number {
            3 => "x86",
            8 => "MIPS",
            20 => "PowerPC",
            21 => "PowerPC64",
            22 => "S390",
            40 => "ARM",
            43 => "SPARC V9",
            62 => "x86-64",
            183 => "AArch64",
            243 => "RISC-V",
            258 => "LoongArch",
            other => return format!("ELF machine {other} ({})", self.form()),
        };
        format!("{name} ({})", self.form())
    }

    fn form(self) -> String {
        let bits = if self.class == 1 { 32 } else { 64 };
        let order = if self.order == 1 { "little" } else { "big" };
        format!("{bits} bits, {order}-endian")
    }
}

/// An ELF program or library.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) machine: Machine,
    /// `PT_INTERP`, without its NUL.
    pub(super) interpreter: Option<Vec<u8>>,
}

/// What a file turned out to be.
#[derive(Debug)]
pub(super) enum Kind {
    /// Something the kernel's ELF loader takes.
    Program(Program),
    /// It begins with `#!` and names this interpreter.
    Script(Vec<u8>),
    /// Neither, and why not.
    Neither(&'static str),
}

const MAGIC: &[u8] = b"\x7fELF";
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const PT_INTERP: u32 = 3;
/// `load_elf_phdrs` takes no longer table.
const MOST_HEADERS: u64 = 65_536;
/// `load_elf_binary` takes no longer interpreter.
const PATH_MAX: u64 = 4096;
/// `BINPRM_BUF_SIZE`: what `load_script` sees.
const SCRIPT: usize = 256;

/// Looks at a file as `exec` does.
pub(super) fn look(file: &mut dyn Bytes) -> crate::Result<Kind> {
    let size = readable(file, SCRIPT)?;
    let mut start = vec![0; size];
    file.read(0, &mut start)?;
    if let Some(line) = start.strip_prefix(b"#!") {
        return Ok(script(line, size == SCRIPT));
    }
    if !start.starts_with(MAGIC) {
        return Ok(Kind::Neither("is neither an ELF program nor a #! script"));
    }
    program(file, &start)
}

/// How many bytes there are, at most `most`.
fn readable(file: &mut dyn Bytes, most: usize) -> crate::Result<usize> {
    let (mut low, mut high) = (0, most);
    while low < high {
        let middle = (low + high).div_ceil(2);
        if file.read(0, &mut vec![0; middle])? {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    Ok(low)
}

/// The rules of the kernel's `load_script`.
fn script(line: &[u8], cut: bool) -> Kind {
    let end = line.iter().position(|&byte| byte == b'\n');
    let whole = end.is_some() || !cut;
    let line = &line[..end.unwrap_or(line.len())];
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let from = line
        .iter()
        .position(|byte| !blank(byte))
        .unwrap_or(line.len());
    let rest = &line[from..];
    let ends = rest.iter().position(|byte| blank(byte) || *byte == 0);
    match ends {
        // Without an end in sight it may be cut off.
        None if !whole => {
            Kind::Neither("names an interpreter of more than 250 bytes in its #! line")
        }
        _ if rest.is_empty() || ends == Some(0) => {
            Kind::Neither("names no interpreter in its #! line")
        }
        _ => Kind::Script(rest[..ends.unwrap_or(rest.len())].to_vec()),
    }
}

/// A number of the file's own byte order.
struct Numbers {
    big: bool,
}

impl Numbers {
    fn get(&self, bytes: &[u8], at: usize, len: usize) -> u64 {
        let field = &bytes[at..at + len];
        let join = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        if self.big {
            field.iter().fold(0, join)
        } else {
            field.iter().rev().fold(0, join)
        }
    }

    fn short(&self, bytes: &[u8], at: usize) -> u16 {
        // OK to convert: two bytes.
        self.get(bytes, at, 2) as u16
    }
}

fn program(file: &mut dyn Bytes, start: &[u8]) -> crate::Result<Kind> {
    const CUT: Kind = Kind::Neither("is an ELF file that is cut off");
    if start.len() < 64 {
        return Ok(CUT);
    }
    let (class, order) = (start[4], start[5]);
    if !matches!(class, 1 | 2) || !matches!(order, 1 | 2) {
        return Ok(Kind::Neither(
            "is an ELF file of an unknown class or byte order",
        ));
    }
    let numbers = Numbers { big: order == 2 };
    if !matches!(numbers.short(start, 16), ET_EXEC | ET_DYN) {
        return Ok(Kind::Neither(
            "is an ELF file, but no program (e_type is neither ET_EXEC nor ET_DYN)",
        ));
    }
    // Elf32_Ehdr and Elf64_Ehdr: offsets of e_phoff and e_phentsize; length of a header; in it,
    // p_offset and p_filesz.
    let (phoff, phentsize, len, offset_at, filesz_at, wide) = if class == 1 {
        (28, 42, 32, 4, 16, 4)
    } else {
        (32, 54, 56, 8, 32, 8)
    };
    let table = numbers.get(start, phoff, wide);
    let count = u64::from(numbers.short(start, phentsize + 2));
    let bytes = count * len as u64;
    if usize::from(numbers.short(start, phentsize)) != len || bytes == 0 || bytes > MOST_HEADERS {
        return Ok(Kind::Neither(
            "is an ELF file, but no program (it has no valid program headers)",
        ));
    }
    // OK to convert: at most 64 KiB.
    let mut headers = vec![0; bytes as usize];
    if !file.read(table, &mut headers)? {
        return Ok(CUT);
    }
    let machine = Machine {
        class,
        order,
        number: numbers.short(start, 18),
    };
    let found = headers
        .chunks_exact(len)
        .find(|header| numbers.get(header, 0, 4) == u64::from(PT_INTERP));
    let Some(header) = found else {
        return Ok(Kind::Program(Program {
            machine,
            interpreter: None,
        }));
    };
    let size = numbers.get(header, filesz_at, wide);
    if !(2..=PATH_MAX).contains(&size) {
        return Ok(Kind::Neither(
            "is an ELF program whose interpreter's path is too short or too long",
        ));
    }
    // OK to convert: at most PATH_MAX.
    let mut path = vec![0; size as usize];
    if !file.read(numbers.get(header, offset_at, wide), &mut path)? {
        return Ok(CUT);
    }
    if path.pop() != Some(0) {
        return Ok(Kind::Neither(
            "is an ELF program whose interpreter's path has no end",
        ));
    }
    // The kernel takes it for a string of C.
    let end = path.iter().position(|&byte| byte == 0);
    path.truncate(end.unwrap_or(path.len()));
    Ok(Kind::Program(Program {
        machine,
        interpreter: Some(path),
    }))
}

#[cfg(test)]
#[path = "elf_tests.rs"]
pub(super) mod tests;

//! Tests of the reading of ELF headers.

use super::*;

impl Bytes for &[u8] {
    fn read(&mut self, offset: u64, out: &mut [u8]) -> crate::Result<bool> {
        let found = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(out.len())?));
        if let Some(found) = found {
            out.copy_from_slice(found);
        }
        Ok(found.is_some())
    }
}

/// An ELF file with its program headers, of either class and order.
pub(crate) fn elf(class: u8, big: bool, machine: u16, interpreter: Option<&str>) -> Vec<u8> {
    let mut out = vec![0u8; if class == 1 { 52 } else { 64 }];
    let put = |out: &mut Vec<u8>, at: usize, len: usize, value: u64| {
        let bytes = value.to_le_bytes();
        for place in 0..len {
            out[at + place] = if big {
                bytes[len - 1 - place]
            } else {
                bytes[place]
            };
        }
    };
    out[..4].copy_from_slice(MAGIC);
    out[4] = class;
    out[5] = if big { 2 } else { 1 };
    put(&mut out, 16, 2, 2);
    put(&mut out, 18, 2, u64::from(machine));
    let (phoff, phentsize, len, offset_at, filesz_at, wide) = if class == 1 {
        (28, 42, 32, 4, 16, 4)
    } else {
        (32, 54, 56, 8, 32, 8)
    };
    let start = out.len();
    put(&mut out, phoff, wide, start as u64);
    put(&mut out, phentsize, 2, len as u64);
    put(&mut out, phentsize + 2, 2, 2);
    out.resize(start + 2 * len, 0);
    // A PT_LOAD comes first.
    put(&mut out, start, 4, 1);
    if let Some(interpreter) = interpreter {
        let at = out.len();
        put(&mut out, start + len, 4, 3);
        put(&mut out, start + len + offset_at, wide, at as u64);
        put(
            &mut out,
            start + len + filesz_at,
            wide,
            interpreter.len() as u64 + 1,
        );
        out.extend_from_slice(interpreter.as_bytes());
        out.push(0);
    }
    out.resize(out.len().max(128), 0);
    out
}

fn looked(bytes: &[u8]) -> Kind {
    look(&mut { bytes }).unwrap()
}

fn refused(bytes: &[u8]) -> &'static str {
    match looked(bytes) {
        Kind::Neither(reason) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn programs_of_every_form() {
    for class in [1, 2] {
        for big in [false, true] {
            for interpreter in [None, Some("/lib/ld.so")] {
                let Kind::Program(program) = looked(&elf(class, big, 183, interpreter)) else {
                    panic!("no program")
                };
                let machine = Machine {
                    class,
                    order: if big { 2 } else { 1 },
                    number: 183,
                };
                assert_eq!(program.machine, machine);
                assert_eq!(
                    program.interpreter.as_deref(),
                    interpreter.map(str::as_bytes)
                );
            }
        }
    }
    let Kind::Program(program) = looked(&elf(2, false, 62, None)) else {
        panic!("no program")
    };
    assert_eq!(program.machine.name(), "x86-64 (64 bits, little-endian)");
}

#[test]
fn what_is_no_program() {
    let good = elf(2, false, 62, Some("/lib/ld.so"));
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    assert!(refused(b"").contains("neither"));
    assert!(refused(b"text").contains("neither"));
    assert!(refused(&with(0, 0)).contains("neither"));
    assert!(refused(&with(4, 3)).contains("class"));
    assert!(refused(&with(5, 0)).contains("class"));
    for kind in [0, 1, 4] {
        assert!(refused(&with(16, kind)).contains("e_type"));
    }
    assert!(matches!(looked(&with(16, 3)), Kind::Program(_)));
    // e_phnum, e_phentsize.
    assert!(refused(&with(56, 0)).contains("headers"));
    assert!(refused(&with(57, 255)).contains("headers"));
    assert!(refused(&with(54, 55)).contains("headers"));
    // e_phoff far away: no overflow.
    assert!(refused(&with(39, 0xff)).contains("cut off"));
    assert!(refused(&good[..40]).contains("cut off"));
    assert!(refused(&good[..100]).contains("cut off"));
    // p_filesz, p_offset and the path's end.
    let header = 64 + 56;
    assert!(refused(&with(header + 32, 1)).contains("too short"));
    assert!(refused(&with(header + 34, 1)).contains("too long"));
    assert!(refused(&with(header + 15, 0xff)).contains("cut off"));
    assert!(refused(&with(64 + 2 * 56 + 10, b'x')).contains("no end"));
}

#[test]
fn scripts() {
    let interpreter = |text: &str| match looked(text.as_bytes()) {
        Kind::Script(path) => String::from_utf8(path).unwrap(),
        other => panic!("{text:?}: {other:?}"),
    };
    assert_eq!(interpreter("#!/bin/sh\nexit\n"), "/bin/sh");
    assert_eq!(interpreter("#! \t/bin/sh -e x\n"), "/bin/sh");
    assert_eq!(interpreter("#!/bin/sh"), "/bin/sh");
    assert_eq!(interpreter("#!/bin/sh\0more\n"), "/bin/sh");
    let long = format!("#!/{}\n", "x".repeat(252));
    assert_eq!(interpreter(&long).len(), 253);
    assert!(refused(format!("#!/{}\n", "x".repeat(300)).as_bytes()).contains("250"));
    assert!(refused(b"#!").contains("no interpreter"));
    assert!(refused(b"#! \n/bin/sh\n").contains("no interpreter"));
    // An argument may be cut off.
    assert_eq!(
        interpreter(&format!("#!/bin/sh {}\n", "x".repeat(300))),
        "/bin/sh"
    );
}

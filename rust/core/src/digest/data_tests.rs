use super::*;
use crate::blockio::changing::Changing;

fn digest_of(bytes: &[u8], threads: usize) -> Digest {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path =
        std::env::temp_dir().join(format!("layermelt-digest-{}-{number}", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    let digest = file_digest(&path, threads, &Control::default());
    std::fs::remove_file(&path).unwrap();
    digest.unwrap()
}

#[test]
fn threads_do_not_matter_and_every_byte_does() {
    let mut bytes: Vec<u8> = (0..9_000_001u32).map(|n| (n % 251) as u8).collect();
    let digest = digest_of(&bytes, 1);
    assert_eq!(digest, digest_of(&bytes, 3));
    for at in [0, 1 << 20, 8 << 20, 9_000_000] {
        bytes[at] ^= 1;
        assert_ne!(digest, digest_of(&bytes, 2), "byte {at}");
        bytes[at] ^= 1;
    }
    bytes.push(0);
    assert_ne!(digest, digest_of(&bytes, 2));
}

#[test]
fn sizes_of_zeros_differ() {
    let sizes = [0, 1, 1 << 20, (1 << 20) + 1, 2 << 20, (2 << 20) + 1];
    let digests: std::collections::HashSet<_> = sizes
        .iter()
        .map(|&size| digest_of(&vec![0; size], 2))
        .collect();
    assert_eq!(digests.len(), sizes.len());
}

/// A file of 8 EiB is a matter of one call in a container on xfs.
#[test]
fn holes_are_not_counted_through() {
    let mut tree = empty_tree();
    let content = tree.add_content(Content::Bytes(Box::default())).unwrap();
    let size = i64::MAX as u64;
    let part = |start, len| Extent { start, len };
    let map = [part(3, 1), part((7 << 40) - 1, 2), part(size - 5, 2)];
    let file = |data| Wanted {
        content,
        size,
        data: Some(data),
    };
    let files = [file(&map[..]), file(&map[..2]), file(&[])];
    let mut queue = Queue {
        files: &files,
        next: 0,
        chunk: 0,
    };
    let mut told = [0; 3];
    let mut touched = [const { Vec::new() }; 3];
    for turn in 0.. {
        let Some(portion) = queue.take() else { break };
        assert!(turn < 100, "it counts through them");
        let Portion::Chunks {
            file,
            chunks,
            skipped,
        } = portion
        else {
            panic!("they are large");
        };
        told[file] += skipped;
        for number in chunks {
            told[file] += CHUNK.min(size - number * CHUNK);
            if !is_hole(
                files[file].data.unwrap(),
                number * CHUNK,
                CHUNK.min(size - number * CHUNK),
            ) {
                touched[file].push(number);
            }
        }
    }
    assert_eq!(told, [size; 3]);
    let [first, middle, last] = [0, 7 << 20, (1 << 43) - 1];
    assert_eq!(
        touched,
        [
            vec![first, middle - 1, middle, last],
            vec![first, middle - 1, middle],
            vec![]
        ]
    );
}

#[test]
fn a_hole_is_zeros() {
    let path = std::env::temp_dir().join(format!("layermelt-hole-{}", std::process::id()));
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(5 << 20).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"x", 3 << 20).unwrap();
    let holed = file_digest(&path, 2, &Control::default()).unwrap();
    std::fs::remove_file(&path).unwrap();
    let mut bytes = vec![0; 5 << 20];
    bytes[3 << 20] = b'x';
    assert_eq!(holed, digest_of(&bytes, 1));
}

#[test]
fn a_file_that_changed_has_no_digest() {
    let path = std::env::temp_dir().join(format!("layermelt-changing-{}", std::process::id()));
    // Whole, in chunks, and cut off: the change is told, not the missing bytes.
    for (there, size) in [(5, 5), (CHUNK + 1, CHUNK + 1), (3, 5)] {
        std::fs::write(&path, vec![b'x'; there as usize]).unwrap();
        let mut tree = empty_tree();
        let content = tree.add_content(Content::Bytes(Box::default())).unwrap();
        let store = Changing(&path);
        let wanted = Wanted {
            content,
            size,
            data: None,
        };
        let found = digests(&tree, &store, &[wanted], 2, &Control::default());
        assert!(
            matches!(&found, Err(Error::LayerChanged { reason, .. }) if reason == "it changed"),
            "{found:?}"
        );
    }
    std::fs::remove_file(&path).unwrap();
}

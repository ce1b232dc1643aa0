//! Random chains, always the same ones: for what must hold whatever the
//! layers are like.

use super::support::Chain;

/// xorshift64*: enough for a choice of test cases.
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
    }
}

/// A chain of up to five layers over the same few names: directories (some
/// opaque), files, symlinks, whiteouts, hard links. No redirects.
pub(super) fn chain(seed: u64) -> Chain {
    let mut random = Random::new(seed);
    let layers = 2 + usize::try_from(random.below(4)).unwrap();
    let chain = Chain::new(layers);
    let mut files = Vec::new();
    for layer in 0..layers {
        fill(&chain, &mut random, layer, "", 0, &mut files);
    }
    chain
}

fn fill(
    chain: &Chain,
    random: &mut Random,
    layer: usize,
    directory: &str,
    depth: u32,
    files: &mut Vec<(usize, String)>,
) {
    for name in ["a", "b", "cc", "d", "e"] {
        let path = format!("{directory}{name}");
        match random.below(20) {
            0..=5 if depth < 4 => {
                chain.dir(layer, &path);
                fill(chain, random, layer, &format!("{path}/"), depth + 1, files);
                if random.below(6) == 0 {
                    chain.mark(layer, &path, "opaque", b"y");
                }
            }
            0..=8 => {
                let size = usize::try_from(random.below(40)).unwrap();
                chain.file(layer, &path, &"x".repeat(size));
                files.push((layer, path));
            }
            9 | 10 => {
                chain.whiteout(layer, &path);
            }
            11 => {
                chain.symlink(layer, &path, &"t".repeat(1 + name.len()));
                files.push((layer, path));
            }
            12 | 13 if !files.is_empty() => {
                let count = u64::try_from(files.len()).unwrap();
                let (from, file) = files[usize::try_from(random.below(count)).unwrap()].clone();
                chain.hard_link((from, &file), (layer, &path));
            }
            _ => {}
        }
    }
}

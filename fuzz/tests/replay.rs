//! The targets on a stable toolchain: the corpora, and seeded mutations of them. Bounded in rounds;
//! asserts that each target took and refused enough to mean something.

use std::fs;
use std::path::{Path, PathBuf};

use bulkhead_fuzz::Depth;

/// A small generator of our own: the same numbers on every machine (xorshift64*).
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let mixed = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(mixed).unwrap() % bound.max(1)
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

fn files(folder: &Path) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|f| f.unwrap().path())
        .collect();
    paths.sort();
    paths.into_iter().filter(|p| p.is_file()).map(|p| fs::read(p).unwrap()).collect()
}

/// Words worth splicing in: what has fooled mail software before.
const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b".",
    b"\r\n.\r\n",
    b"\n.\n",
    b"\r\n.\r",
    b"<",
    b">",
    b"@",
    b":",
    b" ",
    b"\t",
    b",",
    b"\"",
    b"\\",
    b"(",
    b")",
    b";",
    b"X-SES-",
    b"Bcc: a@b.example\r\n",
    b"From: a@b.example\r\n",
    b"DATA\r\n",
    b"QUIT\r\n",
    b"BDAT 5 LAST\r\n",
    b"RSET\r\n",
    b"STARTTLS\r\n",
    b"AUTH PLAIN ",
    b"SIZE=",
    b"\xc3\xbc",
    b"\xff",
    b"xn--",
    b"[127.0.0.1]",
    b"{",
    b"}",
    b"null",
    b"\\u0000",
    b"99999999999999999999",
];

fn mutate(seeds: &[Vec<u8>], random: &mut Seeded) -> Vec<u8> {
    let mut input = seeds[random.below(seeds.len())].clone();
    for _ in 0..random.below(4) {
        let at = random.below(input.len() + 1);
        match random.below(6) {
            0 => {
                input.splice(at..at, WORDS[random.below(WORDS.len())].iter().copied());
            }
            1 if at < input.len() => input[at] = u8::try_from(random.below(256)).unwrap(),
            2 => input.truncate(at),
            3 => {
                let end = (at + random.below(20)).min(input.len());
                input.drain(at..end);
            }
            4 => {
                let end = (at + random.below(200)).min(input.len());
                let piece = input[at..end].to_vec();
                input.splice(at..at, piece);
            }
            _ => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
        input.truncate(20_000);
    }
    input
}

fn replay(name: &str, mut seeds: Vec<Vec<u8>>, target: fn(&[u8]) -> Depth, rounds: usize, least: Depth) {
    let corpus = root().join("corpus").join(name);
    seeds.extend(files(&corpus));
    assert!(!seeds.is_empty());
    let mut total = Depth::default();
    let mut random = Seeded(0x9E37_79B9_7F4A_7C15);
    let mutated = (0..rounds).map(|_| mutate(&seeds, &mut random)).collect::<Vec<_>>();
    for input in seeds.iter().chain(&mutated) {
        let depth = target(input);
        total.taken += depth.taken;
        total.refused += depth.refused;
        total.spilled += depth.spilled;
    }
    println!("{name}: {} inputs, {total:?}", seeds.len() + mutated.len());
    assert!(total.taken >= least.taken, "{name} took only {}", total.taken);
    assert!(total.refused >= least.refused, "{name} refused only {}", total.refused);
    assert!(total.spilled >= least.spilled, "{name} spilled only {}", total.spilled);
}

const fn least(taken: usize, refused: usize) -> Depth {
    Depth { taken, refused, spilled: 0, ended: false }
}

#[test]
fn session() {
    replay("session", vec![], bulkhead_fuzz::session, 10_000, Depth { spilled: 2_000, ..least(4_000, 2_000) });
}

#[test]
fn data() {
    replay("data", vec![], bulkhead_fuzz::data, 20_000, Depth { spilled: 2_000, ..least(4_000, 4_000) });
}

#[test]
fn command() {
    replay("command", vec![], bulkhead_fuzz::command, 30_000, least(5_000, 5_000));
}

#[test]
fn mailbox() {
    replay("mailbox", vec![], bulkhead_fuzz::mailbox, 30_000, least(5_000, 5_000));
}

#[test]
fn header() {
    replay("header", vec![], bulkhead_fuzz::header, 10_000, least(5_000, 2_000));
}

#[test]
fn event() {
    let events = files(&root().join("../tests/events"));
    assert!(events.len() >= 60);
    replay("event", events, bulkhead_fuzz::event, 10_000, least(2_000, 2_000));
}

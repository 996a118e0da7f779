//! Mutated checkpoints: whatever the bytes of headers, indexes, configurations and data, a result or
//! an error that names its file, never a panic, and never more memory than the files explain.
//!
//! The short run is part of the tests. The long one is asked for by
//! `QTUNE_FUZZ_SECONDS=600 cargo test -p qtune-formats --release --test fuzz -- --ignored`; a seed that
//! fails is repeated by `QTUNE_FUZZ_SEED`.

use qtune_formats::Checkpoint;
use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// The system's allocator, keeping the largest single request.
struct Watched;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// Bytes that one allocation may take for each byte of the checkpoint: a 2-bit code becomes an f32
/// weight of 16 times its size, and a vector that grows doubles.
const BYTES_PER_BYTE: usize = 40;
/// Bytes that one allocation may take whatever the checkpoint: thread pools, messages.
const BYTES_FREE: usize = 1 << 20;

/// A generator of numbers (Marsaglia, "Xorshift RNGs", 2003).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// The files of a checkpoint: names and bytes.
type Files = Vec<(String, Vec<u8>)>;

/// Every golden checkpoint, without what its test expects.
fn corpus() -> Vec<Files> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden-checkpoints");
    let folders = |path: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(path).expect("golden checkpoints").flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths
    };
    let cases = folders(&root).into_iter().filter(|path| path.is_dir());
    let cases = cases.flat_map(|library| folders(&library)).filter(|path| path.is_dir());
    let file = |path: PathBuf| {
        let name = path.file_name()?.to_string_lossy().into_owned();
        let kept = path.is_file() && name != "expected.safetensors" && name != "manifest.json";
        kept.then(|| (name, fs::read(&path).expect("a golden file")))
    };
    cases.map(|case| folders(&case).into_iter().filter_map(file).collect()).collect()
}

/// Pieces of headers and configurations at the edge of what is allowed.
const PIECES: [&str; 20] = [
    "18446744073709551615",
    "9223372036854775807",
    "4294967296",
    "4294967295",
    "2147483648",
    "-1",
    "0",
    "1e999",
    "null",
    "[]",
    "{}",
    "[[[[[[[[",
    "\"I32\"",
    "\"F16\"",
    "\"U8\"",
    "\"\\u0000\"",
    "\"shape\":[4294967295,4294967295,4294967295]",
    "\"data_offsets\":[0,18446744073709551615]",
    "\"bits\":0",
    "\"group_size\":0",
];

/// Changes some bytes of one file. Small files and the heads of large ones, which hold what is
/// believed, are hit most.
fn mutate(random: &mut Random, files: &mut Files) {
    let index = random.below(files.len());
    let bytes = &mut files[index].1;
    for _ in 0..1 + random.below(4) {
        let head = if random.below(4) == 0 { bytes.len() } else { bytes.len().min(4096) };
        let at = random.below(head);
        match random.below(7) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            2 if at < bytes.len() => bytes[at] = random.next() as u8,
            3 => {
                let end = (at + 8).min(bytes.len());
                let word = [u64::MAX, 0, 1 << 63, random.next()][random.below(4)].to_le_bytes();
                bytes[at..end].copy_from_slice(&word[..end - at]);
            }
            4 => {
                let piece = PIECES[random.below(PIECES.len())].bytes();
                bytes.splice(at..at, piece);
            }
            5 => {
                let end = (at + random.below(16)).min(bytes.len());
                let piece = PIECES[random.below(PIECES.len())].bytes();
                bytes.splice(at..end, piece);
            }
            _ => digits(random, bytes, at),
        }
    }
}

/// Puts a number of the corpus of edges in the place of the next one in a text.
fn digits(random: &mut Random, bytes: &mut Vec<u8>, from: usize) {
    let Some(start) = bytes[from..].iter().position(u8::is_ascii_digit) else { return };
    let start = from + start;
    let length = bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let piece = PIECES[random.below(7)].bytes();
    bytes.splice(start..start + length, piece);
}

/// Opens a checkpoint and loads everything in it; what is wrong is an error of each step.
fn read(folder: &Path) {
    let opened = Checkpoint::open(folder);
    let checkpoint = match opened {
        Ok(checkpoint) => checkpoint,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    for layer in checkpoint.layers() {
        match checkpoint.load_layer(&layer.path) {
            Ok(loaded) => assert_eq!(loaded.dequantize().len(), loaded.n * loaded.k),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

/// One mutated checkpoint, from a seed.
fn case(corpus: &[Files], seed: u64) -> Result<(), String> {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    random.next();
    let mut files = corpus[random.below(corpus.len())].clone();
    mutate(&mut random, &mut files);
    let folder = tempfile::tempdir().expect("a folder");
    for (name, bytes) in &files {
        fs::write(folder.path().join(name), bytes).expect("a file");
    }
    let total: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    LARGEST.store(0, Ordering::Relaxed);
    let result = catch_unwind(AssertUnwindSafe(|| read(folder.path())));
    let largest = LARGEST.load(Ordering::Relaxed);
    if result.is_err() {
        return Err(format!("seed {seed}: a panic"));
    }
    match largest <= BYTES_FREE + BYTES_PER_BYTE * total {
        true => Ok(()),
        false => Err(format!("seed {seed}: {largest} bytes at once for files of {total}")),
    }
}

/// Cases from the seed in `QTUNE_FUZZ_SEED`, or from `first` on while `more` says so.
fn fuzz(first: u64, more: impl Fn(u64) -> bool) {
    let corpus = corpus();
    assert!(corpus.len() > 20 && corpus.iter().all(|files| !files.is_empty()));
    let given = std::env::var("QTUNE_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok());
    let (first, last) = given.map_or((first, u64::MAX), |seed: u64| (seed, seed + 1));
    let seeds = (first..last).take_while(|seed| given.is_some() || more(*seed));
    let failures: Vec<String> = seeds.filter_map(|seed| case(&corpus, seed).err()).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn mutated_checkpoints_give_results_or_errors() {
    fuzz(1, |seed| seed < 400);
}

#[test]
#[ignore = "runs for QTUNE_FUZZ_SECONDS"]
fn mutated_checkpoints_give_results_or_errors_for_long() {
    let seconds = std::env::var("QTUNE_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let (start, length) = (Instant::now(), Duration::from_secs(seconds.unwrap_or(60)));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock");
    fuzz(now.as_nanos() as u64, |_| start.elapsed() < length);
}

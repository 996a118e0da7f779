//! Which default schedules are counted.

use std::fmt;
use std::str::FromStr;

/// One default schedule: a GPU, a format, a shape and a number of tokens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Case {
    /// GPU name.
    pub gpu: String,
    /// Format name.
    pub format: String,
    /// Output features.
    pub n: u32,
    /// Input features.
    pub k: u32,
    /// Tokens.
    pub m: u32,
}

/// Formats of the table: zero-points, none, a codebook, and scales of two levels.
const FORMATS: [&str; 4] = ["awq-g128", "gptq-g128", "nf4-b64", "q4_k"];
/// Tokens at which families and tiles change.
const TOKENS: [u32; 8] = [1, 2, 8, 16, 32, 64, 128, 256];
/// The GPU that has limits.
pub const GPU: &str = "h200";
/// Other compile targets, for which a few cases must do: that nothing spills.
const OTHER_GPUS: [&str; 4] = ["a100", "l40s", "b200", "rtx5090"];
/// Shapes and tokens of those.
const OTHER_PRESET: &str = "llama-3.1-8b";
const OTHER_TOKENS: [u32; 4] = [1, 16, 64, 256];

/// Every case of the table, in its order.
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |gpu: &str, formats: &[&str], tokens: &[u32], shapes: &[(u32, u32)]| {
        for (format, &(n, k)) in product(formats, shapes) {
            let case = |&m: &u32| Case { gpu: gpu.into(), format: (*format).into(), n, k, m };
            cases.extend(tokens.iter().map(case));
        }
    };
    add(GPU, &FORMATS, &TOKENS, &shapes(|_| true));
    for gpu in OTHER_GPUS {
        add(gpu, &FORMATS[..1], &OTHER_TOKENS, &shapes(|preset| preset == OTHER_PRESET));
    }
    cases
}

fn product<'a, A, B>(a: &'a [A], b: &'a [B]) -> impl Iterator<Item = (&'a A, &'a B)> {
    a.iter().flat_map(move |a| b.iter().map(move |b| (a, b)))
}

/// The distinct fused shapes of presets, in order of first use.
fn shapes(wanted: impl Fn(&str) -> bool) -> Vec<(u32, u32)> {
    let mut shapes = Vec::new();
    for preset in qtune_formats::presets::PRESETS.iter().filter(|preset| wanted(preset.name)) {
        for matrix in preset.matrices() {
            if !shapes.contains(&(matrix.n, matrix.k)) {
                shapes.push((matrix.n, matrix.k));
            }
        }
    }
    shapes
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case { gpu, format, n, k, m } = self;
        write!(f, "{gpu} {format} {n}x{k} m{m}")
    }
}

impl FromStr for Case {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Case, anyhow::Error> {
        let parts: Vec<&str> = text.split(' ').collect();
        let parsed = match parts[..] {
            [gpu, format, shape, m] => shape.split_once('x').and_then(|(n, k)| {
                let m = m.strip_prefix('m')?.parse().ok()?;
                let (n, k) = (n.parse().ok()?, k.parse().ok()?);
                Some(Case { gpu: gpu.into(), format: format.into(), n, k, m })
            }),
            _ => None,
        };
        parsed.ok_or_else(|| anyhow::anyhow!("`{text}` is not a case"))
    }
}

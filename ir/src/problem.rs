//! The problem key: one struct says what a kernel is for, and prints the same everywhere.

use crate::{Arch, DType, Epilogue, WeightSpec};
use std::fmt;
use std::str::FromStr;

/// `C[M,N] = A[M,K] * W[N,K]^T (+ bias)` with quantized `W`, and an [`Epilogue`] on it.
///
/// `m` is the upper edge of the M bucket: a kernel for `m` serves every token count from 1 to `m`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Problem {
    /// Bits per weight code.
    pub bits: u8,
    /// Format name, resolved by the format registry.
    pub format: String,
    /// Element type of the activations A.
    pub act: DType,
    /// Bits in which activations are multiplied: 16, or 8 where the format's weights are multiplied
    /// as they are and a kernel quantizes the activations first (see [`crate::Activations`]).
    pub act_bits: u8,
    /// Element type of the output C.
    pub out: DType,
    /// Output features.
    pub n: u32,
    /// Input features.
    pub k: u32,
    /// Largest number of tokens.
    pub m: u32,
    /// Whether a bias of length N, in the output's element type, is added.
    pub bias: bool,
    /// What is done to the sum before it is stored.
    pub epilogue: Epilogue,
}

/// A problem key that does not parse, or sizes that no kernel is made for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProblemError {
    /// The text is not a problem key.
    #[error(
        "`{text}` is not a problem key ({why}); expected \
         w4a16.FORMAT.ACT-OUT.nN.kK.mM[+bias][+residual|+silu_mul], or w8a8"
    )]
    Syntax {
        /// The text given.
        text: String,
        /// The part that is wrong.
        why: String,
    },
    /// A dimension outside what the kernels index with 32 bits.
    #[error("{axis} = {value} is outside 1..={max}")]
    Size {
        /// `N`, `K` or `M`.
        axis: &'static str,
        /// The value given.
        value: u64,
        /// The largest value that is accepted.
        max: u64,
    },
    /// Gate and up projections by turns need as many of one as of the other.
    #[error("N = {n} is odd; +silu_mul takes rows in pairs of gate and up")]
    Unpaired {
        /// The number of rows.
        n: u32,
    },
}

/// Largest N and K: above any published model, small enough that byte offsets of the packed
/// weights of one row tile stay within 32 bits.
const DIM_MAX: u64 = 1 << 20;
/// Largest M bucket.
const TOKENS_MAX: u64 = 1 << 16;

impl Problem {
    /// The product of weights as `spec` has them with activations of `act`, stored as `out`, nothing
    /// else done to it. `sizes` are N, K and M, checked by [`Problem::check_sizes`].
    pub fn of(spec: &WeightSpec, [act, out]: [DType; 2], [n, k, m]: [u32; 3]) -> Problem {
        Problem {
            bits: spec.bits,
            format: spec.name.clone(),
            act,
            act_bits: spec.activations.bits(),
            out,
            n,
            k,
            m,
            bias: false,
            epilogue: Epilogue::Store,
        }
    }

    /// Checks the sizes; called by every entry point before anything is allocated.
    pub fn check_sizes(n: u64, k: u64, m: u64) -> Result<(), ProblemError> {
        let checks = [("N", n, DIM_MAX), ("K", k, DIM_MAX), ("M", m, TOKENS_MAX)];
        for (axis, value, max) in checks {
            if value == 0 || value > max {
                return Err(ProblemError::Size { axis, value, max });
            }
        }
        Ok(())
    }

    /// The key with the arch it is compiled for: `...m16@sm90a.132`.
    pub fn at(&self, arch: &Arch) -> String {
        format!("{self}@{}", arch.key())
    }

    /// The same weights and types with another M bucket.
    pub fn with_m(&self, m: u32) -> Problem {
        Problem { m, ..self.clone() }
    }

    /// The same product with another epilogue.
    ///
    /// # Errors
    /// [`ProblemError::Unpaired`] if the epilogue takes rows in pairs and N is odd.
    pub fn with_epilogue(self, epilogue: Epilogue) -> Result<Problem, ProblemError> {
        if self.n % epilogue.rows_per_column() != 0 {
            return Err(ProblemError::Unpaired { n: self.n });
        }
        Ok(Problem { epilogue, ..self })
    }

    /// The end of the key: what is done to the product, such as `+bias+residual`.
    pub fn suffixes(&self) -> String {
        let bias = if self.bias { "+bias" } else { "" };
        format!("{bias}{}", self.epilogue.suffix())
    }

    /// Columns of the output: N, or half of it where rows are paired.
    pub fn columns(&self) -> u32 {
        self.n / self.epilogue.rows_per_column()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "w{}a{}.{}.{}-{}.n{}.k{}.m{}",
            self.bits, self.act_bits, self.format, self.act, self.out, self.n, self.k, self.m
        )?;
        f.write_str(&self.suffixes())
    }
}

impl FromStr for Problem {
    type Err = ProblemError;

    fn from_str(text: &str) -> Result<Self, ProblemError> {
        let bad = |why: &str| ProblemError::Syntax { text: text.into(), why: why.into() };
        let (body, epilogue) = Epilogue::strip(text);
        let (body, bias) = match body.strip_suffix("+bias") {
            Some(body) => (body, true),
            None => (body, false),
        };
        let parts: Vec<&str> = body.split('.').collect();
        let [width, format, types, n, k, m] = parts[..] else {
            return Err(bad("six dot-separated parts"));
        };
        let widths = width.strip_prefix('w').and_then(|w| w.split_once('a'));
        let (bits, act_bits) = widths.ok_or_else(|| bad(width))?;
        let bits = bits.parse().map_err(|_| bad(width))?;
        let act_bits = match act_bits {
            "16" => 16,
            "8" => 8,
            _ => return Err(bad(width)),
        };
        let (act, out) = types.split_once('-').ok_or_else(|| bad(types))?;
        let dtype = |t: &str| t.parse::<DType>().map_err(|why| bad(&why));
        let dim = |t: &str, prefix: char| {
            t.strip_prefix(prefix).and_then(|t| t.parse::<u64>().ok()).ok_or_else(|| bad(t))
        };
        let (n, k, m) = (dim(n, 'n')?, dim(k, 'k')?, dim(m, 'm')?);
        Problem::check_sizes(n, k, m)?;
        let problem = Problem {
            bits,
            format: format.into(),
            act: dtype(act)?,
            act_bits,
            out: dtype(out)?,
            n: n as u32,
            k: k as u32,
            m: m as u32,
            bias,
            epilogue: Epilogue::Store,
        };
        problem.with_epilogue(epilogue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_print_and_parse_back() {
        for key in [
            "w4a16.awq-g128.f16-f16.n27648.k5120.m16",
            "w4a16.awq-ch.bf16-f32.n96.k64.m1+bias",
            "w8a8.int8-ch.bf16-bf16.n96.k64.m1+bias",
            "w4a16.awq-ch.bf16-f32.n96.k64.m1+residual",
            "w4a16.awq-ch.bf16-f32.n96.k64.m1+bias+silu_mul",
        ] {
            assert_eq!(key.parse::<Problem>().unwrap().to_string(), key);
        }
    }

    #[test]
    fn malformed_keys_name_the_part_that_is_wrong() {
        let why = |key: &str| key.parse::<Problem>().unwrap_err().to_string();
        assert!(why("w4a16.awq.f16-f16.n0.k5.m1").contains("N = 0"));
        assert!(why("w4a16.awq.f16-f17.n1.k5.m1").contains("f17"));
        assert!(why("awq").contains("six"));
        assert!(why("w8a4.awq.f16-f16.n1.k5.m1").contains("(w8a4)"));
        assert!(why("w4a16.awq.f16-f16.n1.k5.m1+silu_mul+bias").contains("m1+silu_mul"));
        assert!(why("w4a16.awq.f16-f16.n7.k5.m1+silu_mul").contains("N = 7 is odd"));
    }

    #[test]
    fn paired_rows_give_half_as_many_columns() {
        let key = "w4a16.awq-g128.f16-f16.n96.k128.m1";
        let columns = |suffix: &str| format!("{key}{suffix}").parse::<Problem>().unwrap().columns();
        assert_eq!(["", "+residual", "+silu_mul"].map(columns), [96, 96, 48]);
        assert_eq!(Epilogue::SiluMul.columns(32..64), 16..32);
    }
}

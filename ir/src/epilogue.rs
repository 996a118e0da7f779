//! What becomes of a product, and its bias, on the way to memory.

use std::fmt;
use std::ops::Range;

/// What is done to every element of `A * W^T (+ bias)` before it is stored.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Epilogue {
    /// Nothing.
    #[default]
    Store,
    /// A residual `R[M, N]` in the output's element type is added. It may be the output itself:
    /// each element is read by the thread that then writes it.
    Residual,
    /// Rows of `W` are gate and up projections by turns, row `2i` the gate and row `2i + 1` the up
    /// projection of feature `i`; the output is `[M, N/2]`, `silu(gate) * up` with
    /// `silu(g) = g / (1 + e^-g)`.
    SiluMul,
}

impl Epilogue {
    /// Every epilogue.
    pub const ALL: [Epilogue; 3] = [Epilogue::Store, Epilogue::Residual, Epilogue::SiluMul];

    /// What a problem key says of it: nothing for [`Epilogue::Store`].
    pub fn suffix(self) -> &'static str {
        match self {
            Epilogue::Store => "",
            Epilogue::Residual => "+residual",
            Epilogue::SiluMul => "+silu_mul",
        }
    }

    /// A problem key without its epilogue's suffix, and the epilogue.
    pub(crate) fn strip(key: &str) -> (&str, Epilogue) {
        let named = Epilogue::ALL.into_iter().filter(|epilogue| *epilogue != Epilogue::Store);
        named
            .filter_map(|epilogue| Some((key.strip_suffix(epilogue.suffix())?, epilogue)))
            .next()
            .unwrap_or((key, Epilogue::Store))
    }

    /// Rows of the weights that one output column takes.
    pub fn rows_per_column(self) -> u32 {
        match self {
            Epilogue::Store | Epilogue::Residual => 1,
            Epilogue::SiluMul => 2,
        }
    }

    /// The output columns that these rows of the weights give. Both ends are whole columns.
    pub fn columns(self, rows: Range<u32>) -> Range<u32> {
        rows.start / self.rows_per_column()..rows.end / self.rows_per_column()
    }
}

impl fmt::Display for Epilogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Epilogue::Store => "store",
            Epilogue::Residual => "residual",
            Epilogue::SiluMul => "silu_mul",
        })
    }
}

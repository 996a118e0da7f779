//! Scales that are floats of 8 bits, and the factor of all weights of a layer, which the layer brings.
//!
//! Sums and coefficients are those of the scales as they are packed. What a row has in the end is multiplied by
//! the factor, once for each output; where weights are complete at once, they are. Rows of two layers lie by
//! turns where outputs are gated: then even rows have another factor than odd ones.

use super::Lowering;
use crate::kir::{
    call, float, hex, int, load, select, var, Body, Buffer, Expr, Parameter, Space, Type,
};
use qtune_ir::ParamType;

/// The layer's factors, of even rows and of odd ones.
pub(super) const BUFFER: &str = "layer_factors";
/// Names of the two where they are bound.
const NAMES: [&str; 2] = ["even_factor", "odd_factor"];
/// What the bits of a float of 8 bits are less, moved under the exponent of f16: see
/// [`qtune_ir::dequant::e4m3`].
const MOVED: f64 = 256.0;

impl Lowering<'_> {
    /// Whether weights are packed without a factor that the layer brings.
    pub(super) fn has_factor(&self) -> bool {
        self.spec.has_layer_factor()
    }

    /// Whether the entries of group parameters are floats of 8 bits.
    pub(super) fn has_small_scales(&self) -> bool {
        self.layout.fields().iter().any(|field| field.dtype == ParamType::E4M3)
    }
}

/// The factors as a parameter.
pub(super) fn parameter() -> Parameter {
    let (space, element) = (Space::GlobalRead, Type::F32);
    Parameter::Buffer(Buffer { name: BUFFER.into(), space, element })
}

/// Binds the factors of even rows and odd ones, early: they take as long as weights to arrive.
pub(super) fn bind(cx: &Lowering, body: &mut Body) {
    if cx.has_factor() {
        for (parity, name) in (0u32..).zip(NAMES) {
            body.bind(name, Type::F32, of_row(cx, int(parity)));
        }
    }
}

/// The sum of row `row` times its factor. Of the rows by turns of a gated output the parity is known.
pub(super) fn applied(cx: &Lowering, sum: Expr, row: &Expr, parity: Option<u32>) -> Expr {
    if !cx.has_factor() {
        return sum;
    }
    let [even, odd] = NAMES.map(var);
    sum * match parity {
        Some(0) => even,
        Some(_) => odd,
        None => select((row.clone() % 2u32).equals(0u32), even, odd),
    }
}

/// The factor of the weights of a row that is even or odd, over what kernels make of the scales.
pub(super) fn of_row(cx: &Lowering, parity: Expr) -> Expr {
    match cx.has_small_scales() && !cx.arch.converts_float8() {
        true => load(BUFFER, parity) * float(MOVED),
        false => load(BUFFER, parity),
    }
}

/// The f16 of two floats of 8 bits, of the upper bytes of a word or of the lower ones; without the
/// instruction, over [`MOVED`].
pub(super) fn halves(cx: &Lowering, word: Expr, upper: bool) -> Expr {
    if cx.arch.converts_float8() {
        return call(if upper { "float8_high" } else { "float8_low" }, [word]);
    }
    // Each byte above one of zeros, then one bit down: scales have no sign.
    let selectors = if upper { 0x3424 } else { 0x1404 };
    call("permute", [word, hex(0), hex(selectors)]) >> 1u32
}

/// The float in a byte of a word, in f32.
pub(super) fn value(cx: &Lowering, word: Expr, byte: u32) -> Expr {
    let half = if byte % 2 == 0 { "h2_low" } else { "h2_high" };
    call(half, [halves(cx, word, byte >= 2)])
}

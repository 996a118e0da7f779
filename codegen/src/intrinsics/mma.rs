//! The rows of multiplies of a warp, which differ in their types alone.

use super::Arg::{self, In, InOut};
use crate::kir::Type::{self, U32};

/// Arguments of a multiply with sums of this type: four sums, four words of A, two of B.
pub(super) const fn operands(sum: Type) -> [Arg; 10] {
    let (sum, word) = (InOut(sum), In(U32));
    [sum, sum, sum, sum, word, word, word, word, word, word]
}

/// The row of `mma.sync.aligned.$form`: `$c` is what sums are declared as and `$r` the constraint of
/// their registers, `$indent` what lines the declaration's second line up.
macro_rules! multiply {
    ($name:literal $indent:literal, $form:literal, $sum:ident $c:literal $r:literal, $capability:expr,
     $meaning:literal) => {
        $crate::intrinsics::Intrinsic {
            name: $name,
            args: &$crate::intrinsics::mma::operands($sum),
            result: None,
            capability: $capability,
            source: concat!("PTX ISA, mma.sync.aligned.", $form),
            meaning: $crate::intrinsics::Meaning::Effect($meaning),
            text: concat!(
                "void ", $name, "(", $c, "& c0, ", $c, "& c1, ", $c, "& c2, ", $c, "& c3, unsigned a0, unsigned a1,\n",
                $indent, "unsigned a2, unsigned a3, unsigned b0, unsigned b1) {\n",
                "  asm volatile(\"mma.sync.aligned.", $form, " \"\n",
                "               \"{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\"\n",
                "               : \"+", $r, "\"(c0), \"+", $r, "\"(c1), \"+", $r, "\"(c2), \"+", $r, "\"(c3)\n",
                "               : \"r\"(a0), \"r\"(a1), \"r\"(a2), \"r\"(a3), \"r\"(b0), \"r\"(b1));\n}"
            ),
        }
    };
}
pub(super) use multiply;

/// The name of the multiply of a warp whose operands are `f16`, `bf16`, `s8` or `e4m3`.
///
/// # Panics
/// If there is no such instruction: schedules are checked before they are lowered.
pub fn warp_multiply_name(operands: &str) -> &'static str {
    let name = format!("mma_{operands}");
    super::find(&name).unwrap_or_else(|| panic!("no multiply of {operands}")).name
}

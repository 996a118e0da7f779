//! Element types of stored tensors.

use std::fmt;

/// Element type of a stored tensor, as the container names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ElementType {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned byte.
    U8,
    /// Signed byte.
    I8,
    /// 8-bit float, 4 exponent and 3 mantissa bits.
    F8E4M3,
    /// 8-bit float, 5 exponent and 2 mantissa bits.
    F8E5M2,
    /// 8-bit power of two.
    F8E8M0,
    /// Signed 16-bit integer.
    I16,
    /// Unsigned 16-bit integer.
    U16,
    /// IEEE binary16.
    F16,
    /// bfloat16.
    Bf16,
    /// Signed 32-bit integer; packed codes are bit patterns of this type.
    I32,
    /// Unsigned 32-bit integer.
    U32,
    /// IEEE binary32.
    F32,
    /// Signed 64-bit integer.
    I64,
    /// Unsigned 64-bit integer.
    U64,
    /// IEEE binary64.
    F64,
}

/// Name in the header and size in bytes of every element type that is read.
const TABLE: [(ElementType, &str, usize); 16] = [
    (ElementType::Bool, "BOOL", 1),
    (ElementType::U8, "U8", 1),
    (ElementType::I8, "I8", 1),
    (ElementType::F8E4M3, "F8_E4M3", 1),
    (ElementType::F8E5M2, "F8_E5M2", 1),
    (ElementType::F8E8M0, "F8_E8M0", 1),
    (ElementType::I16, "I16", 2),
    (ElementType::U16, "U16", 2),
    (ElementType::F16, "F16", 2),
    (ElementType::Bf16, "BF16", 2),
    (ElementType::I32, "I32", 4),
    (ElementType::U32, "U32", 4),
    (ElementType::F32, "F32", 4),
    (ElementType::I64, "I64", 8),
    (ElementType::U64, "U64", 8),
    (ElementType::F64, "F64", 8),
];

impl ElementType {
    /// The type that a header calls `name`.
    pub fn named(name: &str) -> Option<ElementType> {
        TABLE.iter().find(|(_, n, _)| *n == name).map(|(element, _, _)| *element)
    }

    /// Size of one element in bytes.
    pub fn bytes(self) -> usize {
        self.row().2
    }

    fn row(self) -> &'static (ElementType, &'static str, usize) {
        &TABLE[self as usize]
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum_and_names_parse_back() {
        for (element, name, _) in TABLE {
            assert_eq!(element.row().0, element);
            assert_eq!(ElementType::named(name), Some(element));
        }
    }
}

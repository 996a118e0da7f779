//! The key-value pairs of a file: those that say how to read it are kept, the others passed over.

use super::cursor::Cursor;
use crate::container::{BadHeader, Part};
use crate::error::shown;
use std::collections::BTreeSet;

/// Where data may begin if no key says otherwise.
const ALIGNMENT_DEFAULT: u32 = 32;
/// Longest array, as in ggml.
const ARRAY_MAX: u64 = 1 << 30;

/// What the metadata says of the file itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Metadata {
    /// Every tensor begins at a multiple of it, a power of two.
    pub(super) alignment: u32,
    /// Which part of a split checkpoint this is.
    pub(super) part: Option<Part>,
}

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ValueType {
    /// A number of this many bytes.
    Number(u64),
    Bool,
    String,
    Array,
}

impl ValueType {
    /// The type that a file calls `number`.
    fn numbered(number: u32, key: &str) -> Result<ValueType, BadHeader> {
        match number {
            0 | 1 => Ok(ValueType::Number(1)),
            2 | 3 => Ok(ValueType::Number(2)),
            4..=6 => Ok(ValueType::Number(4)),
            7 => Ok(ValueType::Bool),
            8 => Ok(ValueType::String),
            9 => Ok(ValueType::Array),
            10..=12 => Ok(ValueType::Number(8)),
            _ => Err(bad(key, format!("has the unknown type {number}"))),
        }
    }
}

fn bad(key: &str, problem: String) -> BadHeader {
    BadHeader::file(format!("metadata key `{}` {problem}", shown(key)))
}

/// Reads `count` pairs.
pub(super) fn read(cursor: &mut Cursor<'_>, count: u64) -> Result<Metadata, BadHeader> {
    let mut keys = BTreeSet::new();
    let (mut alignment, mut number, mut parts) = (ALIGNMENT_DEFAULT, None, None);
    for _ in 0..count {
        let key = cursor.string("a metadata key")?;
        if key.is_empty() || !keys.insert(key) {
            let problem = if key.is_empty() { "is empty" } else { "is given twice" };
            return Err(bad(key, problem.into()));
        }
        let value_type = cursor.u32("the type of a metadata value")?;
        match key {
            "general.alignment" => {
                expect(key, value_type, 4)?;
                alignment = cursor.u32(key)?;
            }
            "split.no" => {
                expect(key, value_type, 2)?;
                number = Some(cursor.u16(key)?);
            }
            "split.count" => {
                expect(key, value_type, 2)?;
                parts = Some(cursor.u16(key)?);
            }
            _ => skip(cursor, key, ValueType::numbered(value_type, key)?)?,
        }
    }
    if !alignment.is_power_of_two() {
        return Err(bad("general.alignment", format!("is {alignment}, no power of two")));
    }
    Ok(Metadata { alignment, part: part(number, parts)? })
}

/// Checks the number of a value's type.
fn expect(key: &str, value_type: u32, wanted: u32) -> Result<(), BadHeader> {
    match value_type == wanted {
        true => Ok(()),
        false => Err(bad(key, format!("has the type {value_type}, not {wanted}"))),
    }
}

/// Which part of how many; a count of 0 or 1 is a file that was not split.
fn part(number: Option<u16>, parts: Option<u16>) -> Result<Option<Part>, BadHeader> {
    match (number, parts) {
        (_, None | Some(0 | 1)) => Ok(None),
        (Some(number), Some(parts)) if number < parts => {
            Ok(Some(Part { index: number.into(), count: parts.into() }))
        }
        (number, Some(parts)) => {
            let number = number.map_or_else(|| "missing".into(), |number| number.to_string());
            Err(bad("split.no", format!("is {number} where split.count is {parts}")))
        }
    }
}

/// Passes over one value.
fn skip(cursor: &mut Cursor<'_>, key: &str, value_type: ValueType) -> Result<(), BadHeader> {
    match value_type {
        ValueType::Number(bytes) => cursor.take(bytes, "a metadata value").map(|_| ()),
        ValueType::Bool => bools(cursor, key, 1),
        ValueType::String => cursor.skip_string("a metadata value"),
        ValueType::Array => {
            let element = cursor.u32("the type of a metadata array")?;
            let count = cursor.u64("the length of a metadata array")?;
            if count > ARRAY_MAX {
                return Err(bad(key, format!("has {count} elements, more than {ARRAY_MAX}")));
            }
            match ValueType::numbered(element, key)? {
                // Below 2^33, so the product does not overflow.
                ValueType::Number(bytes) => {
                    cursor.take(count * bytes, "a metadata array").map(|_| ())
                }
                ValueType::Bool => bools(cursor, key, count),
                ValueType::String => {
                    (0..count).try_for_each(|_| cursor.skip_string("a metadata array"))
                }
                ValueType::Array => Err(bad(key, "is an array of arrays".into())),
            }
        }
    }
}

/// Passes over truth values, which are bytes of 0 or 1.
fn bools(cursor: &mut Cursor<'_>, key: &str, count: u64) -> Result<(), BadHeader> {
    match cursor.take(count, "a metadata value")?.iter().find(|byte| **byte > 1) {
        None => Ok(()),
        Some(byte) => Err(bad(key, format!("holds {byte} as a truth value"))),
    }
}

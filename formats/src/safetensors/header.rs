//! Parsing and checking a safetensors header.

use super::ElementType;
use crate::container::{BadHeader, Header, HeaderEntry};
use crate::error::shown;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;

/// Longest header that is read, the limit of the reference implementation.
pub const HEADER_BYTES_MAX: u64 = 100_000_000;

/// Reads the header of a file given all its bytes. Every entry of the result lies inside
/// `bytes`, has the size its shape says, and the entries cover the data without holes.
pub fn parse(bytes: &[u8]) -> Result<Header, BadHeader> {
    let json = json_of(bytes)?;
    let data_begin = 8 + json.len();
    let raw: RawHeader = serde_json::from_slice(json)
        .map_err(|e| BadHeader::file(format!("header is not valid: {}", shown(&e.to_string()))))?;
    let mut tensors = BTreeMap::new();
    for (name, entry) in raw.entries {
        let checked = check_entry(&name, entry, data_begin, bytes.len())?;
        if tensors.insert(name.clone(), checked).is_some() {
            return Err(BadHeader::tensor(&name, "is listed twice in the header"));
        }
    }
    check_cover(&tensors, data_begin, bytes.len())?;
    Ok(Header { tensors, part: None, notes: raw.notes })
}

/// The JSON part of the file, once its length is known to be possible.
fn json_of(bytes: &[u8]) -> Result<&[u8], BadHeader> {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(BadHeader::file(format!(
            "is {} bytes long, too short for a safetensors header",
            bytes.len()
        )));
    };
    let length = u64::from_le_bytes(*length);
    if length > HEADER_BYTES_MAX {
        return Err(BadHeader::file(format!(
            "claims a header of {length} bytes, more than the limit of {HEADER_BYTES_MAX}"
        )));
    }
    // At most 100 MB, so it fits usize everywhere.
    let json = rest.get(..length as usize).ok_or_else(|| {
        BadHeader::file(format!(
            "claims a header of {length} bytes, but only {} bytes follow",
            rest.len()
        ))
    })?;
    match json.first() {
        Some(b'{') => Ok(json),
        _ => Err(BadHeader::file("header does not start with `{`: not a safetensors file")),
    }
}

/// One entry as written.
#[derive(serde::Deserialize)]
struct RawEntry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// The header as written, in file order, duplicates included: a map type would hide them.
struct RawHeader {
    entries: Vec<(String, RawEntry)>,
    notes: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut entries = Vec::new();
                let mut notes = None;
                while let Some(name) = map.next_key::<String>()? {
                    if name != "__metadata__" {
                        entries.push((name, map.next_value()?));
                    } else if notes.replace(map.next_value::<Metadata>()?.0).is_some() {
                        return Err(A::Error::custom("`__metadata__` is given twice"));
                    }
                }
                Ok(RawHeader { entries, notes: notes.unwrap_or_default() })
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// `__metadata__`: strings by name.
struct Metadata(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Strings;
        impl<'de> Visitor<'de> for Strings {
            type Value = Metadata;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`__metadata__` to be an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
                let mut notes = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    notes.insert(name, map.next_value::<String>()?);
                }
                Ok(Metadata(notes))
            }
        }
        deserializer.deserialize_map(Strings)
    }
}

/// Checks one entry against its own shape and the size of the file.
fn check_entry(
    name: &str,
    raw: RawEntry,
    data_begin: usize,
    file_bytes: usize,
) -> Result<HeaderEntry, BadHeader> {
    let bad = |problem: String| BadHeader::tensor(name, problem);
    let element = ElementType::named(&raw.dtype)
        .ok_or_else(|| bad(format!("has the unknown element type `{}`", shown(&raw.dtype))))?;
    let (begin, end) = raw.data_offsets;
    let data_bytes = (file_bytes - data_begin) as u64;
    if begin > end || end > data_bytes {
        return Err(bad(format!(
            "claims bytes {begin}..{end} of a data section of {data_bytes} bytes"
        )));
    }
    let expected = raw
        .shape
        .iter()
        .try_fold(element.bytes() as u64, |bytes, dim| bytes.checked_mul(*dim))
        .ok_or_else(|| bad("has a shape whose size overflows".into()))?;
    if expected != end - begin {
        return Err(bad(format!(
            "holds {} bytes where its shape and type {element} need {expected}",
            end - begin
        )));
    }
    // A dimension beside a zero may be anything; one that no index can hold is refused.
    let shape = raw.shape.iter().map(|dim| usize::try_from(*dim)).collect::<Result<_, _>>();
    let shape = shape.map_err(|_| bad("has a dimension that is too large".into()))?;
    // Both are at most the file's size, which is a usize.
    let (begin, end) = (data_begin + begin as usize, data_begin + end as usize);
    Ok(HeaderEntry { stored: element.into(), shape, begin, end })
}

/// Checks that the tensors, in file order, cover the data section exactly.
fn check_cover(
    tensors: &BTreeMap<String, HeaderEntry>,
    data_begin: usize,
    file_bytes: usize,
) -> Result<(), BadHeader> {
    let mut by_offset: Vec<_> = tensors.iter().collect();
    by_offset.sort_by_key(|(_, entry)| (entry.begin, entry.end));
    let mut covered = data_begin;
    for (name, entry) in by_offset {
        if entry.begin != covered {
            let what = if entry.begin < covered { "overlaps the tensor" } else { "leaves a hole" };
            return Err(BadHeader::tensor(name, format!("{what} before it in the file")));
        }
        covered = entry.end;
    }
    if covered != file_bytes {
        return Err(BadHeader::file(format!(
            "has {} bytes after its last tensor",
            file_bytes - covered
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(json: &str, data: usize) -> Vec<u8> {
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json.as_bytes());
        bytes.resize(bytes.len() + data, 7);
        bytes
    }

    fn problem(json: &str, data: usize) -> String {
        parse(&file(json, data)).unwrap_err().problem
    }

    #[test]
    fn entries_are_placed_from_the_start_of_the_file() {
        let json = r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"F16","shape":[2,3],
            "data_offsets":[4,16]},"a":{"dtype":"I32","shape":[],"data_offsets":[0,4]}}  "#;
        let header = parse(&file(json, 16)).unwrap();
        let data_begin = 8 + json.len();
        let b = &header.tensors["b"];
        assert_eq!((b.stored, &b.shape[..]), (ElementType::F16.into(), &[2, 3][..]));
        assert_eq!((b.begin, b.end), (data_begin + 4, data_begin + 16));
        assert_eq!(header.tensors["a"].shape, Vec::<usize>::new());
    }

    #[test]
    fn every_lie_of_a_header_is_refused_with_its_reason() {
        let one = |dtype: &str, shape: &str, offsets: &str| {
            format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
        };
        let twice = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},
            "a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#;
        let hole = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},
            "b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}"#;
        let overlap = r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},
            "b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#;
        for (json, data, expected) in [
            (one("F4", "[1]", "[0,1]"), 1, "unknown element type `F4`"),
            (one("U8", "[1]", "[1,0]"), 1, "claims bytes 1..0"),
            (one("U8", "[9]", "[0,9]"), 1, "data section of 1 bytes"),
            (one("F16", "[3]", "[0,4]"), 4, "need 6"),
            (one("F64", "[4294967296,4294967296]", "[0,8]"), 8, "overflows"),
            (one("U8", "[-1]", "[0,1]"), 1, "header is not valid"),
            (one("U8", "[1]", "[0,1]"), 2, "1 bytes after its last tensor"),
            (twice.into(), 2, "listed twice"),
            (hole.into(), 3, "leaves a hole"),
            (overlap.into(), 3, "overlaps"),
            (r#"{"__metadata__":{"a":1}}"#.into(), 0, "expected a string"),
            (r#"{"__metadata__":{},"__metadata__":{}}"#.into(), 0, "twice"),
            ("[]".into(), 0, "does not start with `{`"),
            (String::new(), 0, "does not start with `{`"),
            ("{} x".into(), 0, "header is not valid"),
        ] {
            let problem = problem(&json, data);
            assert!(problem.contains(expected), "{json}: {problem}");
        }
    }

    #[test]
    fn a_length_beyond_the_file_or_the_limit_is_refused() {
        let problem = |bytes: &[u8]| parse(bytes).unwrap_err().problem;
        assert!(problem(&[1, 2, 3]).contains("3 bytes long"));
        assert!(problem(&file("{}", 0)[..9]).contains("only 1 bytes follow"));
        assert!(problem(&u64::MAX.to_le_bytes()).contains("more than the limit"));
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_header_or_an_error(json in ".{0,200}", data in 0usize..64) {
            let _ = parse(&file(&json, data));
            let _ = parse(json.as_bytes());
        }

        #[test]
        fn an_accepted_header_stays_inside_the_file_when_its_bytes_are_flipped(
            at in 0usize..170, to in any::<u8>(), cut in 0usize..200,
        ) {
            let json = r#"{"a":{"dtype":"F16","shape":[2,2],"data_offsets":[0,8]},
                "b":{"dtype":"I32","shape":[1,2],"data_offsets":[8,16]}}"#;
            let mut bytes = file(json, 16);
            let last = bytes.len() - 1;
            bytes[at.min(last)] = to;
            bytes.truncate(bytes.len() - cut.min(bytes.len()) / 4);
            if let Ok(header) = parse(&bytes) {
                for entry in header.tensors.values() {
                    prop_assert!(bytes.get(entry.begin..entry.end).is_some());
                }
            }
        }
    }
}

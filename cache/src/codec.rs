//! The only module that knows bincode: records to bytes and back, behind a header that makes
//! every foreign, cut or altered record recognisable before a field of it is believed.
//!
//! ```text
//! offset  bytes  field
//!      0      4  magic "QTUN"
//!      4      2  schema version, little endian; magic and version keep their place in all versions
//!      6      1  kind of record (`Kind`)
//!      7      1  zero
//!      8      4  payload length in bytes, little endian
//!     12     32  BLAKE3 of bytes 0..12 followed by the payload
//!     44      -  payload: bincode 2, standard configuration (little endian, variable-length ints)
//! ```
//!
//! bincode 2.0.1 is pinned and no longer maintained; replacing it means a new schema version and
//! a change to this file only.

use serde::{de::DeserializeOwned, Deserialize, Serialize};

/// First bytes of every record.
pub const MAGIC: [u8; 4] = *b"QTUN";

/// Version of the record layouts; raise it whenever a stored struct changes in any way.
pub const SCHEMA_VERSION: u16 = 5;

/// Oldest version that is read. Its layouts are those of today but for what `schema_4.rs` says.
pub const OLDEST_VERSION: u16 = 4;

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 44;

/// Largest payload that is written or read: 4 MiB. A winner takes a few KiB, so anything near this
/// is damage, and a reader never allocates more on the word of a damaged length.
pub const MAX_PAYLOAD_BYTES: usize = 4 << 20;

/// Bytes covered by the checksum in front of the payload: all header fields but the checksum.
const CHECKED_HEADER_BYTES: usize = 12;

/// What a record holds. Part of the header, so that a record never decodes as another type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum Kind {
    /// The store's own record: who made it and when.
    Meta = 1,
    /// A winner.
    Winner = 2,
    /// A schedule that must not be launched again.
    Poison = 3,
    /// A damaged record that was set aside.
    Damaged = 4,
    /// Digests of the store's files, written at a clean close.
    Seal = 5,
    /// First record of an export: what is in it.
    Export = 6,
    /// A piece of a blob in an export.
    Chunk = 7,
    /// Last record of an export: the digest of all before it.
    End = 8,
}

/// Why bytes are not a record. All but [`CodecError::TooLarge`] while encoding mean that the bytes
/// were damaged or written by another version of qtune.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The first four bytes are not `QTUN`.
    #[error("not a qtune record (wrong magic)")]
    WrongMagic,
    /// Written by another version of qtune.
    #[error("schema version {found}, this qtune reads {expected}")]
    ForeignVersion {
        /// Version in the header.
        found: u16,
        /// [`SCHEMA_VERSION`].
        expected: u16,
    },
    /// Fewer or more bytes than the header promises.
    #[error("{found} bytes where the header promises {expected}")]
    Truncated {
        /// Bytes present.
        found: usize,
        /// Bytes promised.
        expected: usize,
    },
    /// A record of another kind.
    #[error("record of kind {found} where kind {expected} belongs")]
    WrongKind {
        /// Kind in the header.
        found: u8,
        /// Kind asked for.
        expected: u8,
    },
    /// The checksum does not match.
    #[error("checksum does not match")]
    Checksum,
    /// The payload is larger than [`MAX_PAYLOAD_BYTES`].
    #[error("payload of {bytes} bytes, the limit is {MAX_PAYLOAD_BYTES}")]
    TooLarge {
        /// Size found or asked for.
        bytes: usize,
    },
    /// The checksum matches but the payload is not the struct: two layouts share a version.
    #[error("payload does not decode: {0}")]
    Decode(String),
}

/// bincode's configuration; the limit bounds what a lying length inside the payload can claim.
fn configuration() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<MAX_PAYLOAD_BYTES>()
}

/// The record of `value`, header included.
///
/// # Errors
/// [`CodecError::TooLarge`], or [`CodecError::Decode`] if serde refuses the value.
pub fn encode<T: Serialize>(kind: Kind, value: &T) -> Result<Vec<u8>, CodecError> {
    encode_versioned(kind, SCHEMA_VERSION, value)
}

/// [`encode`] under any version, which tests use to write what another qtune would.
pub(crate) fn encode_versioned<T: Serialize>(
    kind: Kind,
    version: u16,
    value: &T,
) -> Result<Vec<u8>, CodecError> {
    let payload = payload(value)?;
    let length = u32::try_from(payload.len())
        .ok()
        .filter(|_| payload.len() <= MAX_PAYLOAD_BYTES)
        .ok_or(CodecError::TooLarge { bytes: payload.len() })?;

    let mut record = Vec::with_capacity(HEADER_BYTES + payload.len());
    record.extend_from_slice(&MAGIC);
    record.extend_from_slice(&version.to_le_bytes());
    record.extend_from_slice(&[kind as u8, 0]);
    record.extend_from_slice(&length.to_le_bytes());
    let checksum = checksum(&record, &payload);
    record.extend_from_slice(&checksum);
    record.extend_from_slice(&payload);
    Ok(record)
}

/// `value` without a header: what digests of values are taken of.
///
/// # Errors
/// [`CodecError::Decode`] if serde refuses the value.
pub(crate) fn payload<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    bincode::serde::encode_to_vec(value, configuration())
        .map_err(|e| CodecError::Decode(e.to_string()))
}

/// The schema version that `record` says it has; `None` if it is too short to say.
pub(crate) fn version(record: &[u8]) -> Option<u16> {
    Some(u16::from_le_bytes([*record.get(4)?, *record.get(5)?]))
}

/// The value in `record`, which must be the whole record and nothing more.
///
/// # Errors
/// Every variant of [`CodecError`]; magic, version, length, kind and checksum are checked in that
/// order, and bincode sees only bytes that passed.
pub fn decode<T: DeserializeOwned>(kind: Kind, record: &[u8]) -> Result<T, CodecError> {
    let payload = checked_payload(kind, record)?;
    let (value, used) = bincode::serde::decode_from_slice(payload, configuration())
        .map_err(|e| CodecError::Decode(e.to_string()))?;
    if used != payload.len() {
        return Err(CodecError::Decode(format!("{} bytes left over", payload.len() - used)));
    }
    Ok(value)
}

/// Kind and payload length that a header announces, for readers of streams. Neither is to be
/// believed before [`decode`] has seen the record.
///
/// # Errors
/// [`CodecError::WrongMagic`], [`CodecError::ForeignVersion`], [`CodecError::TooLarge`].
pub(crate) fn announced(header: &[u8; HEADER_BYTES]) -> Result<(u8, usize), CodecError> {
    if header[..4] != MAGIC {
        return Err(CodecError::WrongMagic);
    }
    let found = u16::from_le_bytes([header[4], header[5]]);
    if !(OLDEST_VERSION..=SCHEMA_VERSION).contains(&found) {
        return Err(CodecError::ForeignVersion { found, expected: SCHEMA_VERSION });
    }
    let length = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
    if length > MAX_PAYLOAD_BYTES {
        return Err(CodecError::TooLarge { bytes: length });
    }
    Ok((header[6], length))
}

/// The payload of `record` after all header checks.
fn checked_payload(kind: Kind, record: &[u8]) -> Result<&[u8], CodecError> {
    let Some((header, payload)) = record.split_first_chunk::<HEADER_BYTES>() else {
        return Err(CodecError::Truncated { found: record.len(), expected: HEADER_BYTES });
    };
    let (found, length) = announced(header)?;
    let (fields, stored_checksum) = header.split_at(CHECKED_HEADER_BYTES);
    if payload.len() != length {
        return Err(CodecError::Truncated { found: record.len(), expected: HEADER_BYTES + length });
    }
    if checksum(fields, payload) != stored_checksum {
        return Err(CodecError::Checksum);
    }
    if found != kind as u8 {
        return Err(CodecError::WrongKind { found, expected: kind as u8 });
    }
    Ok(payload)
}

/// BLAKE3 over the header fields and the payload.
fn checksum(fields: &[u8], payload: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new().update(fields).update(payload).finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        encode(Kind::Meta, &("schedule".to_string(), vec![1.5f64, -0.0], Some(7u32))).unwrap()
    }

    type Sample = (String, Vec<f64>, Option<u32>);

    #[test]
    fn every_single_bit_flip_is_detected() {
        let record = sample();
        for bit in 0..record.len() * 8 {
            let mut damaged = record.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode::<Sample>(Kind::Meta, &damaged).is_err(), "bit {bit} went unnoticed");
        }
        assert!(decode::<Sample>(Kind::Meta, &record).is_ok());
    }

    #[test]
    fn every_truncation_and_extension_is_detected() {
        let record = sample();
        for length in 0..record.len() {
            let error = decode::<Sample>(Kind::Meta, &record[..length]).unwrap_err();
            assert!(matches!(error, CodecError::Truncated { found, .. } if found == length));
        }
        let longer = [record.as_slice(), &[0]].concat();
        assert!(matches!(
            decode::<Sample>(Kind::Meta, &longer),
            Err(CodecError::Truncated { found, expected }) if found == expected + 1
        ));
    }

    #[test]
    fn another_version_is_named_before_the_checksum_is_looked_at() {
        let mut record = encode_versioned(Kind::Meta, 9, &1u8).unwrap();
        record[20] ^= 0xff;
        let error = decode::<u8>(Kind::Meta, &record).unwrap_err();
        assert_eq!(error, CodecError::ForeignVersion { found: 9, expected: SCHEMA_VERSION });
    }

    #[test]
    fn a_record_of_another_kind_or_type_does_not_decode() {
        let record = encode(Kind::Poison, &1u8).unwrap();
        assert_eq!(
            decode::<u8>(Kind::Winner, &record),
            Err(CodecError::WrongKind { found: 3, expected: 2 })
        );
        assert!(matches!(decode::<()>(Kind::Poison, &record), Err(CodecError::Decode(_))));
    }

    #[test]
    fn a_lying_length_inside_the_payload_is_refused_without_allocating() {
        // A payload that claims a vector of 2^60 bytes, under a valid checksum.
        let lie = encode(Kind::Meta, &(1u64 << 60)).unwrap();
        assert!(matches!(decode::<Vec<u8>>(Kind::Meta, &lie), Err(CodecError::Decode(_))));
    }

    #[test]
    fn payloads_over_the_limit_are_refused_on_both_sides() {
        let big = vec![0u8; MAX_PAYLOAD_BYTES + 1];
        assert!(matches!(encode(Kind::Meta, &big), Err(CodecError::TooLarge { .. })));
        let mut record = sample();
        record[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(
            decode::<Sample>(Kind::Meta, &record),
            Err(CodecError::TooLarge { bytes }) if bytes == u32::MAX as usize
        ));
    }
}

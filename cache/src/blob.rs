//! Content-addressed blobs: kernel sources, PTX and cubins, each stored once under its BLAKE3.
//!
//! A blob is cut into rows of [`CHUNK_BYTES`] keyed `digest ++ index`. sled writes values that do
//! not fit its 512 KiB segments to side files which it never syncs; rows this small stay in its
//! log, which is synced. Rows carry no header: the digest of all of them together is the check.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::engine::{Row, Table, Write};
use crate::error::CacheError;

/// Bytes of a blob in one row.
const CHUNK_BYTES: usize = 64 << 10;

/// Largest blob: 64 MiB, far above any kernel, so that damage never claims more.
pub(crate) const BLOB_BYTES_MAX: usize = 64 << 20;

/// BLAKE3 of a blob's bytes; 64 hex digits in print and in JSON, 32 bytes in the store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.collect_str(self);
        }
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return <[u8; 32]>::deserialize(deserializer).map(Self);
        }
        let text = String::deserialize(deserializer)?;
        let hash = blake3::Hash::from_hex(&text).map_err(D::Error::custom)?;
        Ok(Self(*hash.as_bytes()))
    }
}

/// The writes that store `bytes`. An empty blob is one empty row, to differ from an absent one.
pub(crate) fn rows_of(digest: &Digest, bytes: &[u8]) -> Result<Vec<Write>, CacheError> {
    if bytes.len() > BLOB_BYTES_MAX {
        return Err(CacheError::BlobTooLarge { bytes: bytes.len(), limit: BLOB_BYTES_MAX });
    }
    let chunks: Vec<&[u8]> =
        if bytes.is_empty() { vec![&[]] } else { bytes.chunks(CHUNK_BYTES).collect() };
    Ok((0u32..)
        .zip(chunks)
        .map(|(index, chunk)| {
            let key = [digest.0.as_slice(), &index.to_be_bytes()].concat();
            Write { table: Table::Blobs, key, value: Some(chunk.to_vec()) }
        })
        .collect())
}

/// The blob in `rows` (all rows under its digest, in key order), or why they are not the blob.
pub(crate) fn assemble(digest: &Digest, rows: &[Row]) -> Result<Vec<u8>, String> {
    let total: usize = rows.iter().map(|row| row.value.len()).sum();
    if total > BLOB_BYTES_MAX {
        return Err(format!("{total} bytes, the limit is {BLOB_BYTES_MAX}"));
    }
    let mut bytes = Vec::with_capacity(total);
    rows.iter().for_each(|row| bytes.extend_from_slice(&row.value));
    if Digest::of(&bytes) != *digest {
        return Err("bytes do not have the digest they are stored under".into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(bytes: &[u8]) -> (Digest, Vec<Row>) {
        let digest = Digest::of(bytes);
        let rows = rows_of(&digest, bytes).unwrap();
        let row = |w: Write| Row { key: w.key, value: w.value.unwrap() };
        (digest, rows.into_iter().map(row).collect())
    }

    #[test]
    fn blobs_of_every_awkward_size_come_back() {
        for size in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES] {
            let bytes: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            let (digest, rows) = stored(&bytes);
            assert_eq!(rows.len(), size.div_ceil(CHUNK_BYTES).max(1));
            assert_eq!(assemble(&digest, &rows).unwrap(), bytes);
        }
    }

    #[test]
    fn a_missing_swapped_or_altered_row_is_noticed() {
        let bytes: Vec<u8> = (0..3 * CHUNK_BYTES).map(|i| (i / 7 % 251) as u8).collect();
        let (digest, rows) = stored(&bytes);
        let mut missing = rows.clone();
        missing.pop();
        let mut swapped = rows.clone();
        swapped.swap(0, 1);
        let mut altered = rows;
        altered[1].value[5] ^= 1;
        for damaged in [missing, swapped, altered] {
            assert!(assemble(&digest, &damaged).is_err());
        }
    }

    #[test]
    fn a_digest_is_hex_in_json_and_nothing_else_is_read_as_one() {
        let digest = Digest::of(b"blob");
        let json = serde_json::to_string(&digest).unwrap();
        assert_eq!(json, format!("\"{digest}\""));
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
        assert!(serde_json::from_str::<Digest>(&json[..9]).is_err());
        assert!(serde_json::from_str::<Digest>("\"0g\"").is_err());
    }

    #[test]
    fn a_blob_over_the_limit_is_refused() {
        let bytes = vec![0; BLOB_BYTES_MAX + 1];
        let error = rows_of(&Digest::of(b""), &bytes).unwrap_err();
        assert!(matches!(error, CacheError::BlobTooLarge { .. }));
    }
}

//! One portable file with everything that a store knows, and reading it back.
//!
//! The file is a sequence of records of the codec, each with its magic, version, length and
//! checksum: a header with counts, blobs in chunks, rows of winners, poisoned schedules, and an
//! end that holds the digest of all bytes before it. Rows are in key order and hold no time of
//! export, so equal stores give equal files.
//!
//! A file is untrusted: sizes are capped before anything is allocated, and nothing reaches a
//! store before the whole file has been read and every digest matches.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::blob::{Digest, BLOB_BYTES_MAX};
use crate::codec::{self, Kind, HEADER_BYTES};
use crate::contribution::WinnerRow;
use crate::error::CacheError;
use crate::memory::MemoryStore;
use crate::record::{BlobRefs, Kernel, Poisoned};
use crate::schema_4;
use crate::store::Store;

/// Largest file that is read: 2 GiB, some ten thousand winners.
pub const EXPORT_BYTES_MAX: u64 = 2 << 30;

/// Bytes of a blob in one record.
const CHUNK_BYTES: usize = 1 << 20;

/// What is in an export; the file's first record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportSummary {
    /// Keys with a winner.
    pub winners: u64,
    /// What machines contributed to them.
    pub contributions: u64,
    /// Poisoned schedules.
    pub poisoned: u64,
    /// Blobs.
    pub blobs: u64,
}

/// A piece of a blob.
#[derive(Debug, Serialize, Deserialize)]
struct Chunk {
    digest: Digest,
    /// Whether the blob is complete with this piece.
    last: bool,
    bytes: Vec<u8>,
}

/// Writes everything in `store` whose code is whole. The caller makes the file appear at once or
/// not at all.
///
/// # Errors
/// [`CacheError::ExportIo`] if `out` refuses; those of the store.
pub fn export(store: &dyn Store, out: &mut dyn Write) -> Result<ExportSummary, CacheError> {
    let contents = Contents::of(store)?;
    let mut writer = Writer { out, hasher: blake3::Hasher::new() };
    let summary = contents.summary();
    writer.record(Kind::Export, &summary)?;
    for digest in &contents.blobs {
        // The code was whole when the contents were gathered, and this process has the store.
        let bytes = store.get_blob(digest)?.ok_or_else(|| lost(digest))?;
        writer.blob(digest, &bytes)?;
    }
    contents.rows.iter().try_for_each(|row| writer.record(Kind::Winner, row))?;
    contents.poison.iter().try_for_each(|entry| writer.record(Kind::Poison, entry))?;
    writer.end()?;
    Ok(summary)
}

/// Reads an export into a store in memory, to be merged.
///
/// # Errors
/// [`CacheError::BadExport`] for anything that is not a whole export of a schema version that is read;
/// [`CacheError::ExportIo`] if `input` cannot be read.
pub fn import(input: &mut dyn Read) -> Result<(MemoryStore, ExportSummary), CacheError> {
    let mut reader = Reader { input, hasher: blake3::Hasher::new(), bytes: 0 };
    let (kind, record) = reader.record()?;
    if kind != Kind::Export as u8 {
        return Err(bad("it does not begin with the header of an export"));
    }
    let summary: ExportSummary = decode(Kind::Export, &record)?;
    let mut loaded = Loaded::default();
    loop {
        let before = reader.hasher.finalize();
        let (kind, record) = reader.record()?;
        if kind == Kind::End as u8 {
            let digest: Digest = decode(Kind::End, &record)?;
            if digest.0 != *before.as_bytes() {
                return Err(bad("its records are not the ones that were written"));
            }
            break;
        }
        loaded.take(kind, &record)?;
    }
    reader.expect_end()?;
    if !loaded.pieces.is_empty() || loaded.summary != summary {
        return Err(bad("it does not hold what its header promises"));
    }
    Ok((loaded.store, summary))
}

/// What of a store is exported.
struct Contents {
    rows: Vec<WinnerRow>,
    poison: Vec<Poisoned>,
    blobs: BTreeSet<Digest>,
}

impl Contents {
    fn of(store: &dyn Store) -> Result<Contents, CacheError> {
        let mut contents =
            Contents { rows: Vec::new(), poison: store.poison()?, blobs: BTreeSet::new() };
        for winner in store.winners()? {
            // Asking for the code checks it, and sets aside what has lost its own.
            for record in store.contributions(&winner.key)? {
                store.kernel(&record)?;
            }
            let whole = store.contributions(&winner.key)?;
            contents
                .blobs
                .extend(whole.iter().flat_map(|r| [r.blobs.source, r.blobs.ptx, r.blobs.cubin]));
            contents.rows.extend(WinnerRow::of_records(whole));
        }
        Ok(contents)
    }

    fn summary(&self) -> ExportSummary {
        let contributions = self.rows.iter().map(|row| row.contributions.len() as u64).sum();
        ExportSummary {
            winners: self.rows.len() as u64,
            contributions,
            poisoned: self.poison.len() as u64,
            blobs: self.blobs.len() as u64,
        }
    }
}

/// Writes records and takes the digest of all of them.
struct Writer<'a> {
    out: &'a mut dyn Write,
    hasher: blake3::Hasher,
}

impl Writer<'_> {
    fn record<T: Serialize>(&mut self, kind: Kind, value: &T) -> Result<(), CacheError> {
        let record = codec::encode(kind, value)
            .map_err(|cause| CacheError::Record { what: "an export".into(), cause })?;
        self.hasher.update(&record);
        self.out.write_all(&record).map_err(CacheError::ExportIo)
    }

    fn blob(&mut self, digest: &Digest, bytes: &[u8]) -> Result<(), CacheError> {
        let mut rest = bytes;
        loop {
            let (piece, after) = rest.split_at(rest.len().min(CHUNK_BYTES));
            let last = after.is_empty();
            self.record(Kind::Chunk, &Chunk { digest: *digest, last, bytes: piece.to_vec() })?;
            if last {
                return Ok(());
            }
            rest = after;
        }
    }

    fn end(&mut self) -> Result<(), CacheError> {
        let digest = Digest(*self.hasher.finalize().as_bytes());
        self.record(Kind::End, &digest)?;
        self.out.flush().map_err(CacheError::ExportIo)
    }
}

/// Reads records one by one, never more than their header promises and the codec allows.
struct Reader<'a> {
    input: &'a mut dyn Read,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Reader<'_> {
    /// The next record with its kind.
    fn record(&mut self) -> Result<(u8, Vec<u8>), CacheError> {
        let mut header = [0; HEADER_BYTES];
        self.fill(&mut header)?;
        let (kind, length) = codec::announced(&header).map_err(|e| bad(&e.to_string()))?;
        self.bytes += (HEADER_BYTES + length) as u64;
        if self.bytes > EXPORT_BYTES_MAX {
            return Err(bad(&format!("it is larger than {EXPORT_BYTES_MAX} bytes")));
        }
        let mut record = header.to_vec();
        record.resize(HEADER_BYTES + length, 0);
        self.fill(&mut record[HEADER_BYTES..])?;
        self.hasher.update(&record);
        Ok((kind, record))
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), CacheError> {
        self.input.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => bad("it was cut off"),
            _ => CacheError::ExportIo(error),
        })
    }

    fn expect_end(&mut self) -> Result<(), CacheError> {
        match self.input.read(&mut [0]).map_err(CacheError::ExportIo)? {
            0 => Ok(()),
            _ => Err(bad("something follows its end")),
        }
    }
}

/// What has been read so far.
#[derive(Default)]
struct Loaded {
    store: MemoryStore,
    summary: ExportSummary,
    blobs: BTreeMap<Digest, Vec<u8>>,
    /// The blob under way.
    pieces: BTreeMap<Digest, Vec<u8>>,
}

impl Loaded {
    fn take(&mut self, kind: u8, record: &[u8]) -> Result<(), CacheError> {
        match kind {
            k if k == Kind::Chunk as u8 => self.chunk(decode(Kind::Chunk, record)?),
            k if k == Kind::Winner as u8 => self.row(&decode(Kind::Winner, record)?),
            k if k == Kind::Poison as u8 => {
                self.summary.poisoned += 1;
                let entry = schema_4::poisoned(record).map_err(|error| bad(&error.to_string()))?;
                self.store.put_poison(&entry).map_err(|error| bad(&error.to_string()))
            }
            other => Err(bad(&format!("a record of kind {other} has no place in it"))),
        }
    }

    fn chunk(&mut self, chunk: Chunk) -> Result<(), CacheError> {
        if self.pieces.keys().any(|digest| *digest != chunk.digest) {
            return Err(bad("the pieces of two blobs are mixed"));
        }
        let mut blob = self.pieces.remove(&chunk.digest).unwrap_or_default();
        blob.extend_from_slice(&chunk.bytes);
        if blob.len() > BLOB_BYTES_MAX {
            return Err(bad("a blob is too large"));
        }
        if !chunk.last {
            self.pieces.insert(chunk.digest, blob);
            return Ok(());
        }
        if Digest::of(&blob) != chunk.digest {
            return Err(bad("a blob does not have its digest"));
        }
        self.summary.blobs += 1;
        self.blobs.insert(chunk.digest, blob);
        Ok(())
    }

    fn row(&mut self, row: &WinnerRow) -> Result<(), CacheError> {
        row.check().map_err(|reason| bad(&reason))?;
        self.summary.winners += 1;
        for record in row.records() {
            self.summary.contributions += 1;
            let kernel = self.kernel(&record.blobs).ok_or_else(|| bad("code is missing"))?;
            self.store
                .contribute(&record.key, &record.winner, &kernel)
                .map_err(|error| bad(&error.to_string()))?;
        }
        Ok(())
    }

    fn kernel(&self, blobs: &BlobRefs) -> Option<Kernel> {
        let text = |digest| String::from_utf8(self.blobs.get(digest)?.clone()).ok();
        Some(Kernel {
            source: text(&blobs.source)?,
            ptx: text(&blobs.ptx)?,
            cubin: self.blobs.get(&blobs.cubin)?.clone(),
        })
    }
}

fn decode<T: DeserializeOwned>(kind: Kind, record: &[u8]) -> Result<T, CacheError> {
    codec::decode(kind, record).map_err(|error| bad(&error.to_string()))
}

fn bad(reason: &str) -> CacheError {
    CacheError::BadExport(reason.into())
}

fn lost(digest: &Digest) -> CacheError {
    CacheError::BadExport(format!("blob {digest} was lost while it was exported"))
}

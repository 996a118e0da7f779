//! What qtune remembers: the winners of a search with the evidence for them, the schedules that
//! must never be launched again, and the log of every trial.
//!
//! - [`record`]: what is remembered ([`WinnerKey`], [`Winner`], [`Kernel`], [`Poisoned`]);
//! - [`store`]: the [`Store`] trait, with [`SledStore`] on disk and [`MemoryStore`] in memory;
//! - [`codec`]: the one place that turns records into bytes and back;
//! - [`merge()`]: what several machines found, in one store; [`export()`] and [`import()`]: one
//!   portable file of it;
//! - [`trial_log`]: one JSON object per line, a launch on disk before it happens.
//!
//! Losing the cache costs time, never correctness: whatever does not pass its checks is set aside,
//! reported and measured again. `docs/cache-format.md` gives the bytes.
//!
//! ```
//! use qtune_cache::{MemoryStore, Store, WinnerKey};
//!
//! let store = MemoryStore::default();
//! let key = WinnerKey {
//!     problem: "w4a16.awq-g128.f16-f16.n5120.k5120.m16".into(),
//!     arch: "sm90a.132".into(),
//!     fingerprint: "00ff".into(),
//! };
//! assert!(store.get(&key)?.is_none());
//! assert_eq!(store.stats().misses, 1);
//! # Ok::<(), qtune_cache::CacheError>(())
//! ```

mod blob;
pub mod codec;
mod compact;
mod contribution;
mod engine;
mod error;
mod export;
mod folder;
mod memory;
mod merge;
mod paths;
pub mod record;
mod record_store;
mod schema_4;
mod seal;
mod sled_engine;
mod sled_guard;
mod sled_store;
mod snapshot;
pub mod store;
pub mod trial_log;

pub use blob::Digest;
pub use codec::CodecError;
pub use compact::{CompactReport, Compaction};
pub use error::CacheError;
pub use export::{export, import, ExportSummary, EXPORT_BYTES_MAX};
pub use folder::{holds_store, SetAside, SetAsideReason};
pub use memory::MemoryStore;
pub use merge::{merge, Conflict, MergeReport};
pub use paths::{default_dir, trials_dir};
pub use record::{
    Beaten, BlobRefs, Counts, Evidence, Extent, Kernel, Poisoned, Provenance, Verification, Winner,
    WinnerKey, WinnerRecord,
};
pub use record_store::RecordStore;
pub use sled_store::{OpenReport, SledStore};
pub use store::{DamagedRecord, LookupStats, Store, VerifyReport};

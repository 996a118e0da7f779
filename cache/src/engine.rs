//! What a store needs from whatever keeps its bytes: tables of rows sorted by key.

use crate::error::CacheError;
use crate::folder::SetAside;

/// The tables of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// One row: who made the store.
    Meta,
    /// Winner records by winner key.
    Winners,
    /// Poisoned schedules by problem, arch and schedule.
    Poison,
    /// Blob chunks by digest and index.
    Blobs,
    /// Records set aside, by table and key.
    Damaged,
}

impl Table {
    /// All tables, in the order of their discriminants.
    pub const ALL: [Table; 5] =
        [Table::Meta, Table::Winners, Table::Poison, Table::Blobs, Table::Damaged];

    /// Its name on disk and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Table::Meta => "meta",
            Table::Winners => "winners",
            Table::Poison => "poison",
            Table::Blobs => "blobs",
            Table::Damaged => "damaged",
        }
    }
}

/// One row of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its key.
    pub key: Vec<u8>,
    /// Its bytes.
    pub value: Vec<u8>,
}

/// One change to a table.
#[derive(Clone, Debug)]
pub struct Write {
    /// The table.
    pub table: Table,
    /// The row's key.
    pub key: Vec<u8>,
    /// The row's new bytes, or `None` to remove it.
    pub value: Option<Vec<u8>>,
}

/// Keeps bytes. Implementations never panic and never block for ever.
pub trait Engine: Send + Sync {
    /// The value under `key`.
    ///
    /// # Errors
    /// When the bytes cannot be read; damage is not an error but set aside, and reads as absent.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, CacheError>;

    /// All rows whose keys begin with `prefix`, in key order.
    ///
    /// # Errors
    /// As [`Engine::get`].
    fn scan(&self, table: Table, prefix: &[u8]) -> Result<Vec<Row>, CacheError>;

    /// Applies `writes` in order and makes them durable. A crash may leave a prefix of them on
    /// disk, so what refers to other rows comes last.
    ///
    /// # Errors
    /// When they did not become durable; reads through this engine then see the old values.
    fn commit(&self, writes: Vec<Write>) -> Result<(), CacheError>;

    /// The folders set aside since the engine was opened, oldest first.
    fn set_asides(&self) -> Vec<SetAside> {
        Vec::new()
    }
}

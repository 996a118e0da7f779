//! The store without a disk: for tests, `--dry-run` and processes that cannot open the cache.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::engine::{Engine, Row, Table, Write};
use crate::error::CacheError;
use crate::record_store::RecordStore;

/// A store in memory, with the same records, checks and counters as [`crate::SledStore`].
pub type MemoryStore = RecordStore<MemoryEngine>;

/// Values by table and key.
type Rows = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// Keeps rows in a sorted map.
#[derive(Debug, Default)]
pub struct MemoryEngine {
    rows: Mutex<Rows>,
}

impl Engine for MemoryEngine {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, CacheError> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(rows.get(&(table, key.to_vec())).cloned())
    }

    fn scan(&self, table: Table, prefix: &[u8]) -> Result<Vec<Row>, CacheError> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(rows
            .range((table, prefix.to_vec())..)
            .take_while(|((t, key), _)| *t == table && key.starts_with(prefix))
            .map(|((_, key), value)| Row { key: key.clone(), value: value.clone() })
            .collect())
    }

    fn commit(&self, writes: Vec<Write>) -> Result<(), CacheError> {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        for Write { table, key, value } in writes {
            match value {
                Some(value) => rows.insert((table, key), value),
                None => rows.remove(&(table, key)),
            };
        }
        Ok(())
    }
}

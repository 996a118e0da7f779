//! The engine over sled: damage found while reading is set aside and reading goes on in a fresh
//! database; after a failed write the old values are what is read.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::engine::{Engine, Row, Table, Write};
use crate::error::CacheError;
use crate::folder::{FolderLock, Place, SetAside, SetAsideReason};
use crate::seal;
use crate::sled_guard::{Fault, Opened, WRITE_LIMIT};

/// Keeps rows in a sled database that this process alone has open.
#[derive(Debug)]
pub struct SledEngine {
    place: Place,
    /// One caller at a time: sled wakes a waiting flush reliably only if no other writer is
    /// active, and there is nothing to gain from more.
    state: Mutex<State>,
    /// Held until the database is closed and sealed.
    _lock: FolderLock,
    /// The folder itself, where the database is a private copy: removed after all else.
    _copy: Option<tempfile::TempDir>,
}

/// The database and what happened to it.
#[derive(Debug)]
struct State {
    /// `None` only while it is replaced, and for good if that failed.
    opened: Option<Opened>,
    /// Set by the first write that failed: sled stops for good then, and so do we.
    failed: Option<io::ErrorKind>,
    /// Values before the failed write, by row. sled's pages hold the new ones, which are not on
    /// disk and must not be seen.
    before_failure: HashMap<(Table, Vec<u8>), Option<Vec<u8>>>,
    set_asides: Vec<SetAside>,
}

impl SledEngine {
    /// An engine over a database that has been opened and checked under `lock`.
    pub(crate) fn new(place: Place, opened: Opened, lock: FolderLock) -> Self {
        let state = State {
            opened: Some(opened),
            failed: None,
            before_failure: HashMap::new(),
            set_asides: Vec::new(),
        };
        Self { place, state: Mutex::new(state), _lock: lock, _copy: None }
    }

    /// The same, in a folder that is removed with it.
    pub(crate) fn keeping(mut self, folder: tempfile::TempDir) -> Self {
        self._copy = Some(folder);
        self
    }

    /// Where the database is.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Closes the database and lets the compacted one, which lies ready, take its place.
    pub(crate) fn give_way(self) -> Result<(), CacheError> {
        let opened = self.state().opened.take().ok_or_else(|| self.lost())?;
        opened.close().map_err(|fault| cache_error(&self.place, "close the database in", fault))?;
        self.place.swap()?;
        // Without its seal the next opening goes through sled's recovery, and finds all of it.
        seal::write(&self.place).map_err(CacheError::folder(&self.place.dir, "seal"))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads from the database. Damage replaces the database by a fresh one and reads as absent.
    fn read<T: Default>(
        &self,
        state: &mut State,
        read: impl FnOnce(&Opened) -> Result<T, Fault>,
    ) -> Result<T, CacheError> {
        let opened = state.opened.as_ref().ok_or_else(|| self.lost())?;
        match read(opened) {
            Ok(value) => Ok(value),
            Err(Fault::Damaged(detail)) => {
                self.replace(state, detail)?;
                Ok(T::default())
            }
            Err(fault) => Err(cache_error(&self.place, "read from", fault)),
        }
    }

    /// Sets the damaged database aside and starts a fresh one.
    fn replace(&self, state: &mut State, detail: String) -> Result<(), CacheError> {
        if let Some(opened) = state.opened.take() {
            opened.abandon();
        }
        let aside = self.place.set_aside(SetAsideReason::Damaged(detail))?;
        state.set_asides.push(aside);
        state.before_failure.clear();
        state.failed = None;
        let opened = crate::sled_store::open_fresh(&self.place)?;
        state.opened = Some(opened);
        Ok(())
    }

    /// The value under `key` as it is on disk.
    fn durable(
        &self,
        state: &mut State,
        table: Table,
        key: &[u8],
    ) -> Result<Option<Vec<u8>>, CacheError> {
        if !state.before_failure.is_empty() {
            if let Some(value) = state.before_failure.get(&(table, key.to_vec())) {
                return Ok(value.clone());
            }
        }
        self.read(state, |opened| opened.get(table, key))
    }

    /// The error of a database that could not be replaced.
    fn lost(&self) -> CacheError {
        CacheError::Damaged {
            dir: self.place.dir.clone(),
            detail: "it could not be replaced earlier in this run".into(),
        }
    }
}

impl Engine for SledEngine {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, CacheError> {
        self.durable(&mut self.state(), table, key)
    }

    fn scan(&self, table: Table, prefix: &[u8]) -> Result<Vec<Row>, CacheError> {
        let state = &mut self.state();
        let mut rows = self.read(state, |opened| opened.scan(table, prefix))?;
        let rolled_back = state
            .before_failure
            .iter()
            .filter(|((t, key), _)| *t == table && key.starts_with(prefix));
        for ((_, key), value) in rolled_back {
            rows.retain(|row| row.key != *key);
            rows.extend(value.iter().map(|v| Row { key: key.clone(), value: v.clone() }));
        }
        rows.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(rows)
    }

    fn commit(&self, writes: Vec<Write>) -> Result<(), CacheError> {
        let state = &mut self.state();
        if let Some(kind) = state.failed {
            let action = "write to (an earlier write failed)";
            return Err(CacheError::folder(&self.place.dir, action)(kind.into()));
        }
        let mut before = HashMap::with_capacity(writes.len());
        for Write { table, key, .. } in &writes {
            before.insert((*table, key.clone()), self.durable(state, *table, key)?);
        }
        let opened = state.opened.as_ref().ok_or_else(|| self.lost())?;
        opened.commit(writes).map_err(|fault| {
            state.failed = Some(match &fault {
                Fault::Io(error) => error.kind(),
                Fault::Stuck => io::ErrorKind::TimedOut,
                Fault::Busy | Fault::Damaged(_) => io::ErrorKind::Other,
            });
            state.before_failure = before;
            cache_error(&self.place, "write to", fault)
        })
    }

    fn set_asides(&self) -> Vec<SetAside> {
        self.state().set_asides.clone()
    }
}

impl Drop for SledEngine {
    /// Closes the database and seals it. What fails here costs only the seal: the next open goes
    /// through sled's recovery, and everything committed is already on disk.
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Some(opened) = state.opened.take() else { return };
        if state.failed.is_some() {
            opened.abandon();
            return;
        }
        match opened.close() {
            Ok(()) => {
                if let Err(error) = seal::write(&self.place) {
                    tracing::debug!(%error, "cache closed without a seal");
                }
            }
            Err(fault) => tracing::debug!(?fault, "cache not closed in good order"),
        }
    }
}

/// The error for callers; `action` completes "cannot ... the cache folder".
pub(crate) fn cache_error(place: &Place, action: &'static str, fault: Fault) -> CacheError {
    let dir = place.dir.clone();
    match fault {
        Fault::Io(cause) => CacheError::Folder { dir, action, cause },
        Fault::Busy => CacheError::Locked { dir, holder: None },
        Fault::Damaged(detail) => CacheError::Damaged { dir, detail },
        Fault::Stuck => CacheError::Stuck { dir, seconds: WRITE_LIMIT.as_secs() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sled_store::open_fresh;

    fn engine(dir: &std::path::Path) -> SledEngine {
        let place = Place::new(dir);
        place.prepare().unwrap();
        place.prepare_store().unwrap();
        let lock = FolderLock::acquire(&place).unwrap();
        let opened = open_fresh(&place).unwrap();
        SledEngine::new(place, opened, lock)
    }

    fn put(engine: &SledEngine, key: &[u8], value: &[u8]) {
        let (key, value) = (key.to_vec(), Some(value.to_vec()));
        engine.commit(vec![Write { table: Table::Winners, key, value }]).unwrap();
    }

    #[test]
    fn damage_found_while_reading_is_set_aside_and_the_engine_goes_on_empty() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path());
        put(&engine, b"k", b"old");
        let read: Option<Vec<u8>> = engine
            .read(&mut engine.state(), |_| Err(Fault::Damaged("sled panicked: page".into())))
            .unwrap();
        assert_eq!(read, None);

        let asides = engine.set_asides();
        assert_eq!(asides.len(), 1);
        assert!(asides[0].to.join("db").exists());
        assert!(asides[0].reason.to_string().contains("sled panicked: page"));
        assert_eq!(engine.get(Table::Winners, b"k").unwrap(), None);
        put(&engine, b"k", b"new");
        drop(engine);
        assert_eq!(seal::examine(&Place::new(dir.path())).unwrap(), seal::Condition::Intact);
    }

    #[test]
    fn after_a_failed_write_reads_see_what_was_there_before() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path());
        put(&engine, b"a", b"1");
        put(&engine, b"b", b"new, not on disk");
        {
            // What `commit` leaves behind when the disk refuses a write to `b` and `c`.
            let state = &mut engine.state();
            let old = [(b"b", Some(b"2".to_vec())), (b"c", None)];
            let row = |(key, value): (&[u8; 1], _)| ((Table::Winners, key.to_vec()), value);
            state.before_failure = old.into_iter().map(row).collect();
            state.failed = Some(io::ErrorKind::StorageFull);
        }
        assert_eq!(engine.get(Table::Winners, b"b").unwrap().unwrap(), b"2");
        let rows = engine.scan(Table::Winners, &[]).unwrap();
        let values: Vec<&[u8]> = rows.iter().map(|row| row.value.as_slice()).collect();
        assert_eq!(values, [b"1", b"2"]);
        let message = engine.commit(Vec::new()).unwrap_err().to_string();
        assert!(message.contains("an earlier write failed") && message.contains("free some space"));
    }
}

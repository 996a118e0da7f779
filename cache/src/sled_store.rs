//! Opening the store on disk: lock, seal, sled, meta record, in that order.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError, Kind, SCHEMA_VERSION};
use crate::engine::{Table, Write};
use crate::error::CacheError;
use crate::folder::{unix_seconds, FolderLock, Place, SetAside, SetAsideReason};
use crate::record_store::RecordStore;
use crate::seal::{self, Condition};
use crate::sled_engine::{cache_error, SledEngine};
use crate::sled_guard::{Fault, Opened};

/// The store in a cache folder. One process at a time has it open; dropping it closes it.
pub type SledStore = RecordStore<SledEngine>;

/// Key of the one row in the meta table.
const META_KEY: &[u8] = b"store";

/// What was found when a store was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// No store was there before.
    pub created: bool,
    /// The process that had it open last did not close it. Nothing committed is lost by that.
    pub unclean: bool,
    /// A damaged or foreign store that was replaced by a fresh one; callers print it.
    pub set_aside: Option<SetAside>,
    /// Winner records in the store.
    pub winners: usize,
}

/// The store's own record.
#[derive(Debug, Serialize, Deserialize)]
struct Meta {
    created_unix_seconds: u64,
    qtune_version: String,
}

impl SledStore {
    /// Opens the store in the cache folder `dir`, creating folder and store where missing.
    ///
    /// A damaged store, or one that another version of qtune wrote, is renamed to
    /// `dir/winners.damaged-SECONDS-PID` or `dir/winners.foreign-vN-SECONDS-PID`, a fresh one is
    /// started, and the report says so.
    ///
    /// # Errors
    /// [`CacheError::Locked`] if another process has it open; [`CacheError::Folder`] if the
    /// folder is a file, cannot be read or written, or the disk is full; [`CacheError::Exposed`]
    /// if others can write the store; [`CacheError::Damaged`] if damage cannot be set aside.
    pub fn open(dir: &Path) -> Result<(Self, OpenReport), CacheError> {
        let place = Place::new(dir);
        place.prepare()?;
        let lock = FolderLock::acquire(&place)?;
        place.recover()?;
        place.prepare_store()?;

        let condition = seal::examine(&place)?;
        let mut report = OpenReport {
            created: condition == Condition::Empty,
            unclean: condition == Condition::Unclean,
            ..OpenReport::default()
        };
        let checked = match condition {
            Condition::Broken(reason) => Err(Refusal::SetAside(reason)),
            Condition::Empty | Condition::Intact | Condition::Unclean => {
                place.unseal()?;
                open_checked(&place)
            }
        };
        let (opened, winners) = match checked {
            Ok(found) => found,
            Err(Refusal::SetAside(reason)) => {
                report.set_aside = Some(place.set_aside(reason)?);
                (open_fresh(&place)?, 0)
            }
            Err(Refusal::Error(error)) => return Err(error),
        };
        report.winners = winners;
        Ok((RecordStore::over(SledEngine::new(place, opened, lock)), report))
    }
}

impl SledStore {
    /// The same store, in a folder that is removed with it.
    pub(crate) fn keeping(self, folder: tempfile::TempDir) -> Self {
        RecordStore::over(self.into_engine().keeping(folder))
    }
}

/// Why a database was not opened.
enum Refusal {
    /// It has to make room for a fresh one.
    SetAside(SetAsideReason),
    /// The folder or the system is at fault, not the data.
    Error(CacheError),
}

/// Opens a database in a folder that is known to be empty.
pub(crate) fn open_fresh(place: &Place) -> Result<Opened, CacheError> {
    match open_checked(place) {
        Ok((opened, _)) => Ok(opened),
        Err(Refusal::Error(error)) => Err(error),
        Err(Refusal::SetAside(reason)) => {
            Err(CacheError::Damaged { dir: place.dir.clone(), detail: reason.to_string() })
        }
    }
}

/// Opens the database, checks that it is ours and readable, and counts its winners.
fn open_checked(place: &Place) -> Result<(Opened, usize), Refusal> {
    let refusal = |action| {
        move |fault| match fault {
            Fault::Damaged(detail) => Refusal::SetAside(SetAsideReason::Damaged(detail)),
            other => Refusal::Error(cache_error(place, action, other)),
        }
    };
    let opened = Opened::open(&place.store).map_err(refusal("open the database in"))?;
    match check_contents(&opened) {
        Ok(winners) => Ok((opened, winners)),
        Err(Problem::Foreign(found)) => {
            // The data is sound, so closing is safe, and its file is released before the rename.
            opened.close().map_err(refusal("close the database in"))?;
            Err(Refusal::SetAside(SetAsideReason::ForeignVersion(found)))
        }
        Err(Problem::Fault(fault)) => {
            opened.abandon();
            Err(refusal("read from")(fault))
        }
    }
}

/// Why an open database is not one to work with.
enum Problem {
    /// Its meta record has this version.
    Foreign(u16),
    /// sled failed, or the meta record is damaged.
    Fault(Fault),
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        Problem::Fault(fault)
    }
}

/// Checks the meta record, or writes it in a new database, and reads all small rows once, so that
/// damage in them shows now rather than in the middle of a run. Returns the number of winners.
fn check_contents(opened: &Opened) -> Result<usize, Problem> {
    let winners = opened.scan(Table::Winners, &[])?.len();
    let poison = opened.scan(Table::Poison, &[])?.len();
    let damaged = |detail: String| Problem::Fault(Fault::Damaged(detail));
    match opened.get(Table::Meta, META_KEY)? {
        Some(bytes) => match codec::decode::<Meta>(Kind::Meta, &bytes) {
            // What is written from now on only this version reads; the meta record says so.
            Ok(meta) if codec::version(&bytes) != Some(SCHEMA_VERSION) => put_meta(opened, &meta)?,
            Ok(_) => {}
            Err(CodecError::ForeignVersion { found, .. }) => return Err(Problem::Foreign(found)),
            Err(error) => return Err(damaged(format!("meta record: {error}"))),
        },
        None if winners + poison > 0 => return Err(damaged("no meta record".into())),
        None => write_meta(opened)?,
    }
    Ok(winners)
}

/// Writes the meta record of a new database.
pub(crate) fn write_meta(opened: &Opened) -> Result<(), Fault> {
    let meta = Meta {
        created_unix_seconds: unix_seconds(),
        qtune_version: env!("CARGO_PKG_VERSION").to_string(),
    };
    put_meta(opened, &meta)
}

fn put_meta(opened: &Opened, meta: &Meta) -> Result<(), Fault> {
    let value =
        codec::encode(Kind::Meta, meta).map_err(|error| Fault::Io(std::io::Error::other(error)))?;
    opened.commit(vec![Write { table: Table::Meta, key: META_KEY.to_vec(), value: Some(value) }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contribution::WinnerRow;
    use crate::record::{Evidence, Extent, Kernel, Poisoned, Winner, WinnerKey};
    use crate::store::Store;

    /// Replaces a row of a closed store, by hand.
    fn put_raw(dir: &Path, table: Table, key: &[u8], value: Vec<u8>) {
        let place = Place::new(dir);
        place.unseal().unwrap();
        let opened = Opened::open(&place.store).unwrap();
        opened.commit(vec![Write { table, key: key.to_vec(), value: Some(value) }]).unwrap();
        opened.close().unwrap();
        seal::write(&place).unwrap();
    }

    #[test]
    fn a_store_of_another_version_is_set_aside_under_its_version() {
        let dir = tempfile::tempdir().unwrap();
        drop(SledStore::open(dir.path()).unwrap());
        let foreign = codec::encode_versioned(Kind::Meta, 7, &"whatever").unwrap();
        put_raw(dir.path(), Table::Meta, META_KEY, foreign);

        let (store, report) = SledStore::open(dir.path()).unwrap();
        let aside = report.set_aside.unwrap();
        assert_eq!(aside.reason, SetAsideReason::ForeignVersion(7));
        let name = aside.to.file_name().unwrap().to_string_lossy().into_owned();
        assert!(name.starts_with("winners.foreign-v7-"), "{name}");
        assert!(store.winners().unwrap().is_empty());
        drop(store);
        assert!(SledStore::open(dir.path()).unwrap().1.set_aside.is_none());
    }

    /// The record in `bytes`, of a layout that both versions have, as schema version 4 wrote it.
    fn as_version_4<T: serde::de::DeserializeOwned + Serialize>(
        kind: Kind,
        bytes: &[u8],
    ) -> Vec<u8> {
        codec::encode_versioned(kind, 4, &codec::decode::<T>(kind, bytes).unwrap()).unwrap()
    }

    #[test]
    fn a_store_of_schema_version_4_is_read_and_becomes_one_of_this_version() {
        let dir = tempfile::tempdir().unwrap();
        let key = WinnerKey { problem: "p".into(), arch: "a".into(), fingerprint: "f".into() };
        let poisoned = Poisoned {
            problem: "p".into(),
            arch: "a".into(),
            schedule: "s".into(),
            reason: "hung".into(),
            compile_limit_s: None,
        };
        let (store, _) = SledStore::open(dir.path()).unwrap();
        let found = winner(Extent::CutShort);
        store.put(&key, &found, &Kernel::default()).unwrap();
        drop(store);
        let place = Place::new(dir.path());
        place.unseal().unwrap();
        let opened = Opened::open(&place.store).unwrap();
        let (meta_key, key_bytes) = (META_KEY.to_vec(), key.to_bytes().unwrap());
        let meta = opened.get(Table::Meta, &meta_key).unwrap().unwrap();
        let row = opened.get(Table::Winners, &key_bytes).unwrap().unwrap();
        opened.close().unwrap();
        seal::write(&place).unwrap();
        let old = as_version_4::<Meta>(Kind::Meta, &meta);
        put_raw(dir.path(), Table::Meta, &meta_key, old);
        let old = as_version_4::<WinnerRow>(Kind::Winner, &row);
        put_raw(dir.path(), Table::Winners, &key_bytes, old);
        let old = crate::schema_4::tests::poison_record(&poisoned);
        put_raw(dir.path(), Table::Poison, &poisoned.to_bytes().unwrap(), old);

        for _ in 0..2 {
            let (store, report) = SledStore::open(dir.path()).unwrap();
            assert!(report.set_aside.is_none() && store.damaged().is_empty());
            assert_eq!(store.get(&key).unwrap().unwrap().winner, found);
            assert_eq!(store.poison().unwrap(), std::slice::from_ref(&poisoned));
        }
        place.unseal().unwrap();
        let opened = Opened::open(&place.store).unwrap();
        let meta = opened.get(Table::Meta, &meta_key).unwrap().unwrap();
        assert_eq!(
            codec::version(&meta),
            Some(SCHEMA_VERSION),
            "older ones set it aside as foreign"
        );
    }

    fn winner(extent: Extent) -> Winner {
        Winner {
            schedule: "s".into(),
            family: "gemv".into(),
            evidence: Evidence::Modelled,
            time_us: 1.0,
            samples_us: Vec::new(),
            roof_share: 0.5,
            load_only_us: None,
            verified: true,
            error_over_bound: 0.5,
            extent,
            verification: Default::default(),
            counts: Default::default(),
            cost_terms: Vec::new(),
            beat: Vec::new(),
            derivation: Vec::new(),
            provenance: Default::default(),
        }
    }

    #[test]
    fn a_damaged_meta_record_sets_the_store_aside() {
        let dir = tempfile::tempdir().unwrap();
        drop(SledStore::open(dir.path()).unwrap());
        put_raw(dir.path(), Table::Meta, META_KEY, b"QTUN".to_vec());
        let (_store, report) = SledStore::open(dir.path()).unwrap();
        let reason = report.set_aside.unwrap().reason.to_string();
        assert!(reason.contains("meta record"), "{reason}");
    }

    #[test]
    fn winners_without_a_meta_record_are_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(dir.path());
        place.prepare().unwrap();
        place.prepare_store().unwrap();
        put_raw(dir.path(), Table::Winners, b"p\0a\0f", b"winner".to_vec());
        let (_store, report) = SledStore::open(dir.path()).unwrap();
        assert!(report.set_aside.unwrap().reason.to_string().contains("no meta record"));
    }

    #[test]
    fn one_damaged_winner_is_moved_away_and_the_store_stays() {
        let dir = tempfile::tempdir().unwrap();
        drop(SledStore::open(dir.path()).unwrap());
        put_raw(dir.path(), Table::Winners, b"p\0a\0f", b"winner".to_vec());

        let (store, report) = SledStore::open(dir.path()).unwrap();
        assert!(report.set_aside.is_none() && report.winners == 1);
        assert!(store.winners().unwrap().is_empty());
        let damaged = store.damaged();
        assert_eq!((damaged[0].table.as_str(), damaged[0].key.as_str()), ("winners", "p@a@f"));
        drop(store);

        let (store, report) = SledStore::open(dir.path()).unwrap();
        assert_eq!(report.winners, 0);
        let verified = store.verify().unwrap();
        assert_eq!((verified.damaged.len(), verified.damaged_before), (0, 1));
    }
}

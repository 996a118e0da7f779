//! Records of schema version 4, where they differ from today's.
//!
//! - A winner said whether its search was cut short, as a `bool`. The byte is that of [`Extent`]'s first
//!   two variants, so that the record is read as it is.
//! - A poisoned schedule had no limit: it was out for ever, whatever had happened.
//!
//! Nothing else differs, and nothing writes these any more.
//!
//! [`Extent`]: crate::record::Extent

use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError, Kind};
use crate::record::Poisoned;

/// The version.
const VERSION: u16 = 4;

/// A poisoned schedule.
#[derive(Serialize, Deserialize)]
struct PoisonedForEver {
    problem: String,
    arch: String,
    schedule: String,
    reason: String,
}

/// The poisoned schedule in `record`, of this version or of today's.
///
/// # Errors
/// As [`codec::decode`].
pub(crate) fn poisoned(record: &[u8]) -> Result<Poisoned, CodecError> {
    if codec::version(record) != Some(VERSION) {
        return codec::decode(Kind::Poison, record);
    }
    let PoisonedForEver { problem, arch, schedule, reason } = codec::decode(Kind::Poison, record)?;
    Ok(Poisoned { problem, arch, schedule, reason, compile_limit_s: None })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::record::Extent;

    /// What this version would have written of a poisoned schedule.
    pub(crate) fn poison_record(entry: &Poisoned) -> Vec<u8> {
        let Poisoned { problem, arch, schedule, reason, .. } = entry.clone();
        let old = PoisonedForEver { problem, arch, schedule, reason };
        codec::encode_versioned(Kind::Poison, VERSION, &old).unwrap()
    }

    #[test]
    fn what_was_cut_short_or_not_is_an_extent_to_the_byte() {
        let extents = [Extent::Unrecorded, Extent::CutShort];
        assert_eq!(codec::payload(&[false, true]), codec::payload(&extents));
        let newer = codec::payload(&Extent::Quick).unwrap();
        assert!(!codec::payload(&[false, true]).unwrap().contains(&newer[0]));
    }

    #[test]
    fn poison_of_both_versions_is_read() {
        let entry = |compile_limit_s| Poisoned {
            problem: "p".into(),
            arch: "a".into(),
            schedule: "s".into(),
            reason: "r".into(),
            compile_limit_s,
        };
        assert_eq!(poisoned(&poison_record(&entry(None))), Ok(entry(None)));
        let today = codec::encode(Kind::Poison, &entry(Some(60))).unwrap();
        assert_eq!(poisoned(&today), Ok(entry(Some(60))));
    }
}

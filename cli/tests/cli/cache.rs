//! `cache`, where there is none.

use crate::support::Qtune;

#[test]
fn a_folder_without_a_cache_is_said_to_hold_none_and_stays_as_it_is() {
    let qtune = Qtune::new();
    for command in ["ls", "verify"] {
        qtune.fails(&["cache", command], 1, &["holds no cache", "qtune tune"]);
    }
    assert!(!qtune.cache.path().join("cache").exists());
}

//! Paths as the file system sees them.

use std::path::Path;

/// Whether two paths lead to one file or folder; not if either leads nowhere.
pub fn same(a: &Path, b: &Path) -> bool {
    a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b))
}

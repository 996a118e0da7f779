//! Where the cache lives unless the user says otherwise.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::CacheError;

/// The cache folder: `$QTUNE_CACHE`, else `$XDG_CACHE_HOME/qtune`, else `~/.cache/qtune`.
///
/// # Errors
/// [`CacheError::NoFolder`] if none of the variables is set.
pub fn default_dir() -> Result<PathBuf, CacheError> {
    dir_from(|name| std::env::var_os(name))
}

/// The folder of trial logs inside the cache folder `dir`. It stays where it is when the store
/// beside it is set aside.
pub fn trials_dir(dir: &Path) -> PathBuf {
    dir.join("trials")
}

/// [`default_dir`] with the environment as an argument.
fn dir_from(variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, CacheError> {
    let path = |name| variable(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    path("QTUNE_CACHE")
        // The XDG base directory specification says to ignore relative paths.
        .or_else(|| path("XDG_CACHE_HOME").filter(|p| p.is_absolute()).map(|p| p.join("qtune")))
        .or_else(|| path("HOME").map(|p| p.join(".cache").join("qtune")))
        .ok_or(CacheError::NoFolder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir_with(variables: &[(&str, &str)]) -> Result<PathBuf, CacheError> {
        dir_from(|name| {
            variables.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn the_most_specific_variable_wins_and_empty_or_relative_ones_are_ignored() {
        let home = ("HOME", "/h");
        let found = |variables: &[_]| dir_with(variables).unwrap();
        assert_eq!(found(&[home]), Path::new("/h/.cache/qtune"));
        assert_eq!(found(&[("XDG_CACHE_HOME", "/x"), home]), Path::new("/x/qtune"));
        assert_eq!(found(&[("XDG_CACHE_HOME", "x"), home]), Path::new("/h/.cache/qtune"));
        assert_eq!(found(&[("QTUNE_CACHE", ""), home]), Path::new("/h/.cache/qtune"));
        let all = [("QTUNE_CACHE", "q"), ("XDG_CACHE_HOME", "/x"), home];
        assert_eq!(found(&all), Path::new("q"));
    }

    #[test]
    fn no_variable_at_all_is_an_error_that_names_them() {
        let message = dir_with(&[]).unwrap_err().to_string();
        assert!(message.contains("QTUNE_CACHE") && message.contains("HOME"), "{message}");
    }
}

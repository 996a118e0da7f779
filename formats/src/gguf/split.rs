//! Checkpoints in several files, `<base>-00001-of-00003.gguf` and so on, each a whole file that says
//! which one of how many it is.

use super::parse;
use crate::container::{Part, TensorFile};
use crate::error::{shown, FormatError};
use std::path::{Path, PathBuf};

/// Opens a file, and the other parts of the same checkpoint.
pub(crate) fn open(path: &Path) -> Result<Vec<TensorFile>, FormatError> {
    let file = TensorFile::open(path, parse)?;
    let Some(Part { count, .. }) = file.header().part else { return Ok(vec![file]) };
    let Some((base, _, in_name)) = numbered(path).filter(|(_, _, in_name)| *in_name == count)
    else {
        return Err(FormatError::file(
            path,
            format!("is one of {count} parts, but its name does not say which"),
            "give the parts the names that they were written with",
        ));
    };
    (1..=in_name).map(|number| part(path, &base, number, in_name)).collect()
}

/// Opens one part, which must be what its name says.
fn part(path: &Path, base: &str, number: usize, count: usize) -> Result<TensorFile, FormatError> {
    let part = path.with_file_name(format!("{base}-{number:05}-of-{count:05}.gguf"));
    if !part.exists() {
        let problem = format!("is one of {count} parts, of which number {number} is missing");
        let remedy = "download the missing file into the same folder";
        return Err(FormatError::file(path, problem, remedy));
    }
    let file = TensorFile::open(&part, parse)?;
    match file.header().part {
        Some(says) if says == (Part { index: number - 1, count }) => Ok(file),
        _ => Err(FormatError::file(
            &part,
            "is another part than its name says",
            "give the parts the names that they were written with",
        )),
    }
}

/// The base, number and count in the name of a part.
fn numbered(path: &Path) -> Option<(String, usize, usize)> {
    let name = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
    let (rest, count) = name.rsplit_once("-of-")?;
    let (base, number) = rest.rsplit_once('-')?;
    let five = |digits: &str| (digits.len() == 5).then(|| digits.parse().ok()).flatten();
    Some((base.into(), five(number)?, five(count)?))
}

/// The file to open for a folder that holds a GGUF file and others: the only one, or the first part
/// of the only checkpoint.
pub(crate) fn only<'a>(
    folder: &Path,
    first: &'a Path,
    others: &[&PathBuf],
) -> Result<&'a Path, FormatError> {
    let base = |file: &Path| numbered(file).map(|(base, _, count)| (base, count));
    match others.iter().find(|other| base(first).is_none() || base(other) != base(first)) {
        None => Ok(first),
        Some(other) => {
            let name = |file: &Path| shown(&file.file_name().unwrap_or_default().to_string_lossy());
            let problem = format!("holds several checkpoints, {} and {}", name(first), name(other));
            Err(FormatError::file(folder, problem, "name the file to use"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parts_are_taken_apart() {
        let parts = |name: &str| numbered(Path::new(name));
        assert_eq!(parts("a/m-q4-00002-of-00003.gguf"), Some(("m-q4".into(), 2, 3)));
        assert_eq!(parts("m-2-of-3.gguf"), None);
        assert_eq!(parts("m.gguf"), None);
    }
}

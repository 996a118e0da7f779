//! The folders that qtune writes to.

use super::finding::{Finding, Severity};
use crate::cache_dir::CacheArgs;
use qtune_codegen::nvrtc::data_dir;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Free space below which a cache may soon not fit: kernels take about 100 kB each.
const CACHE_ROOM_BYTES: u64 = 256 << 20;
/// Free space that a fetch of NVRTC needs: the wheel and its contents.
const FETCH_ROOM_BYTES: u64 = 400 << 20;
/// File systems on which locks and renames do not always mean what they should.
const NETWORK_FILE_SYSTEMS: [&str; 7] = ["nfs", "nfs4", "cifs", "smb3", "9p", "lustre", "ceph"];

/// The cache folder: writable, with room, on a local disk.
pub fn cache(args: &CacheArgs) -> Vec<Finding> {
    let remedy = "name a folder that can be written with --cache DIR or QTUNE_CACHE";
    match args.dir() {
        Ok(dir) => folder("cache.folder", &dir, CACHE_ROOM_BYTES, remedy, Severity::Error),
        Err(error) => vec![Finding::new(Severity::Error, "cache.folder", error, remedy)],
    }
}

/// The folder that NVRTC is fetched into.
pub fn data_folder() -> Vec<Finding> {
    let remedy = "name a folder that can be written with QTUNE_DATA";
    match data_dir() {
        Some(dir) => folder("data.folder", &dir, FETCH_ROOM_BYTES, remedy, Severity::Warning),
        None => vec![Finding::new(
            Severity::Warning,
            "data.folder",
            "no data folder: QTUNE_DATA, XDG_DATA_HOME and HOME are not set",
            remedy,
        )],
    }
}

fn folder(
    id: &'static str,
    dir: &Path,
    room: u64,
    remedy: &str,
    unwritable: Severity,
) -> Vec<Finding> {
    let at = dir.display();
    let existing = nearest_existing(dir);
    if let Err(error) = try_write(&existing) {
        let message = format!("{at} cannot be written: {error}");
        return vec![Finding::new(unwritable, id, message, remedy)];
    }
    let state = if existing == dir { "is writable" } else { "will be created when needed" };
    let mut findings = vec![Finding::ok(id, format!("{at} {state}"))];
    findings.extend(few_bytes_left(id, &existing, room));
    findings.extend(on_network(id, &existing));
    findings
}

/// `dir`, or the closest folder above it that is there.
fn nearest_existing(dir: &Path) -> PathBuf {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.into());
    let found = absolute.ancestors().find(|path| path.exists()).map(Path::to_path_buf);
    found.unwrap_or(absolute)
}

/// Creates a file, writes to it and removes it: permission bits alone do not tell.
fn try_write(dir: &Path) -> io::Result<()> {
    let probe = dir.join(format!(".qtune-doctor-{}", std::process::id()));
    let written = fs::write(&probe, b"probe");
    match fs::remove_file(&probe) {
        Err(error) if written.is_ok() => Err(error),
        _ => written,
    }
}

fn few_bytes_left(id: &'static str, dir: &Path, room: u64) -> Option<Finding> {
    let free = fs2::available_space(dir).ok()?;
    (free < room).then(|| {
        let message = format!("only {} MB are free at {}", free >> 20, dir.display());
        Finding::new(Severity::Warning, id, message, "free some space there or choose another")
    })
}

fn on_network(id: &'static str, dir: &Path) -> Option<Finding> {
    let kind = file_system(&fs::read_to_string("/proc/mounts").ok()?, dir)?;
    NETWORK_FILE_SYSTEMS.contains(&kind.as_str()).then(|| {
        let message = format!("{} is on {kind}, where locks may not work", dir.display());
        Finding::new(Severity::Warning, id, message, "choose a folder on a local disk")
    })
}

/// The type of the file system that holds `dir`, from the lines of /proc/mounts (proc(5)).
fn file_system(mounts: &str, dir: &Path) -> Option<String> {
    let rows = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?, words.next()?))
    });
    let holding = rows.filter(|(point, _)| dir.starts_with(point));
    holding.max_by_key(|(point, _)| point.len()).map(|(_, kind)| kind.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_point_that_holds_a_folder_decides() {
        let mounts = "/dev/a / ext4 rw 0 0\nserver:/x /home nfs4 rw 0 0\n";
        assert_eq!(file_system(mounts, Path::new("/home/me")).as_deref(), Some("nfs4"));
        assert_eq!(file_system(mounts, Path::new("/homes")).as_deref(), Some("ext4"));
    }

    #[test]
    fn a_folder_that_is_not_there_yet_is_judged_by_the_one_above_it() {
        let here = std::env::temp_dir();
        assert_eq!(nearest_existing(&here.join("a/b/c")), here);
    }
}

//! Downloads a pinned wheel with pip and unpacks it into the data folder.
//!
//! Everything happens in a scratch folder inside the data folder; one `rename` publishes the
//! result, so a reader sees a whole folder or none, and of two processes that fetch at once one
//! publishes and the other uses what it finds. pip does the download because it already knows
//! the machine's index, proxy and certificates.

use super::error::NvrtcError;
use super::find::is_whole;
use super::pin::{Pin, PinnedFile};
use fs2::FileExt;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

/// Start of the name of every scratch folder.
const SCRATCH_PREFIX: &str = ".fetch-";
/// Scratch folders this old were left by a process that died.
const SCRATCH_STALE: Duration = Duration::from_secs(24 * 3600);

/// Held by the process that fetches.
const LOCK_FILE: &str = "fetch.lock";
/// More than the processes that may plausibly publish at once.
const PUBLISH_ATTEMPTS: u32 = 32;

/// Fetches `pin` into `data`; returns the path of libnvrtc.
pub(super) fn fetch(pin: &Pin, data: &Path, notice: &dyn Fn(&str)) -> Result<PathBuf, NvrtcError> {
    let requirement = pin.requirement();
    notice(&format!(
        "NVRTC was not found: fetching {requirement} with pip into {} (about 60 to 90 MB, once)",
        data.join(pin.folder()).display()
    ));
    fs::create_dir_all(data).map_err(|e| at(data, e))?;
    let _turn = lock(data)?;
    let target = data.join(pin.folder());
    if is_whole(&target, pin) {
        return Ok(target.join(pin.files[0].file_name()));
    }
    remove_stale_scratch(data);
    let scratch = Scratch::create(data)?;
    let wheel = download(&requirement, &scratch.path)?;
    let path = install(pin, &wheel, &scratch.path, data)?;
    notice(&format!("NVRTC {} is ready at {}", pin.version, path.display()));
    Ok(path)
}

/// Checks `wheel` against its pin, unpacks it inside `scratch` and publishes it in `data`.
/// Returns the path of libnvrtc.
pub(super) fn install(
    pin: &Pin,
    wheel: &Path,
    scratch: &Path,
    data: &Path,
) -> Result<PathBuf, NvrtcError> {
    check_digest(pin, wheel)?;
    let unpacked = scratch.join("unpacked");
    fs::create_dir(&unpacked).map_err(|e| at(&unpacked, e))?;
    unpack(pin, wheel, &unpacked)?;
    let target = data.join(pin.folder());
    publish(pin, &unpacked, &target, scratch)?;
    Ok(target.join(pin.files[0].file_name()))
}

/// Waits until no other process fetches into `data`: the second one finds what the first fetched
/// instead of downloading it again. The lock ends with the file, also when a process dies.
fn lock(data: &Path) -> Result<File, NvrtcError> {
    let path = data.join(LOCK_FILE);
    let file = File::create(&path).map_err(|e| at(&path, e))?;
    file.lock_exclusive().map_err(|e| at(&path, e))?;
    Ok(file)
}

fn at(path: &Path, source: io::Error) -> NvrtcError {
    NvrtcError::Io { path: path.to_path_buf(), source }
}

/// A folder of this fetch alone, removed when dropped.
pub(super) struct Scratch {
    pub path: PathBuf,
}

impl Scratch {
    pub fn create(data: &Path) -> Result<Scratch, NvrtcError> {
        // The counter keeps threads apart, the process id keeps processes apart.
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = data.join(format!("{SCRATCH_PREFIX}{}-{count}", std::process::id()));
        // A leftover of a dead process that had the same id.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).map_err(|e| at(&path, e))?;
        Ok(Scratch { path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Failing leaves garbage that a later fetch removes as stale.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn remove_stale_scratch(data: &Path) {
    let Ok(entries) = fs::read_dir(data) else { return };
    for entry in entries.flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(SCRATCH_PREFIX);
        let modified = entry.metadata().and_then(|m| m.modified()).ok();
        let age = modified.and_then(|m| SystemTime::now().duration_since(m).ok());
        if ours && age.is_some_and(|age| age > SCRATCH_STALE) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Runs `pip download` into `folder`; returns the wheel.
fn download(requirement: &str, folder: &Path) -> Result<PathBuf, NvrtcError> {
    let refuse = |reason: String| NvrtcError::Fetch { requirement: requirement.to_owned(), reason };
    let output = Command::new("python3")
        .args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"])
        .args(["--disable-pip-version-check", "--dest"])
        .arg(folder)
        .arg(requirement)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| {
            refuse(format!("python3 with pip is needed, and python3 did not start: {e}"))
        })?;
    if !output.status.success() {
        return Err(refuse(last_line(&output.stderr)));
    }
    let entries = fs::read_dir(folder).map_err(|e| at(folder, e))?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    paths
        .find(|path| path.extension().is_some_and(|e| e == "whl"))
        .ok_or_else(|| refuse("pip succeeded but left no wheel".to_owned()))
}

fn last_line(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    line.map_or_else(|| "pip failed without a message".to_owned(), |l| l.trim().to_owned())
}

fn check_digest(pin: &Pin, wheel: &Path) -> Result<(), NvrtcError> {
    let mut file = File::open(wheel).map_err(|e| at(wheel, e))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        let len = file.read(&mut buffer).map_err(|e| at(wheel, e))?;
        if len == 0 {
            break;
        }
        hash.update(&buffer[..len]);
    }
    let actual: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    if actual == pin.sha256 {
        return Ok(());
    }
    let file = wheel.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Err(NvrtcError::Digest { file, expected: pin.sha256.to_owned(), actual })
}

fn unpack(pin: &Pin, wheel: &Path, folder: &Path) -> Result<(), NvrtcError> {
    let file = File::open(wheel).map_err(|e| at(wheel, e))?;
    let mut archive = zip::ZipArchive::new(file).map_err(|e| at(wheel, e.into()))?;
    for pinned in &pin.files {
        let entry = archive.by_name(pinned.entry).map_err(|e| at(wheel, e.into()))?;
        write_entry(entry, pinned, &folder.join(pinned.file_name()))?;
    }
    Ok(())
}

/// Writes one entry, never more than its pinned length, and flushes it to the disk: the folder
/// is renamed into place right after, and a crash must not leave a short file there.
fn write_entry(entry: impl Read, pinned: &PinnedFile, path: &Path) -> Result<(), NvrtcError> {
    let mut file = File::create(path).map_err(|e| at(path, e))?;
    let len = io::copy(&mut entry.take(pinned.len + 1), &mut file).map_err(|e| at(path, e))?;
    if len != pinned.len {
        let message = format!("unpacked to {len} bytes, {} are pinned", pinned.len);
        return Err(at(path, io::Error::new(io::ErrorKind::InvalidData, message)));
    }
    file.sync_all().map_err(|e| at(path, e))
}

/// Moves `unpacked` to `target`. A whole folder already there (another process was faster) is
/// kept; a damaged one is moved out of the way. Another process may do the same between any two
/// steps here, so a step that finds things changed starts over.
fn publish(pin: &Pin, unpacked: &Path, target: &Path, scratch: &Path) -> Result<(), NvrtcError> {
    let mut last = None;
    for attempt in 0..PUBLISH_ATTEMPTS {
        match fs::rename(unpacked, target) {
            Ok(()) => return Ok(()),
            Err(_) if is_whole(target, pin) => return Ok(()),
            Err(error) => last = Some(error),
        }
        // A process that already mapped the old files keeps them: renaming never writes to them.
        match fs::rename(target, scratch.join(format!("damaged-{attempt}"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => last = Some(error),
            _ => {}
        }
    }
    let error = last.unwrap_or_else(|| io::ErrorKind::AlreadyExists.into());
    Err(at(target, error))
}

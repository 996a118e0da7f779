//! Choosing, loading and identifying one NVRTC library.

use super::api::{keep_loaded, Api};
use super::error::NvrtcError;
use super::fetch;
use super::find::{has_builtins, real_folder, Candidate, FoundBy, Places, BUILTINS};
use super::pin::{pin_for, Pin};
use sha2::{Digest, Sha256};
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::raw::c_int;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The oldest CUDA that knows every instruction the code generator emits for `sm_90a`.
const OLDEST_CUDA: u32 = 12;
/// How much of each end of the library the fingerprint reads.
const FINGERPRINT_SPAN: u64 = 1 << 20;

/// How [`Nvrtc::open`] may go about its search.
#[derive(Clone, Copy)]
pub struct OpenOptions<'a> {
    /// Whether a missing library may be downloaded (`--no-fetch` clears it).
    pub allow_fetch: bool,
    /// CUDA major version of the driver that will load the cubins; `None` when there is no
    /// driver. A compiler of a later major is passed over: that driver would refuse its cubins.
    pub driver_cuda_major: Option<u32>,
    /// Told, in one line, of a download and of libraries that were passed over.
    pub notice: &'a dyn Fn(&str),
}

fn silent(_: &str) {}

impl Default for OpenOptions<'_> {
    /// Fetching allowed, no driver, notices dropped.
    fn default() -> Self {
        OpenOptions { allow_fetch: true, driver_cuda_major: None, notice: &silent }
    }
}

impl fmt::Debug for OpenOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenOptions")
            .field("allow_fetch", &self.allow_fetch)
            .field("driver_cuda_major", &self.driver_cuda_major)
            .finish_non_exhaustive()
    }
}

/// A loaded NVRTC. Cheap to clone; every method may be called from several threads at once, and
/// compiles then run in parallel.
#[derive(Clone)]
pub struct Nvrtc {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) api: Api,
    path: PathBuf,
    found_by: FoundBy,
    version: (i32, i32),
    fingerprint: String,
}

impl fmt::Debug for Nvrtc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nvrtc")
            .field("path", &self.inner.path)
            .field("found_by", &self.inner.found_by)
            .field("fingerprint", &self.inner.fingerprint)
            .finish()
    }
}

impl Nvrtc {
    /// Finds and loads NVRTC: `QTUNE_NVRTC`, a CUDA toolkit, Python site-packages, qtune's data
    /// folder, the dynamic loader's own search, and last, if allowed, a fetch of the pinned
    /// wheel into the data folder.
    ///
    /// # Errors
    /// [`NvrtcError::Setting`] if `QTUNE_NVRTC` is set but unusable; [`NvrtcError::NotFound`]
    /// with everything that was looked at; [`NvrtcError::Fetch`] and [`NvrtcError::Digest`] when
    /// the download fails or is not the pinned wheel.
    pub fn open(options: &OpenOptions<'_>) -> Result<Nvrtc, NvrtcError> {
        let pin = pin_for(options.driver_cuda_major, std::env::consts::ARCH);
        open_in(&Places::of_process(), pin, options)
    }

    /// CUDA version as (major, minor).
    pub fn version(&self) -> (i32, i32) {
        self.inner.version
    }

    /// A text that differs whenever the compiler does, for cache fingerprints:
    /// `13.0-<16 hexadecimal digits>`. The digits are SHA-256 over the library's length, its
    /// first and its last MiB: NVRTC reports no patch level (13.0.48 and 13.0.88 both say 13.0),
    /// and hashing all of its 100 MB would cost every start half a second.
    pub fn fingerprint(&self) -> &str {
        &self.inner.fingerprint
    }

    /// Absolute path of the library.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Which step of the search found it.
    pub fn found_by(&self) -> FoundBy {
        self.inner.found_by
    }

    /// Compute capabilities this compiler targets, ascending, for example `[75, 80, 86, ...]`.
    ///
    /// # Errors
    /// [`NvrtcError::Call`] if the library refuses the question.
    pub fn supported_archs(&self) -> Result<Vec<u32>, NvrtcError> {
        let api = &self.inner.api;
        let place = self.inner.path.display().to_string();
        let mut count: c_int = 0;
        // SAFETY: writes one int.
        let status = unsafe { (api.num_archs)(&mut count) };
        api.check(status, "nvrtcGetNumSupportedArchs", &place)?;
        let mut archs = vec![0 as c_int; usize::try_from(count).unwrap_or(0)];
        // SAFETY: writes `count` ints, the number just asked for.
        let status = unsafe { (api.archs)(archs.as_mut_ptr()) };
        api.check(status, "nvrtcGetSupportedArchs", &place)?;
        Ok(archs.into_iter().filter_map(|a| u32::try_from(a).ok()).collect())
    }

    /// Loads one candidate and refuses what could not work.
    pub(super) fn load(
        candidate: &Candidate,
        driver_cuda_major: Option<u32>,
    ) -> Result<Nvrtc, NvrtcError> {
        let path = std::path::absolute(&candidate.path).unwrap_or_else(|_| candidate.path.clone());
        if !has_builtins(&path) {
            return Err(NvrtcError::BuiltinsMissing { path });
        }
        let api = Api::load(&path)?;
        Nvrtc::accept(api, path, candidate.found_by, driver_cuda_major)
    }

    /// Loads by soname, then finds out which file the loader took.
    fn load_soname(soname: &str, driver_cuda_major: Option<u32>) -> Result<Nvrtc, NvrtcError> {
        let api = Api::load(Path::new(soname))?;
        let path = mapped_file(api.version as *const () as usize).unwrap_or_else(|| soname.into());
        if path.is_absolute() && !has_builtins(&path) {
            return Err(NvrtcError::BuiltinsMissing { path });
        }
        Nvrtc::accept(api, path, FoundBy::Soname, driver_cuda_major)
    }

    fn accept(
        api: Api,
        path: PathBuf,
        found_by: FoundBy,
        driver_cuda_major: Option<u32>,
    ) -> Result<Nvrtc, NvrtcError> {
        let (mut major, mut minor): (c_int, c_int) = (0, 0);
        // SAFETY: writes two ints.
        let status = unsafe { (api.version)(&mut major, &mut minor) };
        api.check(status, "nvrtcVersion", &path.display().to_string())?;
        if let Some(reason) = unsuitable(major, driver_cuda_major) {
            return Err(NvrtcError::Load { path, reason });
        }
        load_builtins(&path, major, minor)?;
        let digest =
            file_digest(&path).map_err(|source| NvrtcError::Io { path: path.clone(), source })?;
        let fingerprint = format!("{major}.{minor}-{digest}");
        let inner = Inner { api, path, found_by, version: (major, minor), fingerprint };
        Ok(Nvrtc { inner: Arc::new(inner) })
    }
}

/// The search itself, over given places.
pub(super) fn open_in(
    places: &Places,
    pin: Option<&'static Pin>,
    options: &OpenOptions<'_>,
) -> Result<Nvrtc, NvrtcError> {
    let driver = options.driver_cuda_major;
    if let (Some(candidate), Some(setting)) = (places.in_setting()?, &places.setting) {
        return Nvrtc::load(&candidate, driver)
            .map_err(|e| NvrtcError::Setting { path: setting.clone(), reason: e.to_string() });
    }
    let mut passed_over = Vec::new();
    // Each step is only asked when the earlier ones gave nothing: one of them starts Python.
    let steps: [&dyn Fn() -> Vec<Candidate>; 3] =
        [&|| places.in_toolkits(), &|| places.in_site_packages(), &|| {
            pin.and_then(|p| places.in_data_folder(p)).into_iter().collect()
        }];
    for candidate in steps.iter().flat_map(|step| step()) {
        match Nvrtc::load(&candidate, driver) {
            Ok(nvrtc) => return Ok(nvrtc),
            Err(e) => {
                (options.notice)(&format!("passing over an NVRTC: {e}"));
                passed_over.push(e.to_string());
            }
        }
    }
    for soname in &places.sonames {
        match Nvrtc::load_soname(soname, driver) {
            Ok(nvrtc) => return Ok(nvrtc),
            // Absence is the normal case here, and not worth a notice.
            Err(e) => passed_over.push(e.to_string()),
        }
    }
    fetch_or_explain(places, pin, options, passed_over)
}

fn fetch_or_explain(
    places: &Places,
    pin: Option<&'static Pin>,
    options: &OpenOptions<'_>,
    passed_over: Vec<String>,
) -> Result<Nvrtc, NvrtcError> {
    let requirement = pin.map_or_else(|| "nvidia-cuda-nvrtc".to_owned(), Pin::requirement);
    if !options.allow_fetch {
        let fixed = "QTUNE_NVRTC (unset), CUDA toolkits, Python site-packages, the data folder";
        let looked_at = std::iter::once(fixed.to_owned()).chain(passed_over);
        let looked_at = looked_at.collect::<Vec<_>>().join("; ");
        return Err(NvrtcError::NotFound { looked_at, requirement });
    }
    let refuse = |reason: &str| NvrtcError::Fetch {
        requirement: requirement.clone(),
        reason: reason.to_owned(),
    };
    let pin = pin.ok_or_else(|| refuse("there is no pinned wheel for this CPU"))?;
    let data = places
        .data
        .as_ref()
        .ok_or_else(|| refuse("there is no data folder: set QTUNE_DATA, XDG_DATA_HOME or HOME"))?;
    let path = fetch::fetch(pin, data, options.notice)?;
    Nvrtc::load(&Candidate { path, found_by: FoundBy::Fetched }, options.driver_cuda_major)
}

/// Loads the builtins that lie beside `library`.
///
/// NVRTC opens them by soname at the first compile, and not every build has an RPATH that leads
/// to its own folder (13.0.88 has none). The dynamic loader answers such an open with a library
/// of that soname which is already there, so loading the right file first settles it.
fn load_builtins(library: &Path, major: c_int, minor: c_int) -> Result<(), NvrtcError> {
    let Some(folder) = real_folder(library).filter(|f| f.is_absolute()) else { return Ok(()) };
    let builtins = folder.join(format!("{BUILTINS}.{major}.{minor}"));
    if !builtins.is_file() {
        return Err(NvrtcError::BuiltinsMissing { path: library.to_path_buf() });
    }
    keep_loaded(&builtins).map(drop)
}

/// Why a compiler of CUDA `major` is of no use, if it is not.
fn unsuitable(major: c_int, driver_cuda_major: Option<u32>) -> Option<String> {
    let major = u32::try_from(major).unwrap_or(0);
    if major < OLDEST_CUDA {
        return Some(format!("it is of CUDA {major}, and {OLDEST_CUDA} or later is needed"));
    }
    match driver_cuda_major {
        Some(driver) if major > driver => Some(format!(
            "it is of CUDA {major}, and this machine's driver loads CUDA {driver} at most"
        )),
        _ => None,
    }
}

/// First 16 hexadecimal digits of SHA-256 over length, first MiB and last MiB of a file.
fn file_digest(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    let mut hash = Sha256::new();
    hash.update(len.to_le_bytes());
    let mut span = Vec::new();
    (&mut file).take(FINGERPRINT_SPAN).read_to_end(&mut span)?;
    file.seek(SeekFrom::Start(len.saturating_sub(FINGERPRINT_SPAN)))?;
    file.take(FINGERPRINT_SPAN).read_to_end(&mut span)?;
    hash.update(&span);
    Ok(hash.finalize()[..8].iter().map(|b| format!("{b:02x}")).collect())
}

/// The file whose mapping holds `address` in this process, from `/proc/self/maps` (proc(5)).
fn mapped_file(address: usize) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| {
        let (start, rest) = line.split_once('-')?;
        let (end, rest) = rest.split_once(' ')?;
        let start = usize::from_str_radix(start, 16).ok()?;
        let end = usize::from_str_radix(end, 16).ok()?;
        let path = &rest[rest.find('/')?..];
        (start..end).contains(&address).then(|| PathBuf::from(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compilers_newer_than_the_driver_or_too_old_are_unsuitable() {
        assert_eq!(unsuitable(13, None), None);
        assert_eq!(unsuitable(12, Some(13)), None);
        assert!(unsuitable(13, Some(12)).is_some_and(|r| r.contains("driver loads CUDA 12")));
        assert!(unsuitable(11, None).is_some_and(|r| r.contains("12 or later")));
    }

    #[test]
    fn a_function_of_this_program_is_mapped_from_this_program() {
        let here =
            mapped_file(mapped_file as *const () as usize).expect("test binaries are mapped files");
        assert_eq!(here, std::env::current_exe().expect("own path"));
    }

    #[test]
    fn the_file_digest_sees_both_ends_and_the_length() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let digest = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).expect("write");
            file_digest(&path).expect("digest")
        };
        let base = vec![0u8; 3 << 20];
        let mut head = base.clone();
        head[0] = 1;
        let mut tail = base.clone();
        *tail.last_mut().expect("not empty") = 1;
        let all = [
            digest("base", &base),
            digest("head", &head),
            digest("tail", &tail),
            digest("short", &base[1..]),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), 4);
        assert_eq!(all[0], digest("copy", &base));
        assert_eq!(all[0].len(), 16);
    }
}

//! Where NVRTC may lie on this machine.

use super::error::NvrtcError;
use super::pin::Pin;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Which step of the search found the library, in search order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FoundBy {
    /// The environment variable `QTUNE_NVRTC` (a file, or a folder that holds it).
    Env,
    /// A CUDA toolkit: `CUDA_HOME`, `CUDA_PATH`, `/usr/local/cuda`.
    Toolkit,
    /// A pip-installed wheel in Python's site-packages.
    SitePackages,
    /// An earlier fetch in qtune's data folder.
    DataFolder,
    /// The dynamic loader's own search by plain soname.
    Soname,
    /// Fetched just now into the data folder.
    Fetched,
}

impl FoundBy {
    /// A few words for people.
    pub fn describe(self) -> &'static str {
        match self {
            FoundBy::Env => "QTUNE_NVRTC",
            FoundBy::Toolkit => "CUDA toolkit",
            FoundBy::SitePackages => "Python site-packages",
            FoundBy::DataFolder => "qtune's data folder",
            FoundBy::Soname => "dynamic loader's search path",
            FoundBy::Fetched => "fetched wheel",
        }
    }
}

/// File names of the library, the newest CUDA first.
const FILE_NAMES: [&str; 3] = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];
/// Sonames handed to the dynamic loader as the last resort before a fetch.
const SONAMES: [&str; 2] = ["libnvrtc.so.13", "libnvrtc.so.12"];
/// Sub-folders of a CUDA toolkit that hold libraries.
const TOOLKIT_FOLDERS: [&str; 3] = ["lib64", "lib", "targets/x86_64-linux/lib"];
/// Where the two generations of wheels put their libraries below site-packages.
const WHEEL_FOLDERS: [&str; 2] = ["nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib"];
/// Prints every site folder, one a line, in import order.
const SITE_SCRIPT: &str = "import sys\nfor p in sys.path:\n    if p: print(p)";

/// One library file that exists and may be tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub path: PathBuf,
    pub found_by: FoundBy,
}

/// The machine as the search sees it; tests build their own.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    /// Value of `QTUNE_NVRTC`.
    pub setting: Option<PathBuf>,
    /// Roots of CUDA toolkits, in order.
    pub toolkits: Vec<PathBuf>,
    /// Folders of installed Python packages; `None`: ask `python3` when needed.
    pub site_packages: Option<Vec<PathBuf>>,
    /// qtune's data folder, `None` when the machine names no home.
    pub data: Option<PathBuf>,
    /// Names handed to the dynamic loader's own search.
    pub sonames: Vec<&'static str>,
}

impl Places {
    /// The places of this process's environment.
    pub fn of_process() -> Places {
        let set = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let named = [set("CUDA_HOME"), set("CUDA_PATH"), Some("/usr/local/cuda".into())];
        Places {
            setting: set("QTUNE_NVRTC"),
            toolkits: named.into_iter().flatten().collect(),
            site_packages: None,
            data: data_dir(),
            sonames: SONAMES.to_vec(),
        }
    }

    /// The file that `QTUNE_NVRTC` names, if the variable is set.
    ///
    /// # Errors
    /// [`NvrtcError::Setting`] if it is set to something that holds no library.
    pub fn in_setting(&self) -> Result<Option<Candidate>, NvrtcError> {
        let Some(setting) = &self.setting else { return Ok(None) };
        let path = if setting.is_dir() { first_in(setting) } else { Some(setting.clone()) };
        let refuse =
            |reason: &str| NvrtcError::Setting { path: setting.clone(), reason: reason.to_owned() };
        match path {
            Some(path) if path.is_file() => Ok(Some(Candidate { path, found_by: FoundBy::Env })),
            Some(_) => Err(refuse("there is no such file or folder")),
            None => Err(refuse("the folder holds no libnvrtc.so")),
        }
    }

    /// Libraries of CUDA toolkits.
    pub fn in_toolkits(&self) -> Vec<Candidate> {
        let folders = self.toolkits.iter().flat_map(|t| TOOLKIT_FOLDERS.map(|f| t.join(f)));
        candidates(folders, FoundBy::Toolkit)
    }

    /// Libraries of pip-installed wheels. Asks `python3` where it keeps packages (about 20 ms);
    /// no Python means no candidates.
    pub fn in_site_packages(&self) -> Vec<Candidate> {
        let sites = self.site_packages.clone().unwrap_or_else(ask_python);
        let folders = sites.iter().flat_map(|s| WHEEL_FOLDERS.map(|f| s.join(f)));
        candidates(folders, FoundBy::SitePackages)
    }

    /// The library that an earlier fetch of `pin` left, if both files have their pinned length.
    pub fn in_data_folder(&self, pin: &Pin) -> Option<Candidate> {
        let folder = self.data.as_ref()?.join(pin.folder());
        is_whole(&folder, pin).then(|| Candidate {
            path: folder.join(pin.files[0].file_name()),
            found_by: FoundBy::DataFolder,
        })
    }
}

/// Whether `folder` holds every file of `pin` at its full length.
pub(super) fn is_whole(folder: &Path, pin: &Pin) -> bool {
    pin.files.iter().all(|file| {
        let found = folder.join(file.file_name()).metadata();
        found.is_ok_and(|m| m.is_file() && m.len() == file.len)
    })
}

/// qtune's data folder: `$QTUNE_DATA`, else `$XDG_DATA_HOME/qtune`, else `~/.local/share/qtune`.
/// `None` where the environment names none of them. The folder need not exist.
pub fn data_dir() -> Option<PathBuf> {
    data_dir_from(|name| env::var_os(name))
}

fn data_dir_from(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name: &str| variable(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("QTUNE_DATA")
        .or_else(|| set("XDG_DATA_HOME").map(|d| d.join("qtune")))
        .or_else(|| set("HOME").map(|h| h.join(".local/share/qtune")))
}

/// Start of the name of the library of built-in functions, which belongs beside NVRTC.
pub(super) const BUILTINS: &str = "libnvrtc-builtins.so";

/// Whether some [`BUILTINS`] lies in the folder of `library` once links are followed.
pub(super) fn has_builtins(library: &Path) -> bool {
    let Some(Ok(entries)) = real_folder(library).map(std::fs::read_dir) else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with(BUILTINS))
}

/// The folder that holds the file which `library` is or links to.
pub(super) fn real_folder(library: &Path) -> Option<PathBuf> {
    let real = library.canonicalize().unwrap_or_else(|_| library.to_path_buf());
    real.parent().map(Path::to_path_buf)
}

fn first_in(folder: &Path) -> Option<PathBuf> {
    FILE_NAMES.iter().map(|name| folder.join(name)).find(|path| path.is_file())
}

/// The libraries in `folders` that exist, each real file once.
fn candidates(folders: impl Iterator<Item = PathBuf>, found_by: FoundBy) -> Vec<Candidate> {
    let mut seen = Vec::new();
    let mut found = Vec::new();
    for path in folders.filter_map(|folder| first_in(&folder)) {
        let real = path.canonicalize().unwrap_or_else(|_| path.clone());
        if !seen.contains(&real) {
            seen.push(real);
            found.push(Candidate { path, found_by });
        }
    }
    found
}

fn ask_python() -> Vec<PathBuf> {
    let output = Command::new("python3")
        .args(["-c", SITE_SCRIPT])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).lines().map(PathBuf::from).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_folder_follows_the_three_variables_in_order() {
        let with = |pairs: &'static [(&str, &str)]| {
            data_dir_from(move |name| {
                pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v))
            })
        };
        let all = &[("QTUNE_DATA", "/q"), ("XDG_DATA_HOME", "/x"), ("HOME", "/h")];
        assert_eq!(with(all), Some("/q".into()));
        assert_eq!(with(&[("XDG_DATA_HOME", "/x"), ("HOME", "/h")]), Some("/x/qtune".into()));
        assert_eq!(
            with(&[("QTUNE_DATA", ""), ("HOME", "/h")]),
            Some("/h/.local/share/qtune".into())
        );
        assert_eq!(with(&[]), None);
    }
}

//! The search over fake machines, the installation of fake wheels, and real compiles where an
//! NVRTC is at hand.

use super::error::NvrtcError;
use super::fetch::{install, Scratch};
use super::find::{is_whole, FoundBy, Places};
use super::open::{open_in, Nvrtc, OpenOptions};
use super::parse_ptxas_log;
use super::pin::{pin_for, Pin, PinnedFile};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::{tempdir, TempDir};

fn no_fetch() -> OpenOptions<'static> {
    OpenOptions { allow_fetch: false, ..OpenOptions::default() }
}

fn folder() -> TempDir {
    tempdir().expect("temporary folder")
}

/// Creates `folder/name` with some bytes, and the folders above it.
fn touch(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().expect("has a parent")).expect("create folders");
    fs::write(&path, b"not a library").expect("write");
    path
}

fn toy_pin(wheel: &[u8]) -> Pin {
    let digest: String = Sha256::digest(wheel).iter().map(|b| format!("{b:02x}")).collect();
    Pin {
        package: "toy",
        version: "1.2.3",
        cpu: "x86_64",
        sha256: digest.leak(),
        files: [
            PinnedFile { entry: "nvidia/lib/libnvrtc.so.13", len: 5 },
            PinnedFile { entry: "nvidia/lib/libnvrtc-builtins.so.13.0", len: 3 },
        ],
    }
}

fn toy_wheel(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).expect("start");
        zip.write_all(bytes).expect("write");
    }
    zip.finish().expect("finish").into_inner()
}

fn good_wheel() -> Vec<u8> {
    toy_wheel(&[
        ("nvidia/lib/libnvrtc.so.13", b"hello"),
        ("nvidia/lib/libnvrtc-builtins.so.13.0", b"abc"),
        ("../../escape", b"never unpacked"),
    ])
}

/// Installs `wheel` into `data` under `pin`, as a fetch does after the download.
fn install_toy(pin: &Pin, wheel: &[u8], data: &Path) -> Result<PathBuf, NvrtcError> {
    let scratch = Scratch::create(data)?;
    let file = scratch.path.join("toy.whl");
    fs::write(&file, wheel).expect("write");
    install(pin, &file, &scratch.path, data)
}

#[test]
fn the_setting_may_be_a_file_or_a_folder_and_is_never_replaced() {
    let machine = folder();
    let file = touch(machine.path(), "a/libnvrtc.so.12");
    let places = |setting: PathBuf| Places { setting: Some(setting), ..Places::default() };

    for setting in [file.clone(), machine.path().join("a")] {
        let found = places(setting).in_setting().expect("usable").expect("set");
        assert_eq!((found.path, found.found_by), (file.clone(), FoundBy::Env));
    }
    for setting in ["missing", ""] {
        let refused = places(machine.path().join(setting)).in_setting();
        assert!(matches!(refused, Err(NvrtcError::Setting { .. })), "{setting:?}: {refused:?}");
    }
    // A file that is there but is no library: an error, not the next place in the order.
    let error = open_in(&places(file), None, &no_fetch()).expect_err("not a library");
    assert!(error.to_string().contains("libnvrtc-builtins"), "{error}");
}

#[test]
fn toolkits_and_site_packages_are_searched_in_their_own_order() {
    let machine = folder();
    let root = machine.path();
    let second = touch(root, "cuda-12/lib64/libnvrtc.so.12");
    let first = touch(root, "cuda-13/lib64/libnvrtc.so.13");
    touch(root, "cuda-13/lib64/libnvrtc.so");
    let wheel_12 = touch(root, "site/nvidia/cuda_nvrtc/lib/libnvrtc.so.12");
    let wheel_13 = touch(root, "site/nvidia/cu13/lib/libnvrtc.so.13");
    let places = Places {
        toolkits: vec![root.join("none"), root.join("cuda-13"), root.join("cuda-12")],
        site_packages: Some(vec![root.join("empty"), root.join("site")]),
        ..Places::default()
    };
    let paths = |found: Vec<super::find::Candidate>| -> Vec<PathBuf> {
        found.into_iter().map(|c| c.path).collect()
    };
    assert_eq!(paths(places.in_toolkits()), [first, second]);
    assert_eq!(paths(places.in_site_packages()), [wheel_13, wheel_12]);
}

#[test]
fn one_toolkit_reached_by_two_names_is_tried_once() {
    let machine = folder();
    touch(machine.path(), "cuda-13/lib64/libnvrtc.so.13");
    let link = machine.path().join("cuda");
    std::os::unix::fs::symlink(machine.path().join("cuda-13"), &link).expect("link");
    let toolkits = vec![link, machine.path().join("cuda-13")];
    assert_eq!(Places { toolkits, ..Places::default() }.in_toolkits().len(), 1);
}

#[test]
fn unusable_libraries_are_passed_over_with_a_notice_and_named_in_the_error() {
    let machine = folder();
    let broken = touch(machine.path(), "cuda/lib64/libnvrtc.so.13");
    touch(machine.path(), "cuda/lib64/libnvrtc-builtins.so.13.0");
    let bare = touch(machine.path(), "site/nvidia/cu13/lib/libnvrtc.so.13");
    let places = Places {
        toolkits: vec![machine.path().join("cuda")],
        site_packages: Some(vec![machine.path().join("site")]),
        data: Some(machine.path().join("data")),
        ..Places::default()
    };
    let heard = std::cell::RefCell::new(Vec::new());
    let notice = |line: &str| heard.borrow_mut().push(line.to_owned());
    let options = OpenOptions { allow_fetch: false, driver_cuda_major: None, notice: &notice };
    let error = open_in(&places, pin_for(None, "x86_64"), &options).expect_err("nothing usable");
    let NvrtcError::NotFound { looked_at, requirement } = error else { panic!("{error}") };
    assert!(looked_at.contains(&broken.display().to_string()), "{looked_at}");
    assert!(looked_at.contains(&bare.display().to_string()), "{looked_at}");
    assert_eq!(requirement, "nvidia-cuda-nvrtc==13.0.88");
    assert_eq!(heard.borrow().len(), 2);
    assert!(!machine.path().join("data").exists(), "nothing is created without a fetch");
}

#[test]
fn a_wheel_is_unpacked_whole_and_found_again() {
    let data = folder();
    let pin = toy_pin(&good_wheel());
    let places = Places { data: Some(data.path().to_path_buf()), ..Places::default() };
    assert_eq!(places.in_data_folder(&pin), None);

    let path = install_toy(&pin, &good_wheel(), data.path()).expect("installs");
    assert_eq!(fs::read(&path).expect("there"), b"hello");
    let found = places.in_data_folder(&pin).expect("found");
    assert_eq!((found.path, found.found_by), (path, FoundBy::DataFolder));
    let names: Vec<_> = fs::read_dir(data.path()).expect("list").flatten().collect();
    assert_eq!(names.len(), 1, "the scratch folder is gone: {names:?}");
}

#[test]
fn a_wheel_with_another_digest_is_refused_before_it_is_opened() {
    let data = folder();
    let pin = toy_pin(&good_wheel());
    let mut wheel = good_wheel();
    *wheel.last_mut().expect("not empty") ^= 1;
    let error = install_toy(&pin, &wheel, data.path()).expect_err("digest");
    assert!(matches!(error, NvrtcError::Digest { .. }), "{error}");
    assert_eq!(fs::read_dir(data.path()).expect("list").count(), 0);
}

#[test]
fn a_wheel_whose_contents_are_not_the_pinned_ones_leaves_nothing() {
    let library: (&str, &[u8]) = ("nvidia/lib/libnvrtc.so.13", b"hello");
    let wheels = [
        toy_wheel(&[library]),
        toy_wheel(&[library, ("nvidia/lib/libnvrtc-builtins.so.13.0", b"too long")]),
        toy_wheel(&[library, ("nvidia/lib/libnvrtc-builtins.so.13.0", b"")]),
        b"not a zip".to_vec(),
    ];
    for wheel in wheels {
        let data = folder();
        let error = install_toy(&toy_pin(&wheel), &wheel, data.path()).expect_err("contents");
        assert!(matches!(error, NvrtcError::Io { .. }), "{error}");
        assert_eq!(fs::read_dir(data.path()).expect("list").count(), 0);
    }
}

#[test]
fn concurrent_installs_all_succeed_and_a_damaged_folder_is_replaced() {
    let data = folder();
    let pin = toy_pin(&good_wheel());
    touch(data.path(), "nvrtc-1.2.3/libnvrtc.so.13");
    assert!(!is_whole(&data.path().join("nvrtc-1.2.3"), &pin));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| install_toy(&pin, &good_wheel(), data.path()).expect("installs"));
        }
    });
    assert!(is_whole(&data.path().join("nvrtc-1.2.3"), &pin));
    assert_eq!(fs::read_dir(data.path()).expect("list").count(), 1);
}

/// NVRTC, found or fetched; prints why a test is skipped.
fn nvrtc_here() -> Option<Nvrtc> {
    match Nvrtc::open(&OpenOptions::default()) {
        Ok(nvrtc) => Some(nvrtc),
        Err(e) => {
            println!("skipped: {e}");
            None
        }
    }
}

const SOURCE: &str =
    "extern \"C\" __global__ void __launch_bounds__(128) scale(float *x, float f)\n\
    { x[blockIdx.x * 128 + threadIdx.x] *= f; }\n";

#[test]
fn one_compile_gives_ptx_cubin_and_statistics() {
    let Some(nvrtc) = nvrtc_here() else { return };
    assert!(nvrtc.path().is_absolute());
    assert!(nvrtc.fingerprint().starts_with(&format!("{}.", nvrtc.version().0)));
    assert!(nvrtc.supported_archs().expect("asked").contains(&90));
    for arch in ["sm_80", "sm_90a", "sm_120"] {
        let compiled = nvrtc.compile(SOURCE, "scale.cu", arch, &[]).expect("compiles");
        assert!(compiled.ptx.contains(".entry scale"), "{}", compiled.ptx);
        assert!(!compiled.ptx.contains('\0'));
        assert_eq!(&compiled.cubin[..4], b"\x7fELF");
        let usage = parse_ptxas_log(&compiled.log);
        assert_eq!(usage.len(), 1, "{}", compiled.log);
        assert!(usage[0].kernel == "scale" && usage[0].registers > 0, "{usage:?}");
    }
}

#[test]
fn a_library_without_the_builtins_of_its_version_is_refused() {
    let Some(nvrtc) = nvrtc_here() else { return };
    let machine = folder();
    let copy = machine.path().join("libnvrtc.so.13");
    fs::copy(nvrtc.path(), &copy).expect("copy");
    touch(machine.path(), "libnvrtc-builtins.so.0.1");
    let places = Places { setting: Some(copy), ..Places::default() };
    let error = open_in(&places, None, &no_fetch()).expect_err("wrong builtins");
    assert!(error.to_string().contains("no libnvrtc-builtins of its version"), "{error}");
}

#[test]
fn compile_errors_carry_the_source_name_and_the_log() {
    let Some(nvrtc) = nvrtc_here() else { return };
    let error = |source: &str, options: &[&str]| {
        let options: Vec<String> = options.iter().map(|&o| o.to_owned()).collect();
        nvrtc.compile(source, "bad.cu", "sm_90a", &options).expect_err("bad").to_string()
    };
    let text = error("__global__ void k() { undeclared(); }", &[]);
    assert!(text.contains("bad.cu(1)") && text.contains("undeclared"), "{text}");
    let text = error("__global__ void k() { asm volatile(\"no.such;\"); }", &[]);
    assert!(text.contains("ptxas"), "{text}");
    let text = error(SOURCE, &["--no-such-option"]);
    assert!(text.contains("no-such-option"), "{text}");
    let text = error("a\0b", &[]);
    assert!(text.contains("NUL byte at offset 1"), "{text}");
}

#[test]
fn compiles_run_in_parallel_and_agree() {
    let Some(nvrtc) = nvrtc_here() else { return };
    let compile = || nvrtc.compile(SOURCE, "scale.cu", "sm_90a", &[]).expect("compiles");
    let expected = compile();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(compile)).collect();
        for thread in threads {
            // Not assert_eq!, which would print both cubins.
            assert!(thread.join().expect("no panic") == expected);
        }
    });
}

#[test]
fn the_pinned_wheel_is_fetched_when_asked_for() {
    if std::env::var_os("QTUNE_TEST_FETCH").is_none() {
        println!("skipped: set QTUNE_TEST_FETCH=1 to download the pinned wheel (60 MB)");
        return;
    }
    let data = folder();
    let places = Places {
        site_packages: Some(Vec::new()),
        data: Some(data.path().to_path_buf()),
        ..Places::default()
    };
    let pin = pin_for(None, std::env::consts::ARCH);
    let nvrtc = open_in(&places, pin, &OpenOptions::default()).expect("fetches");
    assert_eq!((nvrtc.found_by(), nvrtc.version()), (FoundBy::Fetched, (13, 0)));
    let again = open_in(&places, pin, &no_fetch()).expect("found");
    assert_eq!(again.found_by(), FoundBy::DataFolder);
}

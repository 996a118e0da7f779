//! The wheels that qtune fetches: exact versions, digests and contents.

/// One `.so` inside a wheel that is unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PinnedFile {
    /// Path inside the wheel; the file keeps its last component when unpacked.
    pub entry: &'static str,
    /// Unpacked length in bytes: a cheap check that an unpacked folder is whole.
    pub len: u64,
}

impl PinnedFile {
    /// The name the file has in the data folder.
    pub fn file_name(&self) -> &'static str {
        self.entry.rsplit('/').next().unwrap_or(self.entry)
    }
}

/// One pinned wheel. `files[0]` is libnvrtc, `files[1]` its builtins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pin {
    /// Name on the package index.
    pub package: &'static str,
    /// Exact version.
    pub version: &'static str,
    /// The CPU the wheel is for, as `std::env::consts::ARCH` spells it.
    pub cpu: &'static str,
    /// SHA-256 of the wheel, lower-case hexadecimal.
    pub sha256: &'static str,
    /// What is unpacked.
    pub files: [PinnedFile; 2],
}

impl Pin {
    /// What pip is asked for.
    pub fn requirement(&self) -> String {
        format!("{}=={}", self.package, self.version)
    }

    /// Sub-folder of the data folder.
    pub fn folder(&self) -> String {
        format!("nvrtc-{}", self.version)
    }
}

/// CUDA 13: also the choice without a driver. 13.0 and not later, because a 13.0 driver loads
/// neither the PTX nor every cubin of a later 13.x compiler.
const CUDA_13: [Pin; 2] = [
    Pin {
        package: "nvidia-cuda-nvrtc",
        version: "13.0.88",
        cpu: "x86_64",
        sha256: "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575",
        files: [
            PinnedFile { entry: "nvidia/cu13/lib/libnvrtc.so.13", len: 109_338_064 },
            PinnedFile { entry: "nvidia/cu13/lib/libnvrtc-builtins.so.13.0", len: 4_380_616 },
        ],
    },
    Pin {
        package: "nvidia-cuda-nvrtc",
        version: "13.0.88",
        cpu: "aarch64",
        sha256: "d27f20a0ca67a4bb34268a5e951033496c5b74870b868bacd046b1b8e0c3267b",
        files: [
            PinnedFile { entry: "nvidia/cu13/lib/libnvrtc.so.13", len: 99_505_944 },
            PinnedFile { entry: "nvidia/cu13/lib/libnvrtc-builtins.so.13.0", len: 4_380_456 },
        ],
    },
];

/// CUDA 12 drivers, which many servers still run: a cubin of CUDA 13 does not load there.
const CUDA_12: [Pin; 2] = [
    Pin {
        package: "nvidia-cuda-nvrtc-cu12",
        version: "12.9.86",
        cpu: "x86_64",
        sha256: "210cf05005a447e29214e9ce50851e83fc5f4358df8b453155d5e1918094dcb4",
        files: [
            PinnedFile { entry: "nvidia/cuda_nvrtc/lib/libnvrtc.so.12", len: 106_244_480 },
            PinnedFile { entry: "nvidia/cuda_nvrtc/lib/libnvrtc-builtins.so.12.9", len: 7_202_760 },
        ],
    },
    Pin {
        package: "nvidia-cuda-nvrtc-cu12",
        version: "12.9.86",
        cpu: "aarch64",
        sha256: "096d4de6bda726415dfaf3198d4f5c522b8e70139c97feef5cd2ca6d4cd9cead",
        files: [
            PinnedFile { entry: "nvidia/cuda_nvrtc/lib/libnvrtc.so.12", len: 101_718_688 },
            PinnedFile { entry: "nvidia/cuda_nvrtc/lib/libnvrtc-builtins.so.12.9", len: 7_202_600 },
        ],
    },
];

/// The pin for a driver's CUDA major version (`None`: no driver) on the CPU called `cpu`, if
/// NVIDIA publishes wheels for that CPU.
pub(super) fn pin_for(driver_cuda_major: Option<u32>, cpu: &str) -> Option<&'static Pin> {
    let pins = if driver_cuda_major == Some(12) { &CUDA_12 } else { &CUDA_13 };
    pins.iter().find(|pin| pin.cpu == cpu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cuda_12_driver_gets_a_cuda_12_compiler_and_everything_else_13() {
        let version = |major| pin_for(major, "x86_64").map(|p| p.version);
        assert_eq!(version(Some(12)), Some("12.9.86"));
        assert_eq!(version(Some(13)), Some("13.0.88"));
        assert_eq!(version(None), Some("13.0.88"));
        assert_eq!(pin_for(None, "riscv64"), None);
    }

    #[test]
    fn pins_are_well_formed() {
        for pin in CUDA_13.iter().chain(&CUDA_12) {
            assert_eq!(pin.sha256.len(), 64, "{}", pin.requirement());
            assert!(pin.sha256.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
            assert!(pin.files[0].file_name().starts_with("libnvrtc.so."));
            assert!(pin.files[1].file_name().starts_with("libnvrtc-builtins.so."));
        }
    }
}

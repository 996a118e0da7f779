//! Launches, checked before the driver sees them.

use super::driver::{check, CudaError};
use super::gpu::Gpu;
use super::kernel::Kernel;
use super::memory::Memory;
use super::tensor_map::TensorMap;
use cudarc::driver::sys;
use std::ffi::c_void;
use std::ptr;

/// Largest grid in x, y and z (CUDA programming guide, "Compute Capabilities").
const MAX_GRID: [u32; 3] = [0x7fff_ffff, 0xffff, 0xffff];
/// Largest block in x, y and z.
const MAX_BLOCK: [u32; 3] = [1024, 1024, 64];
/// Largest cluster that every GPU with clusters takes.
const MAX_CLUSTER: u64 = 8;
/// First compute capability with clusters and programmatic dependent launch.
const CLUSTER_CAPABILITY: u8 = 9;

/// One kernel argument.
#[derive(Debug, Clone, Copy)]
pub enum Argument<'a> {
    /// The address of byte `offset` of an allocation.
    Memory(&'a Memory, usize),
    /// A 32-bit integer.
    U32(u32),
    /// A 64-bit integer.
    U64(u64),
    /// A 32-bit float.
    F32(f32),
    /// A tensor map by value.
    TensorMap(TensorMap),
    /// A structure passed by value, in its memory layout. At most 4 KB.
    Bytes(&'a [u8]),
}

/// A launch of one kernel.
#[derive(Debug, Clone)]
pub struct Launch<'a> {
    /// Thread blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y and z.
    pub block: [u32; 3],
    /// Thread blocks of a cluster in x, y and z, for kernels that use clusters.
    pub cluster: Option<[u32; 3]>,
    /// Dynamic shared memory in bytes; no more than [`Kernel::load`] was told.
    pub dynamic_shared_bytes: u32,
    /// Whether it may start before the launch ahead of it on the stream has ended (programmatic
    /// dependent launch). The kernel then waits for that launch by itself.
    pub dependent: bool,
    /// In the order of the kernel's parameters.
    pub arguments: Vec<Argument<'a>>,
}

impl Kernel {
    /// Launches it on its GPU's stream, without waiting for the end.
    ///
    /// # Errors
    /// [`CudaError::BadLaunch`] for dimensions or arguments that cannot be right;
    /// [`CudaError::Driver`] if the driver refuses the launch or an earlier one has failed.
    pub fn launch(&self, launch: &Launch<'_>) -> Result<(), CudaError> {
        self.gpu().make_current()?;
        self.launch_on(self.gpu().stream(), launch)
    }

    /// As [`Kernel::launch`] on a stream of the current context.
    pub(super) fn launch_on(
        &self,
        stream: sys::CUstream,
        launch: &Launch<'_>,
    ) -> Result<(), CudaError> {
        let refuse = |reason| CudaError::BadLaunch { reason: format!("{}: {reason}", self.name()) };
        let limits = Limits {
            capability: self.gpu().attributes().capability.0,
            threads: self.max_threads(),
            shared_bytes: self.gpu().attributes().shared_bytes_per_block,
            static_shared_bytes: self.static_shared_bytes(),
        };
        check_dimensions(launch, &limits).map_err(refuse)?;
        let values = Values::of(self.gpu(), &launch.arguments).map_err(refuse)?;
        check_sizes(&values.sizes, self.param_sizes()).map_err(refuse)?;
        let mut pointers = values.pointers();
        let mut attributes = attributes(launch);
        let [grid_x, grid_y, grid_z] = launch.grid;
        let [block_x, block_y, block_z] = launch.block;
        let config = sys::CUlaunchConfig {
            gridDimX: grid_x,
            gridDimY: grid_y,
            gridDimZ: grid_z,
            blockDimX: block_x,
            blockDimY: block_y,
            blockDimZ: block_z,
            sharedMemBytes: launch.dynamic_shared_bytes,
            hStream: stream,
            attrs: attributes.as_mut_ptr(),
            // Two at most.
            numAttrs: attributes.len() as u32,
        };
        // SAFETY: the function is live; `pointers` has an entry per parameter that points to a
        // value of its size, and values, attributes and configuration outlive the call, which
        // copies them.
        let status = unsafe {
            sys::cuLaunchKernelEx(&config, self.function(), pointers.as_mut_ptr(), ptr::null_mut())
        };
        check(status, "cuLaunchKernelEx")
    }
}

/// What bounds a launch.
struct Limits {
    /// Major compute capability.
    capability: u8,
    /// Threads of a block of this kernel.
    threads: u32,
    /// Static and dynamic shared memory of a block, in bytes.
    shared_bytes: u32,
    static_shared_bytes: u32,
}

/// Why a launch cannot be right, if it cannot.
fn check_dimensions(launch: &Launch<'_>, limits: &Limits) -> Result<(), String> {
    let within = |what: &str, found: [u32; 3], max: [u32; 3]| {
        if found.iter().zip(max).all(|(&n, max)| n >= 1 && n <= max) {
            return Ok(());
        }
        Err(format!("a {what} of {found:?}; each must be at least 1 and at most {max:?}"))
    };
    let volume = |dims: [u32; 3]| dims.iter().map(|&n| u64::from(n)).product::<u64>();
    within("grid", launch.grid, MAX_GRID)?;
    within("block", launch.block, MAX_BLOCK)?;
    let threads = volume(launch.block);
    if threads > u64::from(limits.threads) {
        return Err(format!("{threads} threads a block; this kernel takes {}", limits.threads));
    }
    let shared = u64::from(launch.dynamic_shared_bytes) + u64::from(limits.static_shared_bytes);
    if shared > u64::from(limits.shared_bytes) {
        return Err(format!(
            "{shared} bytes of shared memory a block; this GPU has {}",
            limits.shared_bytes
        ));
    }
    if (launch.cluster.is_some() || launch.dependent) && limits.capability < CLUSTER_CAPABILITY {
        return Err("clusters and dependent launches need compute capability 9.0".to_owned());
    }
    let Some(cluster) = launch.cluster else { return Ok(()) };
    within("cluster", cluster, launch.grid)?;
    let divides = launch.grid.iter().zip(cluster).all(|(grid, cluster)| grid % cluster == 0);
    if volume(cluster) > MAX_CLUSTER || !divides {
        return Err(format!(
            "a cluster of {cluster:?}; it must divide the grid {:?} and have {MAX_CLUSTER} blocks \
             at most",
            launch.grid
        ));
    }
    Ok(())
}

/// The driver reads as many values of as many bytes as the kernel has parameters, whatever it is
/// given.
fn check_sizes(arguments: &[usize], params: &[u32]) -> Result<(), String> {
    let same = |(&argument, &param): (&usize, &u32)| u32::try_from(argument) == Ok(param);
    if arguments.len() == params.len() && arguments.iter().zip(params).all(same) {
        return Ok(());
    }
    Err(format!("arguments of {arguments:?} bytes; the kernel takes parameters of {params:?}"))
}

fn attributes(launch: &Launch<'_>) -> Vec<sys::CUlaunchAttribute> {
    use sys::CUlaunchAttributeID_enum as Id;
    let attribute = |id, value| sys::CUlaunchAttribute { id, pad: [0; 4], value };
    let mut attributes = Vec::with_capacity(2);
    if let Some([x, y, z]) = launch.cluster {
        let cluster_dim = sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x, y, z };
        attributes.push(attribute(
            Id::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
            sys::CUlaunchAttributeValue { clusterDim: cluster_dim },
        ));
    }
    if launch.dependent {
        attributes.push(attribute(
            Id::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
        ));
    }
    attributes
}

/// Argument values at fixed addresses, as the driver wants them.
#[derive(Default)]
struct Values {
    /// All values, each at a multiple of 64 bytes: enough for a tensor map, the strictest type.
    storage: Vec<Aligned>,
    /// Where each argument starts, in units of [`Aligned`].
    starts: Vec<usize>,
    /// Size of each argument in bytes.
    sizes: Vec<usize>,
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Aligned([u8; 64]);

/// Size of all parameters together (CUDA programming guide, "Function parameters").
const MAX_ARGUMENT_BYTES: usize = 4096;

impl Values {
    fn of(gpu: &Gpu, arguments: &[Argument<'_>]) -> Result<Values, String> {
        let mut values = Values::default();
        for (i, argument) in arguments.iter().enumerate() {
            match *argument {
                Argument::Memory(memory, offset) => {
                    if !memory.gpu().same_as(gpu) {
                        return Err(format!("argument {i} is a buffer of another GPU"));
                    }
                    if offset > memory.bytes() {
                        return Err(format!(
                            "argument {i} points to byte {offset} of a buffer of {} bytes",
                            memory.bytes()
                        ));
                    }
                    values.push(&(memory.address() + offset as u64).to_ne_bytes());
                }
                Argument::U32(value) => values.push(&value.to_ne_bytes()),
                Argument::U64(value) => values.push(&value.to_ne_bytes()),
                Argument::F32(value) => values.push(&value.to_ne_bytes()),
                Argument::TensorMap(map) => values.push(&map.0),
                Argument::Bytes(bytes) if bytes.len() > MAX_ARGUMENT_BYTES => {
                    return Err(format!("argument {i} has {} bytes, 4096 at most", bytes.len()));
                }
                Argument::Bytes(bytes) => values.push(bytes),
            }
        }
        Ok(values)
    }

    fn push(&mut self, bytes: &[u8]) {
        self.starts.push(self.storage.len());
        self.sizes.push(bytes.len());
        // An empty structure still needs an address.
        for chunk in bytes.chunks(64).chain(bytes.is_empty().then_some(bytes)) {
            let mut aligned = Aligned([0; 64]);
            aligned.0[..chunk.len()].copy_from_slice(chunk);
            self.storage.push(aligned);
        }
    }

    /// A pointer to each value; valid while `self` is neither changed nor dropped.
    fn pointers(&self) -> Vec<*mut c_void> {
        let address = |&start: &usize| ptr::from_ref(&self.storage[start]).cast_mut().cast();
        self.starts.iter().map(address).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOPPER: Limits =
        Limits { capability: 9, threads: 256, shared_bytes: 232_448, static_shared_bytes: 1024 };

    fn launch() -> Launch<'static> {
        Launch {
            grid: [132, 1, 1],
            block: [256, 1, 1],
            cluster: None,
            dynamic_shared_bytes: 0,
            dependent: false,
            arguments: Vec::new(),
        }
    }

    #[test]
    fn launches_within_the_limits_pass() {
        let all = Launch {
            grid: [0x7fff_fffe, 0xffff, 0xffff],
            cluster: Some([2, 1, 1]),
            dynamic_shared_bytes: 231_424,
            dependent: true,
            ..launch()
        };
        assert_eq!(check_dimensions(&launch(), &HOPPER), Ok(()));
        assert_eq!(check_dimensions(&all, &HOPPER), Ok(()));
    }

    #[test]
    fn every_limit_is_checked_and_named() {
        let ampere = Limits { capability: 8, ..HOPPER };
        let cases = [
            (Launch { grid: [0, 1, 1], ..launch() }, &HOPPER, "grid of [0, 1, 1]"),
            (Launch { grid: [1, 65_536, 1], ..launch() }, &HOPPER, "grid of [1, 65536, 1]"),
            (Launch { block: [1, 1, 65], ..launch() }, &HOPPER, "block of [1, 1, 65]"),
            (Launch { block: [257, 1, 1], ..launch() }, &HOPPER, "257 threads a block"),
            (Launch { block: [1024, 1024, 64], ..launch() }, &HOPPER, "67108864 threads"),
            (Launch { dynamic_shared_bytes: u32::MAX, ..launch() }, &HOPPER, "shared memory"),
            (Launch { cluster: Some([5, 1, 1]), ..launch() }, &HOPPER, "must divide"),
            (Launch { cluster: Some([12, 1, 1]), ..launch() }, &HOPPER, "8 blocks at most"),
            (Launch { cluster: Some([2, 2, 1]), ..launch() }, &HOPPER, "cluster of [2, 2, 1]"),
            (Launch { cluster: Some([2, 1, 1]), ..launch() }, &ampere, "capability 9.0"),
            (Launch { dependent: true, ..launch() }, &ampere, "capability 9.0"),
        ];
        for (launch, limits, expected) in cases {
            let error = check_dimensions(&launch, limits).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn argument_values_keep_their_bytes_and_their_alignment() {
        let mut values = Values::default();
        let map: Vec<u8> = (0..128).collect();
        values.push(&7u32.to_ne_bytes());
        values.push(&map);
        values.push(&[]);
        values.push(&9u64.to_ne_bytes());
        let pointers = values.pointers();
        assert_eq!(pointers.len(), 4);
        assert!(pointers.iter().all(|p| p.addr() % 64 == 0));
        // SAFETY: each pointer leads to a value that was stored with this length.
        unsafe {
            assert_eq!(*pointers[0].cast::<u32>(), 7);
            assert_eq!(std::slice::from_raw_parts(pointers[1].cast::<u8>(), 128), map);
            assert_eq!(*pointers[3].cast::<u64>(), 9);
        }
    }

    #[test]
    fn arguments_have_the_number_and_the_sizes_of_the_parameters() {
        assert_eq!(check_sizes(&[8, 4, 128], &[8, 4, 128]), Ok(()));
        for wrong in [&[8, 4][..], &[8, 8, 128], &[8, 4, 128, 4]] {
            let error = check_sizes(wrong, &[8, 4, 128]).expect_err("wrong");
            assert!(error.contains("takes parameters of [8, 4, 128]"), "{error}");
        }
    }

    #[test]
    fn cluster_and_dependence_become_launch_attributes() {
        assert!(attributes(&launch()).is_empty());
        let both = Launch { cluster: Some([4, 1, 1]), dependent: true, ..launch() };
        let ids: Vec<_> = attributes(&both).iter().map(|a| a.id as u32).collect();
        assert_eq!(ids, [4, 6]);
    }
}

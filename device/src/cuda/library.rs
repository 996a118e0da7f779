//! cuBLASLt: a dense multiplication that NVIDIA keeps fast on every GPU.
//!
//! The library is loaded when a GPU is opened and never required. Its functions are looked up before the
//! first call, as those of the driver are. It takes column-major matrices, so that a row-major `D = X W^T`
//! is asked for as `D^T = W X^T`: W, `[rows, K]`, is the transposed operand A, X is B.
//!
//! What it computes is reproducible: no reduction across thread blocks is allowed, no workspace is given,
//! and the algorithm that its heuristic names first for a shape is kept for that shape.

use super::driver::CudaError;
use super::gpu::Gpu;
use super::memory::Memory;
use cudarc::cublaslt::sys::{self, cublasStatus_t};
use qtune_codegen::SlabProduct;
use qtune_ir::DType;
use std::collections::HashMap;
use std::ffi::c_void;
use std::fmt;
use std::mem;
use std::panic;
use std::ptr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Every function of the library that this module calls; see [`super::driver`] for why they are listed.
const REQUIRED: [&str; 13] = [
    "cublasLtCreate",
    "cublasLtDestroy",
    "cublasLtGetVersion",
    "cublasLtMatmul",
    "cublasLtMatmulAlgoGetHeuristic",
    "cublasLtMatmulDescCreate",
    "cublasLtMatmulDescDestroy",
    "cublasLtMatmulDescSetAttribute",
    "cublasLtMatmulPreferenceCreate",
    "cublasLtMatmulPreferenceDestroy",
    "cublasLtMatmulPreferenceSetAttribute",
    "cublasLtMatrixLayoutCreate",
    "cublasLtMatrixLayoutDestroy",
];
/// Alignment that algorithms may count on where an address has it: that of their widest loads.
const ALIGNMENT: u64 = 16;

/// Whether the library is on this machine. The answer is found once and kept.
///
/// # Errors
/// [`CudaError::NoLibrary`] with the reason. Never panics.
pub(super) fn is_installed() -> Result<(), CudaError> {
    static ANSWER: OnceLock<Result<(), CudaError>> = OnceLock::new();
    ANSWER.get_or_init(find).clone()
}

fn find() -> Result<(), CudaError> {
    let missing = |reason: String| CudaError::NoLibrary { reason };
    // As with the driver: nothing here is known to panic.
    let found = panic::catch_unwind(|| {
        // SAFETY: tries to load the library, whose initialisers have no precondition.
        if !unsafe { sys::is_culib_present() } {
            return Err(missing("libcublasLt is not on the loader's path".to_owned()));
        }
        let absent = REQUIRED.iter().find(|name| {
            let name = format!("{name}\0");
            // SAFETY: only the presence of the symbol is asked for; it is not called.
            unsafe { sys::culib().get::<unsafe extern "C" fn()>(name.as_bytes()) }.is_err()
        });
        match absent {
            Some(name) => Err(missing(format!("libcublasLt is too old: it has no {name}"))),
            None => Ok(()),
        }
    });
    found.unwrap_or_else(|_| Err(missing("libcublasLt does not load".to_owned())))
}

/// `Ok` for success, else an error with the library's name for it.
fn check(status: cublasStatus_t, call: &'static str) -> Result<(), CudaError> {
    match status {
        cublasStatus_t::CUBLAS_STATUS_SUCCESS => Ok(()),
        other => Err(CudaError::Library { call, message: format!("{other:?}") }),
    }
}

/// A thing of the library's that a function of its own destroys.
struct Owned<T: Copy> {
    handle: T,
    destroy: unsafe fn(T) -> cublasStatus_t,
}

impl<T: Copy> Owned<T> {
    /// What `create` writes to the place that it is given.
    fn new(
        call: &'static str,
        create: impl FnOnce(*mut T) -> cublasStatus_t,
        destroy: unsafe fn(T) -> cublasStatus_t,
    ) -> Result<Owned<T>, CudaError> {
        let mut handle = mem::MaybeUninit::uninit();
        check(create(handle.as_mut_ptr()), call)?;
        // SAFETY: the call succeeded, so it wrote the handle.
        Ok(Owned { handle: unsafe { handle.assume_init() }, destroy })
    }
}

impl<T: Copy> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: created by the function's counterpart and destroyed once. An error is of no use here.
        let _ = unsafe { (self.destroy)(self.handle) };
    }
}

// SAFETY: handles and descriptors of the library may be used by any thread; the one that is changed
// after it was made, a plan's description, is behind a lock.
unsafe impl<T: Copy> Send for Owned<T> {}
// SAFETY: as above.
unsafe impl<T: Copy> Sync for Owned<T> {}

/// The library on one GPU, with the plans that were made so far.
pub struct Library {
    // In the order in which they go: the GPU's context outlives what was made in it.
    plans: Mutex<HashMap<Shape, Arc<Plan>>>,
    handle: Owned<sys::cublasLtHandle_t>,
    gpu: Gpu,
}

impl Drop for Library {
    fn drop(&mut self) {
        // What the fields' drops release belongs to this context; without it there is nothing to do.
        let _ = self.gpu.make_current();
    }
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Library({:?}, cuBLASLt {})", self.gpu, self.version())
    }
}

/// What decides a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Shape {
    product: SlabProduct,
    rows: u32,
    tokens: u32,
    /// Of slab, activations, what is added, and output, in bytes.
    alignments: [u32; 4],
}

/// How products of one shape are computed: the same way every time.
struct Plan {
    /// The description; the address of the bias is set before each use.
    description: Mutex<Owned<sys::cublasLtMatmulDesc_t>>,
    slab: Owned<sys::cublasLtMatrixLayout_t>,
    activations: Owned<sys::cublasLtMatrixLayout_t>,
    /// Of the output, and of a residual.
    output: Owned<sys::cublasLtMatrixLayout_t>,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

/// A place in device memory.
pub type Place<'a> = (&'a Memory, usize);

/// One multiplication of a slab.
#[derive(Clone)]
pub struct Multiplication<'a> {
    /// The library of the GPU that holds all operands.
    pub library: &'a Library,
    /// What is multiplied.
    pub product: SlabProduct,
    /// Rows of the slab.
    pub rows: u32,
    /// First output feature of the slab.
    pub first: u32,
    /// Tokens.
    pub tokens: u32,
    /// The slab.
    pub slab: Place<'a>,
    /// Activations.
    pub activations: Place<'a>,
    /// The whole bias.
    pub bias: Option<Place<'a>>,
    /// The whole residual.
    pub residual: Option<Place<'a>>,
    /// The whole output.
    pub output: Place<'a>,
}

impl Library {
    /// The library on `gpu`.
    ///
    /// # Errors
    /// [`CudaError::NoLibrary`] where it is not installed, is too old or does not take this GPU or
    /// driver.
    pub fn open(gpu: &Gpu) -> Result<Library, CudaError> {
        is_installed()?;
        gpu.make_current()?;
        // SAFETY: a context is current; writes one handle.
        let create = |handle| unsafe { sys::cublasLtCreate(handle) };
        let handle = Owned::new("cublasLtCreate", create, sys::cublasLtDestroy);
        let handle = handle.map_err(|e| CudaError::NoLibrary { reason: e.to_string() })?;
        Ok(Library { plans: Mutex::default(), handle, gpu: gpu.clone() })
    }

    /// The GPU.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Its version as the library numbers it: 10000 times the major version, 100 times the minor one.
    pub fn version(&self) -> usize {
        // SAFETY: takes nothing.
        unsafe { sys::cublasLtGetVersion() }
    }

    /// The plan of a shape. `bias` is an address of one, for what wants to see it.
    fn plan(&self, shape: Shape, bias: Option<u64>) -> Result<Arc<Plan>, CudaError> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = plans.get(&shape) {
            return Ok(Arc::clone(plan));
        }
        let plan = Arc::new(Plan::new(&self.handle, shape, bias)?);
        plans.insert(shape, Arc::clone(&plan));
        Ok(plan)
    }
}

fn data_type(dtype: DType) -> sys::cudaDataType {
    match dtype {
        DType::F16 => sys::cudaDataType::CUDA_R_16F,
        DType::Bf16 => sys::cudaDataType::CUDA_R_16BF,
        DType::F32 => sys::cudaDataType::CUDA_R_32F,
    }
}

/// A row-major matrix as the library sees it: column-major and transposed.
fn layout(
    dtype: DType,
    (rows, columns): (u32, u32),
    pitch: u32,
) -> Result<Owned<sys::cublasLtMatrixLayout_t>, CudaError> {
    let (rows, columns, pitch) = (u64::from(columns), u64::from(rows), i64::from(pitch));
    let dtype = data_type(dtype);
    // SAFETY: writes one handle.
    let create = |to| unsafe { sys::cublasLtMatrixLayoutCreate(to, dtype, rows, columns, pitch) };
    Owned::new("cublasLtMatrixLayoutCreate", create, sys::cublasLtMatrixLayoutDestroy)
}

fn set_description<T: Copy>(
    description: &Owned<sys::cublasLtMatmulDesc_t>,
    attribute: sys::cublasLtMatmulDescAttributes_t,
    value: T,
) -> Result<(), CudaError> {
    let value = ptr::from_ref(&value).cast::<c_void>();
    // SAFETY: the description is live; the library copies as many bytes as the value has.
    let status = unsafe {
        let size = mem::size_of::<T>();
        sys::cublasLtMatmulDescSetAttribute(description.handle, attribute, value, size)
    };
    check(status, "cublasLtMatmulDescSetAttribute")
}

fn set_preference<T: Copy>(
    preference: &Owned<sys::cublasLtMatmulPreference_t>,
    attribute: sys::cublasLtMatmulPreferenceAttributes_t,
    value: T,
) -> Result<(), CudaError> {
    let value = ptr::from_ref(&value).cast::<c_void>();
    // SAFETY: the preference is live; the library copies as many bytes as the value has.
    let status = unsafe {
        let size = mem::size_of::<T>();
        sys::cublasLtMatmulPreferenceSetAttribute(preference.handle, attribute, value, size)
    };
    check(status, "cublasLtMatmulPreferenceSetAttribute")
}

/// f32 products and sums of `op(A) = A^T` and B, a bias of the output's type behind them.
fn description(bias: Option<u64>) -> Result<Owned<sys::cublasLtMatmulDesc_t>, CudaError> {
    use sys::cublasLtMatmulDescAttributes_t as Attribute;
    let (compute, scale) =
        (sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, sys::cudaDataType::CUDA_R_32F);
    // SAFETY: writes one handle.
    let create = |to| unsafe { sys::cublasLtMatmulDescCreate(to, compute, scale) };
    let call = "cublasLtMatmulDescCreate";
    let description = Owned::new(call, create, sys::cublasLtMatmulDescDestroy)?;
    let set = |attribute, value: i32| set_description(&description, attribute, value);
    // CUBLAS_OP_T and CUBLAS_OP_N of cublas_api.h.
    set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, 1)?;
    set(Attribute::CUBLASLT_MATMUL_DESC_TRANSB, 0)?;
    if let Some(address) = bias {
        let epilogue = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS;
        set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue as i32)?;
        set_description(&description, Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, address)?;
    }
    Ok(description)
}

/// No workspace, no reduction across thread blocks, addresses that are aligned like this.
fn preference(alignments: [u32; 4]) -> Result<Owned<sys::cublasLtMatmulPreference_t>, CudaError> {
    use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
    // SAFETY: writes one handle.
    let create = |to| unsafe { sys::cublasLtMatmulPreferenceCreate(to) };
    let call = "cublasLtMatmulPreferenceCreate";
    let preference = Owned::new(call, create, sys::cublasLtMatmulPreferenceDestroy)?;
    let none = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_NONE as u32;
    let workspace = Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
    set_preference(&preference, workspace, 0u64)?;
    let reductions = Attribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK;
    set_preference(&preference, reductions, none)?;
    let operands = [
        Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
        Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
        Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
    ];
    for (attribute, alignment) in operands.into_iter().zip(alignments) {
        set_preference(&preference, attribute, alignment)?;
    }
    Ok(preference)
}

impl Plan {
    fn new(
        handle: &Owned<sys::cublasLtHandle_t>,
        shape: Shape,
        bias: Option<u64>,
    ) -> Result<Plan, CudaError> {
        let Shape { product, rows, tokens, alignments } = shape;
        let description = description(bias)?;
        let slab = layout(product.input, (rows, product.k), product.slab_row)?;
        let activations = layout(product.input, (tokens, product.k), product.k)?;
        let output = layout(product.output, (tokens, rows), product.n)?;
        let preference = preference(alignments)?;
        let mut found = mem::MaybeUninit::<sys::cublasLtMatmulHeuristicResult_t>::zeroed();
        let mut count = 0;
        // SAFETY: all descriptors are live; writes one result at most, and how many.
        let status = unsafe {
            sys::cublasLtMatmulAlgoGetHeuristic(
                handle.handle,
                description.handle,
                slab.handle,
                activations.handle,
                output.handle,
                output.handle,
                preference.handle,
                1,
                found.as_mut_ptr(),
                &mut count,
            )
        };
        const CALL: &str = "cublasLtMatmulAlgoGetHeuristic";
        check(status, CALL)?;
        if count < 1 {
            let message = format!("no algorithm without a reduction for {rows} rows, {shape:?}");
            return Err(CudaError::Library { call: CALL, message });
        }
        // SAFETY: the library wrote it: it says so by the count.
        let found = unsafe { found.assume_init() };
        check(found.state, CALL)?;
        let (description, algorithm) = (Mutex::new(description), found.algo);
        Ok(Plan { description, slab, activations, output, algorithm })
    }
}

/// An address that lies in its buffer with the bytes behind it that are used.
fn address((memory, offset): Place<'_>, at: usize, len: usize) -> Result<u64, CudaError> {
    let start = offset.saturating_add(at);
    match start.checked_add(len).is_some_and(|end| end <= memory.bytes()) {
        true => Ok(memory.address() + start as u64),
        false => Err(CudaError::OutOfRange { offset: start, len, bytes: memory.bytes() }),
    }
}

/// What an address is known to be aligned to: wide loads' alignment, or an element's.
fn alignment(address: u64, element: DType) -> u32 {
    match address % ALIGNMENT {
        0 => ALIGNMENT as u32,
        _ => element.bytes(),
    }
}

/// Bytes from the first element to behind the last of `rows` rows of `columns` elements.
fn extent(element: DType, rows: u32, columns: u32, pitch: u32) -> usize {
    let before = rows.saturating_sub(1) as usize * pitch as usize;
    (before + columns as usize) * element.bytes() as usize
}

/// Operands on the device.
#[derive(Clone, Copy)]
struct Addresses {
    slab: u64,
    activations: u64,
    bias: Option<u64>,
    /// What is added: the residual, else the output, which then counts nothing.
    added: u64,
    output: u64,
}

impl Multiplication<'_> {
    fn addresses(&self) -> Result<Addresses, CudaError> {
        let SlabProduct { n, k, slab_row, input, output, .. } = self.product;
        let element = output.bytes() as usize;
        let (first, rows) = (self.first as usize * element, self.rows as usize * element);
        let columns = extent(output, self.tokens, self.rows, n);
        let slab = extent(input, self.rows, k, slab_row);
        let to = address(self.output, first, columns)?;
        let residual = self.residual.map(|place| address(place, first, columns)).transpose()?;
        Ok(Addresses {
            slab: address(self.slab, 0, slab)?,
            activations: address(self.activations, 0, extent(input, self.tokens, k, k))?,
            bias: self.bias.map(|place| address(place, first, rows)).transpose()?,
            added: residual.unwrap_or(to),
            output: to,
        })
    }

    fn shape(&self, at: &Addresses) -> Shape {
        let SlabProduct { input, output, .. } = self.product;
        let alignments = [
            alignment(at.slab, input),
            alignment(at.activations, input),
            alignment(at.added, output),
            alignment(at.output, output),
        ];
        Shape { product: self.product, rows: self.rows, tokens: self.tokens, alignments }
    }

    /// Puts it on a stream of the current context, without waiting for the end.
    pub(super) fn launch_on(&self, stream: cudarc::driver::sys::CUstream) -> Result<(), CudaError> {
        let at = self.addresses()?;
        let plan = self.library.plan(self.shape(&at), at.bias)?;
        let description = plan.description.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(address) = at.bias {
            let pointer = sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER;
            set_description(&description, pointer, address)?;
        }
        let (alpha, beta) = (1.0f32, if self.residual.is_some() { 1.0f32 } else { 0.0 });
        let device = |address: u64| address as *const c_void;
        // SAFETY: the handle, the descriptors and the stream are live and of this GPU; every operand
        // lies in its allocation with all its elements; the scalars are read before the call returns;
        // no workspace is asked for, as the preference allowed none.
        let status = unsafe {
            sys::cublasLtMatmul(
                self.library.handle.handle,
                description.handle,
                ptr::from_ref(&alpha).cast(),
                device(at.slab),
                plan.slab.handle,
                device(at.activations),
                plan.activations.handle,
                ptr::from_ref(&beta).cast(),
                device(at.added),
                plan.output.handle,
                device(at.output).cast_mut(),
                plan.output.handle,
                &plan.algorithm,
                ptr::null_mut(),
                0,
                stream.cast(),
            )
        };
        check(status, "cublasLtMatmul")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_library_the_reason_is_one_line_and_nothing_panics() {
        if let Err(error) = is_installed() {
            let text = error.to_string();
            assert!(text.starts_with("no cuBLASLt: ") && !text.contains('\n'), "{text}");
        } else {
            // Descriptors need no GPU.
            preference([16; 4]).expect("a preference");
            description(Some(256)).expect("a description");
            layout(DType::Bf16, (64, 136), 192).expect("a layout");
            println!("the library is installed: descriptors were made");
        }
    }

    #[test]
    fn required_functions_are_listed_once() {
        let distinct: std::collections::BTreeSet<_> = REQUIRED.iter().collect();
        assert_eq!(distinct.len(), REQUIRED.len());
    }

    #[test]
    fn extents_end_with_the_last_row_and_addresses_keep_the_alignment_they_have() {
        assert_eq!(extent(DType::F16, 3, 10, 16), (2 * 16 + 10) * 2);
        assert_eq!(extent(DType::F32, 1, 10, 16), 40);
        assert_eq!(alignment(4096, DType::F16), 16);
        assert_eq!(alignment(4098, DType::F16), 2);
        assert_eq!(alignment(4100, DType::F32), 4);
    }
}

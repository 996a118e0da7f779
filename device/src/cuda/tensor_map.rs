//! Tensor maps, encoded by the driver.

use super::driver::{check, CudaError};
use super::memory::Memory;
use cudarc::driver::sys;
use qtune_codegen::TensorMapSpec;
use qtune_ir::DType;
use std::ptr;

/// Bytes of an encoded map (CUDA driver API, `CUtensorMap`).
pub const TENSOR_MAP_BYTES: usize = 128;

/// A view of an allocation for the hardware's tensor copies, as kernels take it by value.
#[derive(Debug, Clone, Copy)]
pub struct TensorMap(pub(super) [u8; TENSOR_MAP_BYTES]);

impl Memory {
    /// Encodes the matrix `spec` that starts at byte `offset`. It stays valid as long as this
    /// allocation.
    ///
    /// # Errors
    /// [`CudaError::OutOfRange`] if the matrix does not lie in the allocation;
    /// [`CudaError::Driver`] if the driver refuses the view, such as rows that are no multiple of
    /// 16 bytes.
    pub fn tensor_map(&self, offset: usize, spec: &TensorMapSpec) -> Result<TensorMap, CudaError> {
        let pitch = u64::from(spec.columns) * u64::from(spec.element.bytes());
        let len = usize::try_from(pitch * u64::from(spec.rows)).unwrap_or(usize::MAX);
        self.check_range(offset, len)?;
        self.gpu().make_current()?;
        let mut map = sys::CUtensorMap { opaque: [0; TENSOR_MAP_BYTES / 8] };
        let dims = [u64::from(spec.columns), u64::from(spec.rows)];
        let box_dims = [spec.box_columns, spec.box_rows];
        // SAFETY: the arrays have as many entries as the rank asks for (strides one less) and
        // outlive the call, which writes one map and keeps no pointer to them.
        let status = unsafe {
            sys::cuTensorMapEncodeTiled(
                &mut map,
                element_type(spec.element),
                dims.len() as u32,
                ptr::without_provenance_mut(self.address() as usize + offset),
                dims.as_ptr(),
                [pitch].as_ptr(),
                box_dims.as_ptr(),
                [1; 2].as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        check(status, "cuTensorMapEncodeTiled")?;
        let mut bytes = [0; TENSOR_MAP_BYTES];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(map.opaque) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        Ok(TensorMap(bytes))
    }
}

fn element_type(element: DType) -> sys::CUtensorMapDataType {
    use sys::CUtensorMapDataType as T;
    match element {
        DType::F16 => T::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        DType::Bf16 => T::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        DType::F32 => T::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
    }
}

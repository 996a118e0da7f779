//! Tensor map arguments of a launch file.

use super::launch_file::BufferSpec;
use anyhow::{bail, Context};
use qtune_sim::{BufferId, OutOfBoundsFill, Swizzle, TensorMapSpec, TensorType};
use serde::Deserialize;

/// A tensor map as it is written: the arguments of `cuTensorMapEncodeTiled`, innermost dimension
/// first.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// File of the buffer that holds the tensor.
    pub buffer: String,
    dtype: Element,
    dims: Vec<u64>,
    strides_bytes: Option<Vec<u64>>,
    r#box: Vec<u32>,
    element_strides: Option<Vec<u32>>,
    #[serde(default)]
    swizzle: Rows,
    #[serde(default)]
    interleave: Interleave,
    #[serde(default)]
    fill: Fill,
}

/// Element types; those of eight bits are bytes to a copy.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Element {
    U8,
    Fp8e4nv,
    U16,
    U32,
    I32,
    U64,
    I64,
    Fp16,
    Bf16,
    Fp32,
    Fp64,
}

impl From<Element> for TensorType {
    fn from(element: Element) -> TensorType {
        match element {
            Element::U8 | Element::Fp8e4nv => TensorType::U8,
            Element::U16 => TensorType::U16,
            Element::U32 => TensorType::U32,
            Element::I32 => TensorType::S32,
            Element::U64 => TensorType::U64,
            Element::I64 => TensorType::S64,
            Element::Fp16 => TensorType::F16,
            Element::Bf16 => TensorType::Bf16,
            Element::Fp32 => TensorType::F32,
            Element::Fp64 => TensorType::F64,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
enum Rows {
    #[default]
    #[serde(rename = "none")]
    None,
    #[serde(rename = "32B")]
    B32,
    #[serde(rename = "64B")]
    B64,
    #[serde(rename = "128B")]
    B128,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
enum Interleave {
    #[default]
    #[serde(rename = "none")]
    None,
    #[serde(rename = "16B")]
    B16,
    #[serde(rename = "32B")]
    B32,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Fill {
    #[default]
    Zero,
    Nan,
}

/// A checked tensor map, still without the buffer's place in device memory.
#[derive(Debug, Clone, PartialEq)]
pub struct MapSpec {
    dtype: TensorType,
    dims: Vec<u64>,
    strides_bytes: Vec<u64>,
    box_dims: Vec<u32>,
    element_strides: Vec<u32>,
    swizzle: Swizzle,
    fill: OutOfBoundsFill,
}

/// Where the buffer of a tensor map comes from.
#[derive(Debug, PartialEq)]
pub enum MapBuffer {
    /// The file that another argument names too.
    Argument(usize),
    /// A file of its own.
    Own(BufferSpec),
}

impl MapSpec {
    /// Checks a map, all but the tensor's address.
    pub fn of(written: &Written) -> anyhow::Result<MapSpec> {
        if written.interleave != Interleave::None {
            bail!("`interleave` {:?}: interleaved tensors are not simulated", written.interleave);
        }
        let dtype = TensorType::from(written.dtype);
        let spec = MapSpec {
            dtype,
            dims: written.dims.clone(),
            strides_bytes: match &written.strides_bytes {
                Some(strides) => strides.clone(),
                None => dense(&written.dims, dtype.bytes()),
            },
            box_dims: written.r#box.clone(),
            element_strides: match &written.element_strides {
                Some(strides) => strides.clone(),
                None => vec![1; written.dims.len()],
            },
            swizzle: match written.swizzle {
                Rows::None => Swizzle::None,
                Rows::B32 => Swizzle::B32,
                Rows::B64 => Swizzle::B64,
                Rows::B128 => Swizzle::B128,
            },
            fill: match written.fill {
                Fill::Zero => OutOfBoundsFill::Zero,
                Fill::Nan => OutOfBoundsFill::Nan,
            },
        };
        Ok(spec)
    }

    /// The map of a buffer in device memory, whose address is aligned as the driver wants it.
    ///
    /// # Errors
    /// What `cuTensorMapEncodeTiled` refuses.
    pub fn place(&self, buffer: BufferId, address: u64) -> anyhow::Result<TensorMapSpec> {
        let spec = TensorMapSpec {
            buffer,
            offset: 0,
            dtype: self.dtype,
            dims: self.dims.clone(),
            strides_bytes: self.strides_bytes.clone(),
            box_dims: self.box_dims.clone(),
            element_strides: self.element_strides.clone(),
            swizzle: self.swizzle,
            fill: self.fill,
        };
        spec.encode(address).context("`tensor_map`")?;
        Ok(spec)
    }
}

/// Strides of a tensor without gaps.
fn dense(dims: &[u64], element_bytes: u64) -> Vec<u64> {
    let mut bytes = element_bytes;
    let inner = dims.iter().take(dims.len().saturating_sub(1));
    inner
        .map(|&dim| {
            bytes = bytes.saturating_mul(dim);
            bytes
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(fields: &str) -> anyhow::Result<MapSpec> {
        let text =
            format!(r#"{{"buffer":"a","dtype":"fp16","dims":[64,8,2],"box":[32,4,1]{fields}}}"#);
        MapSpec::of(&serde_json::from_str(&text)?)
    }

    #[test]
    fn strides_and_layouts_have_defaults() {
        let plain = spec("").unwrap();
        assert_eq!((plain.strides_bytes, plain.element_strides), (vec![128, 1024], vec![1, 1, 1]));
        assert_eq!((plain.swizzle, plain.fill), (Swizzle::None, OutOfBoundsFill::Zero));
        let full = spec(
            r#","strides_bytes":[256,2048],"element_strides":[1,2,1],"swizzle":"64B","interleave":"none","fill":"nan""#,
        );
        let full = full.unwrap();
        assert_eq!((full.strides_bytes, full.element_strides), (vec![256, 2048], vec![1, 2, 1]));
        assert_eq!((full.swizzle, full.fill), (Swizzle::B64, OutOfBoundsFill::Nan));
    }

    #[test]
    fn what_is_not_simulated_or_refused_by_the_driver_is_named() {
        let refused = spec(r#","interleave":"16B""#).unwrap_err().to_string();
        assert!(refused.contains("interleaved tensors are not simulated"), "{refused}");
        assert!(spec(r#","swizzle":"96B""#).is_err());
        let mut memory = qtune_sim::Memory::new();
        let id = memory.alloc("a", 4096, qtune_sim::Access::ReadOnly).unwrap();
        let wide = spec(r#","swizzle":"32B""#).unwrap().place(id, memory.address(id));
        assert!(format!("{:#}", wide.unwrap_err()).contains("B32 allows 32"));
    }
}

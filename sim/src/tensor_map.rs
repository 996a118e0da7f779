//! Tensor maps: what `cuTensorMapEncodeTiled` describes (CUDA driver API 6.29, PTX ISA 5.5).
//!
//! On a device the 128 bytes of a `CUtensorMap` are opaque and only the driver writes them. Here a
//! [`TensorMapSpec`] is checked as the driver checks it and written in a private encoding, which
//! the simulated copies and `tensormap.replace` understand. A map of the driver is refused.

use thiserror::Error;

use crate::memory::BufferId;
use crate::program::{AtomicType, MapField};

/// Bytes of an encoded map.
pub(crate) const MAP_BYTES: usize = 128;
/// Most dimensions of a tensor.
pub(crate) const MAX_RANK: usize = 5;
/// First bytes of the private encoding.
const MAGIC: [u8; 4] = *b"qTMA";

/// Element type of a tensor map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum TensorType {
    U8,
    U16,
    U32,
    S32,
    U64,
    S64,
    F16,
    F32,
    F64,
    Bf16,
}

impl TensorType {
    /// In the order of the codes of `tensormap.replace` (PTX ISA 9.7.9.27.1.3); f32 with flushed
    /// subnormals and the tf32 types are not simulated.
    const CODES: [Option<TensorType>; 13] = [
        Some(TensorType::U8),
        Some(TensorType::U16),
        Some(TensorType::U32),
        Some(TensorType::S32),
        Some(TensorType::U64),
        Some(TensorType::S64),
        Some(TensorType::F16),
        Some(TensorType::F32),
        None,
        Some(TensorType::F64),
        Some(TensorType::Bf16),
        None,
        None,
    ];

    fn code(self) -> u8 {
        let found = Self::CODES.iter().position(|&ty| ty == Some(self));
        found.unwrap_or_default() as u8
    }

    fn from_code(code: u8) -> Option<TensorType> {
        Self::CODES.get(usize::from(code)).copied().flatten()
    }

    /// Bytes of one element.
    pub fn bytes(self) -> u64 {
        match self {
            TensorType::U8 => 1,
            TensorType::U16 | TensorType::F16 | TensorType::Bf16 => 2,
            TensorType::U32 | TensorType::S32 | TensorType::F32 => 4,
            TensorType::U64 | TensorType::S64 | TensorType::F64 => 8,
        }
    }

    /// The type in which reductions combine elements; bytes have none.
    pub(crate) fn atomic(self) -> AtomicType {
        match self {
            TensorType::U8 | TensorType::U16 => AtomicType::U16,
            TensorType::U32 => AtomicType::U32,
            TensorType::S32 => AtomicType::S32,
            TensorType::U64 => AtomicType::U64,
            TensorType::S64 => AtomicType::S64,
            TensorType::F16 => AtomicType::F16,
            TensorType::F32 => AtomicType::F32,
            TensorType::F64 => AtomicType::F64,
            TensorType::Bf16 => AtomicType::Bf16,
        }
    }

    fn is_float(self) -> bool {
        matches!(self, TensorType::F16 | TensorType::F32 | TensorType::F64 | TensorType::Bf16)
    }
}

/// How the 16-byte units of a tile are permuted in shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Swizzle {
    /// Rows one after another.
    #[default]
    None,
    /// Within 32 bytes, repeating every 256 bytes.
    B32,
    /// Within 64 bytes, repeating every 512 bytes.
    B64,
    /// Within 128 bytes, repeating every 1024 bytes.
    B128,
}

impl Swizzle {
    /// Bytes within which units change their places; the most that an inner row may have.
    pub(crate) fn span(self) -> Option<u64> {
        match self {
            Swizzle::None => None,
            Swizzle::B32 => Some(32),
            Swizzle::B64 => Some(64),
            Swizzle::B128 => Some(128),
        }
    }

    /// Where the byte with this shared address goes: bits 4 to 6 are changed by bits 7 to 9 (PTX
    /// ISA 5.5.4).
    pub(crate) fn apply(self, address: u32) -> u32 {
        let units = self.span().map_or(0, |span| span as u32 / 16 - 1);
        address ^ (address >> 7 & units) << 4
    }
}

/// What elements outside the tensor read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutOfBoundsFill {
    /// Zero.
    #[default]
    Zero,
    /// Not a number; floating-point types only.
    Nan,
}

/// A tiled tensor map, as given to `cuTensorMapEncodeTiled`.
///
/// Dimensions are ordered innermost first. The tensor starts at a byte of a buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorMapSpec {
    /// Buffer that holds the tensor.
    pub buffer: BufferId,
    /// Bytes from the buffer's start, a multiple of 16.
    pub offset: u64,
    /// Element type.
    pub dtype: TensorType,
    /// Elements along each of 1 to 5 dimensions, 1 to 2^32.
    pub dims: Vec<u64>,
    /// Bytes from one element to the next along dimensions 1 and up: multiples of 16 below 2^40.
    pub strides_bytes: Vec<u64>,
    /// Elements of a tile along each dimension, 1 to 256.
    pub box_dims: Vec<u32>,
    /// Steps within a tile along each dimension, 1 to 8; that of dimension 0 has no effect.
    pub element_strides: Vec<u32>,
    /// Layout of a tile in shared memory.
    pub swizzle: Swizzle,
    /// What elements outside the tensor read as.
    pub fill: OutOfBoundsFill,
}

/// Why the driver would refuse a tensor map.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("tensor map: {0}")]
pub struct TensorMapError(pub(crate) String);

fn ensure(holds: bool, message: impl FnOnce() -> String) -> Result<(), TensorMapError> {
    if holds {
        Ok(())
    } else {
        Err(TensorMapError(message()))
    }
}

/// A map as copies use it; what is beyond the rank has no meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TensorMap {
    pub dtype: TensorType,
    pub rank: usize,
    pub address: u64,
    pub dims: [u64; MAX_RANK],
    /// Of dimensions 1 and up.
    pub strides: [u64; MAX_RANK - 1],
    pub boxes: [u32; MAX_RANK],
    pub steps: [u32; MAX_RANK],
    pub swizzle: Swizzle,
    pub fill: OutOfBoundsFill,
}

fn fixed<T: Copy, const N: usize>(values: &[T], rest: T) -> [T; N] {
    std::array::from_fn(|i| values.get(i).copied().unwrap_or(rest))
}

impl TensorMapSpec {
    /// The 128 bytes that a kernel of the simulator takes for this map, given the buffer's device
    /// address (see [`crate::Memory::address`]).
    ///
    /// # Errors
    /// Everything that `cuTensorMapEncodeTiled` refuses.
    pub fn encode(&self, buffer_address: u64) -> Result<[u8; 128], TensorMapError> {
        let rank = self.dims.len();
        ensure((1..=MAX_RANK).contains(&rank), || {
            format!("{rank} dimensions, allowed are 1 to 5")
        })?;
        for (name, length, wanted) in [
            ("strides_bytes", self.strides_bytes.len(), rank - 1),
            ("box_dims", self.box_dims.len(), rank),
            ("element_strides", self.element_strides.len(), rank),
        ] {
            ensure(length == wanted, || {
                format!("{name} has {length} entries, a tensor of {rank} dimensions {wanted}")
            })?;
        }
        let map = TensorMap {
            dtype: self.dtype,
            rank,
            address: buffer_address.wrapping_add(self.offset),
            dims: fixed(&self.dims, 1),
            strides: fixed(&self.strides_bytes, 0),
            boxes: fixed(&self.box_dims, 1),
            steps: fixed(&self.element_strides, 1),
            swizzle: self.swizzle,
            fill: self.fill,
        };
        map.check()?;
        Ok(map.encode())
    }
}

impl TensorMap {
    /// The driver's requirements (`cuTensorMapEncodeTiled`).
    pub(crate) fn check(&self) -> Result<(), TensorMapError> {
        let address = self.address;
        ensure(address % 16 == 0, || format!("address 0x{address:x} is no multiple of 16"))?;
        for axis in 0..self.rank {
            let (dim, extent, step) = (self.dims[axis], self.boxes[axis], self.steps[axis]);
            ensure((1..=1 << 32).contains(&dim), || {
                format!("dimension {axis} has {dim} elements, allowed are 1 to 2^32")
            })?;
            ensure((1..=256).contains(&extent), || {
                format!("box dimension {axis} has {extent} elements, allowed are 1 to 256")
            })?;
            ensure((1..=8).contains(&step), || {
                format!("element stride {axis} is {step}, allowed are 1 to 8")
            })?;
        }
        for (axis, &stride) in self.strides[..self.rank - 1].iter().enumerate() {
            let axis = axis + 1;
            ensure(stride % 16 == 0 && stride < 1 << 40, || {
                format!("stride {axis} is {stride} bytes, not a multiple of 16 below 2^40")
            })?;
        }
        self.check_inner()?;
        ensure(self.fill == OutOfBoundsFill::Zero || self.dtype.is_float(), || {
            format!("NaN fill for elements of type {:?}", self.dtype)
        })
    }

    /// Requirements on the innermost row of a tile.
    fn check_inner(&self) -> Result<(), TensorMapError> {
        let inner = u64::from(self.boxes[0]) * self.dtype.bytes();
        ensure(inner % 16 == 0, || {
            format!("the inner box dimension has {inner} bytes, not a multiple of 16")
        })?;
        let most = self.swizzle.span().unwrap_or(u64::MAX);
        ensure(inner <= most, || {
            format!("the inner box dimension has {inner} bytes, {:?} allows {most}", self.swizzle)
        })
    }

    /// Elements along a dimension that a tile holds in shared memory.
    pub(crate) fn extent(&self, axis: usize) -> u32 {
        // Tiles without interleaving have no stride within rows.
        let step = if axis == 0 { 1 } else { self.steps[axis].max(1) };
        self.boxes[axis].div_ceil(step)
    }

    /// Bytes of a tile, those outside the tensor included.
    pub(crate) fn tile_bytes(&self) -> u64 {
        let elements: u64 = (0..self.rank).map(|axis| u64::from(self.extent(axis))).product();
        elements * self.dtype.bytes()
    }

    pub(crate) fn encode(&self) -> [u8; MAP_BYTES] {
        let mut bytes = Vec::with_capacity(MAP_BYTES);
        bytes.extend(MAGIC);
        let swizzle = self.swizzle as u8;
        bytes.extend([self.dtype.code(), self.rank as u8 - 1, swizzle, self.fill as u8]);
        bytes.extend(self.address.to_le_bytes());
        self.dims.iter().for_each(|&dim| bytes.extend(dim.to_le_bytes()));
        self.strides.iter().for_each(|stride| bytes.extend(stride.to_le_bytes()));
        self.boxes.iter().for_each(|&extent| bytes.extend((extent as u16).to_le_bytes()));
        bytes.extend(self.steps.map(|step| step as u8));
        let mut map = [0; MAP_BYTES];
        map[..bytes.len()].copy_from_slice(&bytes);
        map
    }

    /// The encoded map with the code of its type, swizzle or fill replaced.
    pub(crate) fn with_code(
        &self,
        field: MapField,
        code: u16,
    ) -> Result<[u8; MAP_BYTES], TensorMapError> {
        let mut map = self.encode();
        let at = match field {
            MapField::Type => 4,
            MapField::Swizzle => 6,
            _ => 7,
        };
        map[at] = u8::try_from(code).unwrap_or(u8::MAX);
        TensorMap::decode(&map).map(|_| map)
    }

    /// Reads an encoded map. All zeros are a map of which nothing is set yet.
    pub(crate) fn decode(map: &[u8; MAP_BYTES]) -> Result<TensorMap, TensorMapError> {
        let blank = map.iter().all(|&byte| byte == 0);
        ensure(blank || map[..4] == MAGIC, || "these bytes are no tensor map".to_owned())?;
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&map[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let Some(dtype) = TensorType::from_code(map[4]) else {
            return Err(TensorMapError(format!("element type {} is not simulated", map[4])));
        };
        let swizzle = match map[6] {
            0 => Swizzle::None,
            1 => Swizzle::B32,
            2 => Swizzle::B64,
            3 => Swizzle::B128,
            other => return Err(TensorMapError(format!("swizzle {other} is not simulated"))),
        };
        let rank = usize::from(map[5]) + 1;
        ensure(rank <= MAX_RANK, || format!("{rank} dimensions"))?;
        Ok(TensorMap {
            dtype,
            rank,
            address: word(8),
            dims: std::array::from_fn(|i| word(16 + 8 * i)),
            strides: std::array::from_fn(|i| word(56 + 8 * i)),
            boxes: std::array::from_fn(|i| {
                u32::from(u16::from_le_bytes([map[88 + 2 * i], map[89 + 2 * i]]))
            }),
            steps: std::array::from_fn(|i| u32::from(map[98 + i])),
            swizzle,
            fill: match map[7] {
                0 => OutOfBoundsFill::Zero,
                1 => OutOfBoundsFill::Nan,
                other => return Err(TensorMapError(format!("fill {other}"))),
            },
        })
    }

    /// Little-endian bytes of an element outside the tensor: zero, or a quiet NaN with all bits of
    /// the significand set.
    pub(crate) fn fill_bytes(&self) -> [u8; 8] {
        match (self.fill, self.dtype) {
            (OutOfBoundsFill::Zero, _) => [0; 8],
            (OutOfBoundsFill::Nan, TensorType::F16 | TensorType::Bf16) => {
                [0xFF, 0x7F, 0, 0, 0, 0, 0, 0]
            }
            (OutOfBoundsFill::Nan, TensorType::F32) => [0xFF, 0xFF, 0xFF, 0x7F, 0, 0, 0, 0],
            (OutOfBoundsFill::Nan, _) => [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Access, Memory};

    fn spec() -> TensorMapSpec {
        let buffer = Memory::new().alloc("t", 1 << 16, Access::ReadOnly).unwrap();
        TensorMapSpec {
            buffer,
            offset: 32,
            dtype: TensorType::F16,
            dims: vec![100, 50, 3],
            strides_bytes: vec![208, 10_400],
            box_dims: vec![64, 16, 1],
            element_strides: vec![1, 2, 1],
            swizzle: Swizzle::B128,
            fill: OutOfBoundsFill::Nan,
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let map = TensorMap::decode(&spec().encode(1 << 36).unwrap()).unwrap();
        assert_eq!((map.rank, map.address), (3, (1 << 36) + 32));
        assert_eq!(
            (map.dims[..3].to_vec(), map.strides[..2].to_vec()),
            (spec().dims, spec().strides_bytes)
        );
        assert_eq!(
            (map.boxes[..3].to_vec(), map.steps[..3].to_vec()),
            (spec().box_dims, spec().element_strides)
        );
        assert_eq!(
            (map.dtype, map.swizzle, map.fill),
            (TensorType::F16, Swizzle::B128, OutOfBoundsFill::Nan)
        );
        assert_eq!(map.tile_bytes(), 64 * 8 * 2);
        assert_eq!(TensorMap::decode(&map.encode()).unwrap(), map);
    }

    #[test]
    fn everything_that_the_driver_refuses_is_refused_by_name() {
        let refuse = |change: fn(&mut TensorMapSpec), part: &str| {
            let mut spec = spec();
            change(&mut spec);
            let error = spec.encode(1 << 36).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        refuse(|s| s.dims.clear(), "0 dimensions");
        refuse(|s| s.dims = vec![1; 6], "6 dimensions");
        refuse(|s| s.offset = 8, "multiple of 16");
        refuse(|s| s.dims[1] = 0, "dimension 1 has 0");
        refuse(|s| s.dims[0] = (1 << 32) + 1, "2^32");
        refuse(|s| s.strides_bytes[0] = 200, "stride 1 is 200");
        refuse(|s| s.strides_bytes[1] = 1 << 40, "stride 2");
        refuse(|s| s.strides_bytes.truncate(1), "strides_bytes has 1");
        refuse(|s| s.box_dims[1] = 257, "box dimension 1 has 257");
        refuse(|s| s.box_dims[0] = 0, "box dimension 0 has 0");
        refuse(|s| s.box_dims[0] = 20, "40 bytes, not a multiple of 16");
        refuse(|s| s.box_dims[0] = 72, "B128 allows 128");
        refuse(|s| s.element_strides[2] = 9, "element stride 2 is 9");
        refuse(|s| s.dtype = TensorType::U16, "NaN fill");
    }

    #[test]
    fn bytes_of_anything_else_are_no_map() {
        assert!(TensorMap::decode(&[7; MAP_BYTES]).is_err());
        assert!(TensorMap::decode(&[0; MAP_BYTES]).is_ok());
    }

    #[test]
    fn swizzles_move_units_as_the_manual_draws_them() {
        // PTX ISA 5.5.4, 128-byte mode: in row r, unit c holds what belongs to unit c xor r.
        for row in 0..8u32 {
            for unit in 0..8u32 {
                let address = 1024 + row * 128 + unit * 16;
                let at = |swizzle: Swizzle| (swizzle.apply(address + 5) - 1024 - row * 128) / 16;
                assert_eq!(at(Swizzle::B128), unit ^ row);
                assert_eq!(at(Swizzle::B64), unit & 4 | (unit & 3) ^ (row & 3));
                assert_eq!(at(Swizzle::B32), unit & 6 | (unit & 1) ^ (row & 1));
                assert_eq!(at(Swizzle::None), unit);
            }
        }
    }
}

//! Scales that are quantized themselves, made in the kernel: the layer's map lies in shared memory, where
//! lanes look the values of their codes up.

use crate::kir::{call, hex, int, load, var, Body, Buffer, Expr, Parameter, Space, Type};
use qtune_ir::{MAP_COPIES, NESTED_CODES};

/// The layer's map in global memory, and the same in shared memory.
pub(super) const SOURCE: &str = "nested_map";
const MAP: &str = "scale_map";
const MAP_PIECES: &str = "scale_map_pieces";
/// What the map adds to every scale.
const OFFSET: &str = "scale_offset";
/// The lane's copy of the map, as a byte offset.
const COPY: &str = "copy_bytes";

/// Bytes of all copies of a value.
const VALUE_BYTES: u32 = 4 * MAP_COPIES;
/// The same in pieces of 16 bytes.
const VALUE_PIECES: u32 = VALUE_BYTES / 16;

/// The map as a parameter.
pub(super) fn parameter() -> Parameter {
    let space = Space::GlobalRead;
    Parameter::Buffer(Buffer { name: SOURCE.into(), space, element: Type::U32 })
}

/// The map in shared memory from a byte offset.
#[derive(Clone, Copy)]
pub(super) struct ScaleMap {
    pub offset: u32,
}

impl ScaleMap {
    /// The views of it: numbers to read, all copies of one to fill.
    pub fn views(self) -> [Buffer; 2] {
        let space = Space::Shared { offset: self.offset };
        [(MAP, Type::U32), (MAP_PIECES, Type::U32x4)].map(|(name, element)| Buffer {
            name: name.into(),
            space,
            element,
        })
    }

    /// Fills the map by all `threads` of the block. The values are there after the next barrier. Lanes that
    /// differ in `reader` read different codes, and different copies as far as there are some.
    pub fn fill(self, body: &mut Body, threads: u32, reader: Expr) {
        body.section("fill the map of nested scales, a copy of each value in every bank");
        body.bind(COPY, Type::U32, (reader % MAP_COPIES).cast(Type::U32) * hex(4));
        let offset = call("bits_f32", [load(SOURCE, int(NESTED_CODES as u32))]);
        body.bind(OFFSET, Type::F32, offset);
        let pieces = NESTED_CODES as u32 * VALUE_PIECES;
        body.range("map_piece", var("thread"), pieces, threads, |body, piece| {
            let bits = load(SOURCE, piece.clone() / VALUE_PIECES);
            let bits = body.bind("bits", Type::U32, bits);
            let copies = [(); 4].map(|()| bits.clone());
            body.store(MAP_PIECES, piece, call("pack_u32x4", copies));
        });
    }
}

/// The bits of the scale that byte `byte` of `codes` and the f32 in the bits of `scale` make.
pub(super) fn scale(codes: Expr, byte: Expr, scale: Expr) -> Expr {
    // A multiple of what a value takes, and the copy below it.
    let code = (codes >> (byte * 8u32)) << VALUE_BYTES.trailing_zeros();
    let place = (code & hex(0xff * VALUE_BYTES)) | var(COPY);
    let value = call("bits_f32", [call("table_word", [Expr::address(MAP, int(0)), place])]);
    call("nested_scale", [value, call("bits_f32", [scale]), var(OFFSET)])
}

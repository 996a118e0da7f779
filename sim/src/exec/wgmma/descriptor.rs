//! Shared-memory matrix descriptors (PTX ISA 9.7.15.5.1) and the layouts they name.
//!
//! Memory is read in pieces of 16 bytes. K-major, a piece holds consecutive K of one row (or
//! column); 32 bytes of K are two pieces. MN-major, it holds eight 16-bit elements of neighbouring
//! rows at one k.

/// How 16-byte pieces are permuted: by the width of the pattern's rows in bytes; 16 is no swizzle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Swizzle {
    width: u32,
}

impl Swizzle {
    /// Rows after which the permutation repeats, less one.
    fn phases(self) -> u32 {
        self.width / 16 - 1
    }

    /// Bytes after which the pattern repeats.
    fn repeat(self) -> u32 {
        8 * self.width
    }
}

/// A decoded 64-bit descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Descriptor {
    start: u32,
    /// Leading-dimension and stride-dimension byte offsets.
    leading: u32,
    stride: u32,
    base_offset: u32,
    swizzle: Swizzle,
}

/// Bits 0 to 13, 16 to 29, 32 to 45, 49 to 51 and 62 to 63 have a meaning.
const USED_BITS: u64 = 0x3FFF | 0x3FFF << 16 | 0x3FFF << 32 | 7 << 49 | 3 << 62;

impl Descriptor {
    pub(super) fn new(bits: u64) -> Descriptor {
        let offset = |shift: u32| ((bits >> shift) as u32 & 0x3FFF) << 4;
        let width = [16, 128, 64, 32][(bits >> 62) as usize];
        Descriptor {
            start: offset(0),
            leading: offset(16),
            stride: offset(32),
            base_offset: (bits >> 49) as u32 & 7,
            swizzle: Swizzle { width },
        }
    }

    /// What is wrong with a descriptor whatever the operand.
    pub(super) fn defect(bits: u64) -> Option<String> {
        if bits & !USED_BITS != 0 {
            return Some(format!("matrix descriptor {bits:#018x} with reserved bits set"));
        }
        let d = Descriptor::new(bits);
        let (width, repeat) = (d.swizzle.width, d.swizzle.repeat());
        // Steps along K (or along a row of the pattern) stay inside one row; anything more moves
        // the start off the pattern's repeat.
        let into_pattern = d.start % repeat - d.start % width;
        let expected = (d.start >> 7 & 7) & d.swizzle.phases();
        let declared = d.base_offset & d.swizzle.phases();
        if width > 16 && into_pattern != 0 && (into_pattern % 128 != 0 || declared != expected) {
            return Some(format!(
                "operand at shared address {} with {width}-byte swizzle: the pattern repeats every \
                 {repeat} bytes, and base offset {} does not say where it starts",
                d.start, d.base_offset
            ));
        }
        None
    }

    /// Address of 16 bytes of K of a row: `piece` 0 or 1 within the instruction's 32 bytes.
    pub(super) fn k_major(&self, row: usize, piece: usize) -> u32 {
        let (group, row, piece) = ((row / 8) as u32, (row % 8) as u32, piece as u32);
        // Without swizzle the two pieces lie apart; the leading offset has no meaning otherwise.
        let along_k = if self.swizzle.width == 16 { self.leading } else { 16 };
        self.swizzled(group * self.stride + row * self.swizzle.width + piece * along_k)
    }

    /// Address of the eight elements of rows 8 * `group` on at one k.
    pub(super) fn mn_major(&self, group: usize, k: usize) -> u32 {
        let (group, k_group, k) = (group as u32, (k / 8) as u32, (k % 8) as u32);
        let width = self.swizzle.width;
        let offset = if width == 16 {
            group * self.stride + k_group * self.leading + k * 16
        } else {
            let per_row = width / 16;
            let within = group % per_row * 16;
            group / per_row * self.leading + k_group * self.stride + k * width + within
        };
        self.swizzled(offset)
    }

    fn swizzled(&self, offset: u32) -> u32 {
        let at = self.start.wrapping_add(offset);
        let phase = (at >> 7).wrapping_sub(self.base_offset) & self.swizzle.phases();
        at ^ phase << 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(start: u64, leading: u64, stride: u64, code: u64) -> u64 {
        start >> 4 | (leading >> 4) << 16 | (stride >> 4) << 32 | code << 62
    }

    #[test]
    fn rows_of_128_bytes_are_permuted_by_their_number() {
        let d = Descriptor::new(bits(2048, 16, 1024, 1));
        assert_eq!(d.k_major(0, 0), 2048);
        assert_eq!(d.k_major(3, 0), 2048 + 3 * 128 + (3 << 4));
        assert_eq!(d.k_major(3, 1), 2048 + 3 * 128 + ((1 ^ 3) << 4));
        assert_eq!(d.k_major(11, 0), 2048 + 1024 + 3 * 128 + (3 << 4));
        let second_step = Descriptor::new(bits(2048 + 32, 16, 1024, 1));
        assert_eq!(second_step.k_major(5, 1), 2048 + 5 * 128 + ((3 ^ 5) << 4));
    }

    #[test]
    fn unswizzled_core_matrices_lie_where_the_offsets_say() {
        let d = Descriptor::new(bits(0, 128, 256, 0));
        assert_eq!(d.k_major(9, 1), 256 + 16 + 128);
        assert_eq!(d.mn_major(2, 9), 2 * 256 + 128 + 16);
    }

    #[test]
    fn wide_rows_of_neighbours_continue_at_the_leading_offset() {
        let d = Descriptor::new(bits(0, 4096, 1024, 1));
        // The second piece of the second row changes places with the first.
        assert_eq!(d.mn_major(9, 1), 4096 + 128);
        assert_eq!(d.mn_major(3, 8), 1024 + 3 * 16);
    }

    #[test]
    fn a_start_inside_the_pattern_needs_its_base_offset() {
        assert!(Descriptor::defect(bits(1024, 16, 1024, 1)).is_none());
        assert!(Descriptor::defect(bits(1024 + 96, 16, 1024, 1)).is_none());
        assert!(Descriptor::defect(bits(1024 + 128, 16, 1024, 1)).is_some());
        assert!(Descriptor::defect(bits(1024 + 128, 16, 1024, 1) | 1 << 49).is_none());
        assert!(Descriptor::defect(bits(64, 16, 512, 2)).is_some());
        assert!(Descriptor::defect(bits(128, 128, 256, 0)).is_none());
        assert!(Descriptor::defect(1 << 55).is_some());
    }
}

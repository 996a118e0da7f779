//! Putting codes together as [`crate::Codes`] keeps a row: two codes of 4 bits to a byte, the even column in
//! the low nibble.

use qtune_ir::vectorised;

/// Byte `i` of the result has nibble `i` of the lower half of a word, and above it that of the upper half.
#[inline(always)]
pub(crate) fn join_halves(word: u32) -> u32 {
    let apart = |half: u32| {
        let bytes = (half | half << 8) & 0x00ff_00ff;
        (bytes | bytes << 4) & 0x0f0f_0f0f
    };
    apart(word & 0xffff) | apart(word >> 16) << 4
}

/// Stores codes of `bits` bits, one per byte, as a row.
pub(crate) fn pack(codes: &[u8], bits: u8, row: &mut [u8]) {
    if bits > 4 {
        row.copy_from_slice(codes);
        return;
    }
    pack_pairs(codes, row);
    if let (Some(byte), [last]) = (row.last_mut(), codes.chunks_exact(2).remainder()) {
        *byte = *last;
    }
}

/// The codes of a row, one per byte.
pub(crate) fn unpack(row: &[u8], bits: u8, codes: &mut [u8]) {
    if bits > 4 {
        return codes.copy_from_slice(row);
    }
    for (pair, byte) in codes.chunks_mut(2).zip(row) {
        pair[0] = byte & 15;
        if let Some(odd) = pair.get_mut(1) {
            *odd = byte >> 4;
        }
    }
}

vectorised!(
    /// Stores pairs of codes.
    fn pack_pairs(codes: &[u8], row: &mut [u8]) = join_pairs
);

#[inline(always)]
fn join_pairs(codes: &[u8], row: &mut [u8]) {
    for (byte, pair) in row.iter_mut().zip(codes.chunks_exact(2)) {
        *byte = pair[0] | pair[1] << 4;
    }
}

/// Stores the codes of a row of blocks, so many bytes each, that have runs of bytes whose low nibbles come
/// before their high ones. The codes of a block start at this byte of it and reach to its end.
pub(crate) type PackRuns = fn(blocks: &[u8], size: usize, first: usize, row: &mut [u8]);

vectorised!(
    /// [`PackRuns`] with 16 bytes to a run.
    pub(crate) fn pack_runs_of_16(blocks: &[u8], size: usize, first: usize, row: &mut [u8]) =
        join_runs::<16>
);
vectorised!(
    /// [`PackRuns`] with 32 bytes to a run.
    pub(crate) fn pack_runs_of_32(blocks: &[u8], size: usize, first: usize, row: &mut [u8]) =
        join_runs::<32>
);

#[inline(always)]
fn join_runs<const RUN: usize>(blocks: &[u8], size: usize, first: usize, row: &mut [u8]) {
    for (block, row) in blocks.chunks_exact(size).zip(row.chunks_exact_mut(size - first)) {
        for (run, row) in block[first..].chunks_exact(RUN).zip(row.chunks_exact_mut(RUN)) {
            let (low, high) = row.split_at_mut(RUN / 2);
            for ((pair, low), high) in run.chunks_exact(2).zip(low).zip(high) {
                *low = pair[0] & 15 | pair[1] << 4;
                *high = pair[0] >> 4 | pair[1] & 0xf0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_end_with_an_odd_code() {
        let mut row = [0xff; 3];
        pack(&[1, 2, 3, 4, 5], 4, &mut row);
        assert_eq!(row, [0x21, 0x43, 0x05]);
        let mut codes = [0; 5];
        unpack(&row, 4, &mut codes);
        assert_eq!(codes, [1, 2, 3, 4, 5]);
        pack(&[7, 8, 9], 8, &mut row);
        assert_eq!(row, [7, 8, 9]);
    }

    #[test]
    fn bytes_are_nibbles_of_both_halves() {
        assert_eq!(join_halves(0x7654_3210).to_le_bytes(), [0x40, 0x51, 0x62, 0x73]);
    }

    #[test]
    fn runs_are_packed_as_their_codes_are() {
        let blocks: Vec<u8> = (0..3 * 66).map(|at| (at * 37 + 11) as u8).collect();
        for (run, pack_runs) in [(16, pack_runs_of_16 as PackRuns), (32, pack_runs_of_32)] {
            let mut codes = Vec::new();
            for run in blocks.chunks(66).flat_map(|block| block[2..].chunks(run)) {
                codes.extend(run.iter().map(|byte| byte & 15));
                codes.extend(run.iter().map(|byte| byte >> 4));
            }
            let mut rows = [[0; 3 * 64]; 2];
            pack_runs(&blocks, 66, 2, &mut rows[0]);
            pack(&codes, 4, &mut rows[1]);
            assert_eq!(rows[0], rows[1], "runs of {run}");
        }
    }
}

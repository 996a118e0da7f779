//! Layers in tiles, in parts and in bytes that contradict themselves are refused by name.

mod support;

use safetensors::Dtype;
use std::collections::BTreeMap;
use support::{filled, message, refuses, Tensor, Tensors};

/// A tensor of these integers of 64 bits.
fn sizes(values: &[i64]) -> Tensor {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor { dtype: Dtype::I64, shape: vec![values.len()], bytes }
}

/// A single integer.
fn integer(value: i32) -> Tensor {
    Tensor { dtype: Dtype::I32, shape: vec![], bytes: value.to_le_bytes().to_vec() }
}

#[test]
fn tiles_of_a_kernel() {
    let layer = BTreeMap::from([
        ("l.B".into(), filled(Dtype::I32, &[8, 128], 0x21)),
        ("l.s".into(), filled(Dtype::F16, &[2, 64], 0)),
    ]);
    refuses(
        layer.clone(),
        &[
            (".B", Dtype::I32, &[8, 96], 0, "rows of 96 words"),
            (".B", Dtype::I32, &[0, 128], 0, "64 x 0 weights"),
            (".B", Dtype::F32, &[8, 128], 0, "Marlin-packed GPTQ layer"),
            (".s", Dtype::F16, &[2, 32], 0, "rows of N = 64 scales"),
            (".s", Dtype::F16, &[3, 64], 0, "do not divide K = 128"),
            (".s", Dtype::F32, &[2, 64], 0, "a scale per quant group"),
            (".s", Dtype::F16, &[2, 64], 0xff, "holds NaN"),
            (".bias", Dtype::F16, &[63], 0, "float per output feature"),
        ],
    );
}

#[test]
fn bytes_with_the_maxima_of_rows() {
    let layer = BTreeMap::from([
        ("l.weight".into(), filled(Dtype::I8, &[8, 64], 0x21)),
        ("l.SCB".into(), filled(Dtype::F32, &[8], 0)),
        ("l.weight_format".into(), filled(Dtype::U8, &[], 0)),
    ]);
    refuses(
        layer,
        &[
            (".weight", Dtype::U8, &[8, 64], 0, "not a matrix of I8"),
            (".weight", Dtype::I8, &[0, 64], 0, "0 x 64 weights"),
            (".SCB", Dtype::F32, &[7], 0, "an absolute maximum per output feature"),
            (".SCB", Dtype::F32, &[8], 0xbf, "holds -1.49"),
            (".weight_format", Dtype::U8, &[], 1, "in tiles of one GPU generation"),
            (".bias", Dtype::F16, &[7], 0, "float per output feature"),
        ],
    );
}

/// A consistent layer `l` of N = 8, K = 64 with groups of 32 along an axis.
fn regrouped(axis: i32) -> Tensors {
    let (codes, params) = if axis == 1 { ([8, 32], [16, 1]) } else { ([16, 16], [1, 16]) };
    BTreeMap::from([
        ("l.W_q".into(), filled(Dtype::U8, &codes, 0x21)),
        ("l.scale".into(), filled(Dtype::F16, &params, 0)),
        ("l.zero".into(), filled(Dtype::F16, &params, 0)),
        ("l.shape".into(), sizes(&[8, 64])),
        ("l.nbits".into(), integer(4)),
        ("l.group_size".into(), integer(32)),
        ("l.axis".into(), integer(axis)),
    ])
}

#[test]
fn parts_of_a_regrouped_matrix() {
    refuses(regrouped(0), &[(".W_q", Dtype::U8, &[15, 16], 0, "hold no 32 x 16 codes")]);
    refuses(
        regrouped(1),
        &[
            (".W_q", Dtype::U8, &[8, 16], 0, "hold no 16 x 32 codes of 4 bits"),
            (".scale", Dtype::F32, &[16, 1], 0, "is F32, not F16 or BF16"),
            (".scale", Dtype::F16, &[7, 1], 0, "holds 7 scales, which do not divide"),
            (".scale", Dtype::F16, &[0, 1], 0, "holds 0 scales"),
            (".scale", Dtype::F16, &[16, 1], 0xff, "holds NaN for group 0"),
            (".zero", Dtype::BF16, &[16, 1], 0, "unlike the scales"),
            (".shape", Dtype::I64, &[2], 0xff, "not N and K"),
            (".shape", Dtype::I64, &[3], 0, "not N and K"),
            (".nbits", Dtype::I32, &[], 5, "bits"),
            (".nbits", Dtype::I32, &[2], 4, "not one integer"),
            (".axis", Dtype::I32, &[], 2, "not 0 or 1"),
            (".group_size", Dtype::I32, &[], 1, "not one per"),
            (".quant_zero", Dtype::U8, &[], 1, "are quantized themselves"),
            (".bias", Dtype::F16, &[7], 0, "float per output feature"),
        ],
    );
    let mut lonely = regrouped(1);
    lonely.remove("l.zero");
    assert!(message(&lonely, "").contains("`l.zero`: is missing"));
}

#[test]
fn plain_nibbles_and_tiles_of_tensor_cores() {
    let plain = BTreeMap::from([
        ("l.weight:qdata".into(), filled(Dtype::I8, &[8, 32], 0x21)),
        ("l.weight:scale".into(), filled(Dtype::BF16, &[2, 8], 0)),
        ("l.weight:zero_point".into(), filled(Dtype::BF16, &[2, 8], 0)),
    ]);
    refuses(
        plain,
        &[
            (".weight:qdata", Dtype::I8, &[8, 0], 0, "8 x 0 weights"),
            (".weight:qdata", Dtype::F16, &[8, 32], 0, "not bytes"),
            (".weight:scale", Dtype::BF16, &[3, 8], 0, "not for groups of 64 columns"),
            (".weight:scale", Dtype::BF16, &[2, 7], 0, "not for groups of 64 columns"),
            (".weight:scale", Dtype::BF16, &[2, 8], 0xff, "holds NaN"),
            (".weight:zero_point", Dtype::F16, &[2, 8], 0, "beside scales BF16"),
            (".bias", Dtype::F16, &[7], 0, "float per output feature"),
        ],
    );
    let mut tiles: Tensors = BTreeMap::from([
        ("l.weight:qdata".into(), filled(Dtype::I32, &[1, 8, 32, 4], 0x21)),
        ("l.weight:scale_and_zero".into(), filled(Dtype::BF16, &[16, 8, 2], 0)),
    ]);
    assert!(message(&tiles, "").contains("metadata does not state the layer's shape"));
    tiles.insert("l.weight:qdata".into(), filled(Dtype::I32, &[1, 8, 32, 2], 0x21));
    assert!(message(&tiles, "").contains("tiles of 32 x 2 words"));
}

#[test]
fn sums_of_vectors() {
    let layer = BTreeMap::from([
        ("l.codes".into(), filled(Dtype::I8, &[8, 4, 2], 0xff)),
        ("l.codebooks".into(), filled(Dtype::F16, &[2, 256, 1, 8], 0)),
        ("l.scales".into(), filled(Dtype::F16, &[8, 1, 1, 1], 0)),
    ]);
    refuses(
        layer,
        &[
            (".codes", Dtype::I8, &[8, 4, 1], 0, "not codes of 2 codebooks"),
            (".codes", Dtype::I8, &[8, 0, 2], 0, "8 x 0 weights"),
            (".codes", Dtype::F16, &[8, 4, 2], 0, "not integers of 8, 16 or 32 bits"),
            (".codebooks", Dtype::F16, &[2, 512, 1, 8], 0, "names no 512 vectors"),
            (".codebooks", Dtype::F16, &[2, 255, 1, 8], 0, "not vectors of up to 8"),
            (".codebooks", Dtype::F16, &[2, 256, 2, 8], 0, "not vectors of up to 8"),
            (".codebooks", Dtype::BF16, &[2, 256, 1, 8], 0, "vectors of 16-bit floats"),
            (".codebooks", Dtype::F16, &[2, 256, 1, 8], 0xff, "holds NaN at element 0"),
            (".scales", Dtype::F16, &[8, 1], 0, "a scale per output feature"),
            (".bias", Dtype::F16, &[7], 0, "float per output feature"),
        ],
    );
}

#[test]
fn points_of_a_lattice() {
    let layer = BTreeMap::from([
        ("l.Qidxs".into(), filled(Dtype::I64, &[16, 2], 0x21)),
        ("l.SU".into(), filled(Dtype::F16, &[64], 0)),
        ("l.SV".into(), filled(Dtype::F16, &[16], 0)),
        ("l.Wscale".into(), filled(Dtype::F32, &[], 0)),
    ]);
    refuses(
        layer,
        &[
            (".Qidxs", Dtype::I64, &[16, 3], 0, "only powers of two"),
            (".Qidxs", Dtype::I64, &[8, 2], 0, "only powers of two"),
            (".Qidxs", Dtype::I32, &[16, 2], 0, "not a matrix of I64"),
            (".SU", Dtype::F16, &[63], 0, "a factor per feature"),
            (".SV", Dtype::F16, &[16], 0xff, "holds NaN for feature 0"),
            (".Wscale", Dtype::F32, &[2], 0, "not one F32"),
            (".Wscale", Dtype::F32, &[], 0xff, "holds NaN"),
            (".codebook_id", Dtype::I64, &[], 0x11, "names the codebook"),
        ],
    );
}

//! Checkpoints that ask for activations of 8 bits, with codes that the runtime's launches make, and with
//! 16-bit activations where the caller wants those.

use super::{nvrtc, runtime};
use qtune_formats::{ActBits, Checkpoint, QuantizedLinear};
use qtune_ir::{DType, ACTIVATION_GROUP};
use qtune_runtime::{LinearLayer, LoadOptions, Runtime, ServedLayer};
use qtune_verify::{verify, VerifyRequest, WeightSource};
use std::path::Path;

/// Token counts: one bucket that pads, one that does not.
const TOKENS: [u32; 2] = [1, 20];

fn first_layer(case: &str) -> (Checkpoint, String) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/golden-checkpoints/compressed_tensors")
        .join(case);
    let checkpoint = Checkpoint::open(folder).unwrap();
    let path = checkpoint.layers()[0].path.clone();
    (checkpoint, path)
}

/// Activations of tokens that differ by far in size; the first of 256 makes the codes of its token coarse.
fn activations(tokens: u32, k: usize) -> Vec<f32> {
    let value = |at: usize| ((at * 7 + at / 11) % 17) as f32 / 8.0 - 1.0;
    let size = |token: usize| if token % 2 == 0 { 1.0 } else { 0.0625 };
    let mut x: Vec<f32> = (0..tokens as usize * k).map(|at| value(at) * size(at / k)).collect();
    x[0] = 256.0;
    x
}

/// What the layer multiplies instead of activations.
fn multiplied(weights: &QuantizedLinear, x: &[f32]) -> Vec<f32> {
    let scheme = weights.spec.activations;
    if !scheme.are_quantized() {
        return x.to_vec();
    }
    let given = weights.activation_scale();
    let tokens = x.chunks(weights.k).flat_map(|token| match scheme.are_grouped() {
        true => token.chunks(ACTIVATION_GROUP as usize),
        false => token.chunks(weights.k),
    });
    let tokens = tokens.map(|group| scheme.quantize(group, given));
    tokens.flat_map(|t| t.codes.into_iter().map(move |c| scheme.value(c) * t.scale)).collect()
}

/// Checks outputs against the products of dequantized weights with what is multiplied.
fn products(weights: &QuantizedLinear, x: &[f32], y: &[f32]) {
    let (x, dense) = (multiplied(weights, x), weights.dequantize());
    assert_eq!(y.len(), x.len() / weights.k * weights.n);
    for (token, row) in x.chunks(weights.k).zip(y.chunks(weights.n)) {
        for (n, (y, w)) in row.iter().zip(dense.chunks(weights.k)).enumerate() {
            let bias = weights.bias.as_ref().map_or(0.0, |bias| bias[n]);
            let exact = token.iter().zip(w).map(|(x, w)| x * w).sum::<f32>() + bias;
            let size: f32 = token.iter().zip(w).map(|(x, w)| (x * w).abs()).sum();
            // Dequantized weights and outputs are rounded to 8 bits and more, sums of 8-bit floats to 13.
            let bound = 4e-3 * (size + bias.abs() + exact.abs());
            assert!((y - exact).abs() <= bound, "row {n}: {y} for {exact}");
        }
    }
}

/// Runs and verifies a layer of this format; the steps of its launches.
fn serves(runtime: &Runtime, layer: &LinearLayer<'_>, weights: &QuantizedLinear) -> usize {
    for m in TOKENS {
        let x = activations(m, weights.k);
        products(weights, &x, &layer.run(&x, m).unwrap());
        let image = layer.kernel(m).unwrap().0.image().clone();
        let request = VerifyRequest {
            weights: WeightSource::Real(weights),
            tokens: vec![m],
            ..VerifyRequest::new(&image, &weights.spec, 3)
        };
        let verdict = verify(&request, &ServedLayer::new(runtime.device(), layer)).unwrap();
        assert!(verdict.passed && verdict.error_over_bound <= 1.0, "{verdict:#?}");
    }
    layer.kernel(1).unwrap().0.image().kernel.steps(1).len()
}

#[test]
fn activations_are_quantized_where_the_checkpoint_asks_for_it_and_the_caller_lets_it() {
    let Some(nvrtc) = nvrtc() else { return };
    let runtime = runtime(nvrtc, None);
    let options = LoadOptions { tokens: &TOKENS, ..LoadOptions::new(DType::Bf16) };
    for (case, format) in [
        ("int8_w8a8_channel", "int8-ch-bf16-a8"),
        ("fp8_channel_dynamic", "fp8-e4m3-ch-a8"),
        ("fp8_tensor_static", "fp8-e4m3-ch-a8-static"),
        ("deepseek_fp8_block128", "fp8-e4m3-g128-a8"),
        ("fp8_block128", "fp8-e4m3-g128-a8"),
    ] {
        let (checkpoint, path) = first_layer(case);
        let asked = checkpoint.load_layer(&path).unwrap();
        assert_eq!(asked.spec.name, format);
        let layer = LinearLayer::load(&runtime, &checkpoint, &path, &options).unwrap();
        assert_eq!(layer.problem().act_bits, 8);
        assert_eq!(serves(&runtime, &layer, &asked), 2, "codes are made by a step of their own");
        let plain = asked.in_act_bits(ActBits::Sixteen).unwrap();
        let layer = LinearLayer::of(&runtime, &plain, &path, &options).unwrap();
        assert_eq!(layer.problem().act_bits, 16);
        assert_eq!(serves(&runtime, &layer, &plain), 1);
    }
}

#[test]
fn codes_that_nobody_asked_to_multiply_are_multiplied_for_a_caller_who_does() {
    let Some(nvrtc) = nvrtc() else { return };
    let runtime = runtime(nvrtc, None);
    let options = LoadOptions { tokens: &TOKENS, ..LoadOptions::new(DType::Bf16) };
    let (checkpoint, path) = first_layer("fp8_tensor_static");
    let weights = checkpoint.load_layer(&path).unwrap();
    let weights = weights.in_act_bits(ActBits::Sixteen).unwrap();
    let weights = weights.in_act_bits(ActBits::Eight).unwrap();
    assert_eq!(weights.activation_scale(), None);
    let layer = LinearLayer::of(&runtime, &weights, &path, &options).unwrap();
    assert_eq!(serves(&runtime, &layer, &weights), 2);
}

#[test]
fn a_layer_that_does_not_bring_the_scale_of_its_format_is_refused_by_name() {
    let Some(nvrtc) = nvrtc() else { return };
    let runtime = runtime(nvrtc, None);
    let (checkpoint, path) = first_layer("fp8_tensor_static");
    let weights = checkpoint.load_layer(&path).unwrap();
    let without = QuantizedLinear { input_scale: None, ..weights };
    let error = LinearLayer::of(&runtime, &without, &path, &LoadOptions::new(DType::Bf16));
    let error = error.unwrap_err().to_string();
    assert!(error.contains(&path) && error.contains("the scale of activations"), "{error}");
}

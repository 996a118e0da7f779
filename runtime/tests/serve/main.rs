//! Layers of golden checkpoints, run in the simulator. Skipped where NVRTC is missing.

mod eight_bit;

use qtune_cache::{Evidence, Extent, Kernel, MemoryStore, Store, Winner};
use qtune_codegen::nvrtc::{Nvrtc, OpenOptions};
use qtune_device::{Access, AsyncSchedule, KernelImage, SimDevice, WarpOrder};
use qtune_formats::{Checkpoint, ParamValues, QuantizedLinear};
use qtune_ir::{Arch, DType, Epilogue, Problem, Schedule};
use qtune_runtime::{
    winner_key, Batch, Choice, LinearLayer, LoadOptions, Lookups, Origin, Runtime, ServedLayer,
};
use qtune_verify::{default_schedule, verify, VerifyRequest, WeightSource};
use std::path::Path;

fn nvrtc() -> Option<Nvrtc> {
    let found = Nvrtc::open(&OpenOptions::default());
    found.map_err(|error| println!("skipped: {error}")).ok()
}

fn arch() -> Arch {
    Arch::named("h200").unwrap()
}

fn runtime(nvrtc: Nvrtc, store: Option<Box<dyn Store>>) -> Runtime {
    Runtime::open(Box::new(SimDevice::new(&arch())), nvrtc, store)
}

fn golden(case: &str) -> Checkpoint {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden-checkpoints/awq");
    Checkpoint::open(folder.join(case)).unwrap()
}

const BIASED: (&str, &str) = ("gemm_g64_bias", "model.layers.0.self_attn.q_proj");

/// Activations that every element type holds exactly.
fn activations(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7 + i / 11) % 9) as f32 / 4.0 - 1.0).collect()
}

/// Error of a right output, as a share of the products' magnitudes. The verifier has the sharp
/// bound; this one only tells right from wrong.
const CLOSE: f64 = 1.0 / 512.0;

/// The product with its bias and the sum of the products' magnitudes, `[tokens, N]`.
fn product(weights: &QuantizedLinear, x: &[f32]) -> Vec<(f64, f64)> {
    let (k, w) = (weights.k, weights.dequantize());
    let bias = weights.bias.as_ref().expect("this layer has a bias");
    let element = |(x, row): (&[f32], usize)| {
        let pairs = x.iter().zip(&w[row * k..][..k]);
        let products: Vec<f64> = pairs.map(|(x, w)| f64::from(*x) * f64::from(*w)).collect();
        let sum = products.iter().sum::<f64>() + f64::from(bias[row]);
        (sum, products.iter().map(|p| p.abs()).sum::<f64>() + sum.abs())
    };
    x.chunks(k).flat_map(|x| (0..weights.n).map(move |row| (x, row))).map(element).collect()
}

#[test]
fn a_gate_and_an_up_projection_become_one_layer() {
    let Some(nvrtc) = nvrtc() else { return };
    let runtime = runtime(nvrtc, None);
    let checkpoint = golden(BIASED.0);
    let options = LoadOptions { tokens: &[3], ..LoadOptions::new(DType::F16) };
    let both = [BIASED.1, BIASED.1];
    let layer = LinearLayer::load_gated(&runtime, &checkpoint, both, &options).unwrap();
    let weights = checkpoint.load_layer(BIASED.1).unwrap();
    let x = activations(3 * weights.k);
    let got = layer.run(&x, 3).unwrap();
    assert_eq!(got.len(), 3 * weights.n, "half of the rows of both");
    for (got, (y, scale)) in got.into_iter().zip(product(&weights, &x)) {
        let expected = y / (1.0 + (-y).exp()) * y;
        let error = (f64::from(got) - expected).abs();
        assert!(error <= 3.0 * scale * scale.max(1.0) * CLOSE, "{got} for {expected}");
    }
}

#[test]
fn a_residual_may_be_the_output() {
    let Some(nvrtc) = nvrtc() else { return };
    let runtime = runtime(nvrtc, None);
    let checkpoint = golden(BIASED.0);
    let weights = checkpoint.load_layer(BIASED.1).unwrap();
    let plain = LoadOptions { tokens: &[5], ..LoadOptions::new(DType::F16) };
    let options = LoadOptions { epilogue: Epilogue::Residual, ..plain };
    let layer = LinearLayer::of(&runtime, &weights, BIASED.1, &options).unwrap();
    let x = activations(5 * weights.k);
    assert!(layer.run(&x, 5).unwrap_err().to_string().contains("adds a residual"));
    let device = runtime.device();
    let halves = |values: &[f32]| -> Vec<u8> {
        values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect()
    };
    let input = device.alloc("x", 10 * weights.k, Access::ReadOnly).unwrap();
    let both = device.alloc("hidden", 10 * weights.n, Access::ReadWrite).unwrap();
    device.upload(&input, 0, &halves(&x)).unwrap();
    let residual = activations(5 * weights.n);
    device.upload(&both, 0, &halves(&residual)).unwrap();
    let batch = Batch {
        tokens: 5,
        activations: (&input, 0),
        residual: Some((&both, 0)),
        output: (&both, 0),
        next: None,
        steps: None,
        blocks: &[],
        schedule: AsyncSchedule::default(),
        order: WarpOrder::default(),
    };
    assert_eq!(layer.launch(&batch).unwrap().findings, Vec::<String>::new());
    let bytes = device.download(&both, 0, 10 * weights.n).unwrap();
    let got = bytes.chunks(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f64());
    let expected = product(&weights, &x).into_iter().zip(residual);
    for (got, ((y, scale), residual)) in got.zip(expected) {
        let expected = y + f64::from(residual);
        assert!((got - expected).abs() <= (scale + 1.0) * CLOSE, "{got} for {expected}");
    }
}

#[test]
fn every_token_count_gives_the_product_with_the_dequantized_weights_and_the_bias() {
    let Some(nvrtc) = nvrtc() else { return };
    let runtime = runtime(nvrtc, None);
    let tokens = [1, 7, 16, 33, 50, 130];
    let options = LoadOptions { tokens: &tokens, ..LoadOptions::new(DType::F16) };
    let checkpoint = golden(BIASED.0);
    let layer = LinearLayer::load(&runtime, &checkpoint, BIASED.1, &options).unwrap();
    let weights = checkpoint.load_layer(BIASED.1).unwrap();
    for m in tokens {
        let x = activations(m as usize * weights.k);
        let got = layer.run(&x, m).unwrap();
        let expected = product(&weights, &x);
        assert_eq!(got.len(), expected.len());
        for (at, (got, (expected, scale))) in got.iter().zip(expected).enumerate() {
            let error = (f64::from(*got) - expected).abs();
            assert!(error <= scale * CLOSE, "m {m} [{at}]: {got} for {expected}");
        }
    }
    assert_eq!(runtime.lookups(), Lookups { hits: 0, misses: 5 }, "33 and 50 share a kernel");
}

#[test]
fn columns_in_an_order_of_their_own_meet_their_activations() {
    let Some(nvrtc) = nvrtc() else { return };
    serves_products("gptq/v1_4bit_sym_g64_desc_act", nvrtc);
}

#[test]
fn vectors_are_those_of_the_layers_codebooks_between_its_rotations() {
    for case in ["aqlm/aqlm_1x12", "aqlm/aqlm_2x8", "quip_sharp/e8p_2bit"] {
        let Some(nvrtc) = nvrtc() else { return };
        serves_products(case, nvrtc);
    }
}

/// Checks that the first layer of a golden case gives the products with its dequantized weights and its
/// bias, and that its launches verify.
fn serves_products(case: &str, nvrtc: Nvrtc) {
    let runtime = runtime(nvrtc, None);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden-checkpoints");
    let checkpoint = Checkpoint::open(folder.join(case)).unwrap();
    let path = checkpoint.layers()[0].path.clone();
    let tokens = [1, 20];
    let options = LoadOptions { tokens: &tokens, ..LoadOptions::new(DType::F16) };
    let layer = LinearLayer::load(&runtime, &checkpoint, &path, &options).unwrap();
    let weights = checkpoint.load_layer(&path).unwrap();
    let dense = weights.dequantize();
    let bias = weights.bias.clone().unwrap_or_else(|| vec![0.0; weights.n]);
    for m in tokens {
        let x: Vec<f32> = (0..m as usize * weights.k).map(|i| (i % 13) as f32 - 6.0).collect();
        let y = layer.run(&x, m).unwrap();
        assert_eq!(y, layer.run(&x, m).unwrap(), "two runs give the same bits");
        for (token, row) in y.chunks(weights.n).enumerate() {
            let x = &x[token * weights.k..][..weights.k];
            for ((value, weights), bias) in row.iter().zip(dense.chunks(weights.k)).zip(&bias) {
                let exact = x.iter().zip(weights).map(|(x, w)| x * w).sum::<f32>() + bias;
                let size: f32 = x.iter().zip(weights).map(|(x, w)| (x * w).abs()).sum();
                let near = (value - exact).abs() < 4e-3 * (size + bias.abs());
                assert!(near, "{case}: {m} tokens: {value} for {exact}");
            }
        }
        let image = layer.kernel(m).unwrap().0.image().clone();
        let request = VerifyRequest {
            weights: WeightSource::Real(&weights),
            tokens: vec![m],
            ..VerifyRequest::new(&image, &weights.spec, 3)
        };
        let verdict = verify(&request, &ServedLayer::new(runtime.device(), &layer)).unwrap();
        assert!(verdict.passed, "{verdict:#?}");
    }
}

#[test]
fn columns_in_no_order_are_refused_by_name() {
    let Some(nvrtc) = nvrtc() else { return };
    let runtime = runtime(nvrtc, None);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden-checkpoints/gptq");
    let checkpoint = Checkpoint::open(folder.join("v1_4bit_sym_g64_desc_act")).unwrap();
    let mut weights = checkpoint.load_layer(&checkpoint.layers()[0].path).unwrap();
    weights.k_order.as_mut().unwrap()[5] = 4_000_000;
    let options = LoadOptions::new(DType::F16);
    let error = LinearLayer::of(&runtime, &weights, "mlp.up", &options).unwrap_err().to_string();
    assert!(error.contains("`mlp.up`: column 5 is said to be feature 4000000"), "{error}");
}

#[test]
fn wrong_sizes_and_unprepared_token_counts_are_refused_by_name() {
    let Some(nvrtc) = nvrtc() else { return };
    let runtime = runtime(nvrtc, None);
    let options = LoadOptions::new(DType::Bf16);
    let layer = LinearLayer::load(&runtime, &golden(BIASED.0), BIASED.1, &options).unwrap();
    let message = |x: usize, m| layer.run(&vec![0.0; x], m).unwrap_err().to_string();
    assert!(message(191, 1).contains("382 bytes of activations"), "{}", message(191, 1));
    assert!(message(192 * 16, 16).contains("not loaded for 16 tokens"));
    assert!(message(0, 0).contains("M = 0"));
    assert!(message(192, 1 << 20).contains(BIASED.1));
}

#[test]
fn scales_past_the_limit_of_a_term_take_another_one() {
    let Some(nvrtc) = nvrtc() else { return };
    let runtime = runtime(nvrtc, None);
    let mut weights = golden(BIASED.0).load_layer(BIASED.1).unwrap();
    let options = LoadOptions { tokens: &[64], ..LoadOptions::new(DType::F16) };
    let terms = |weights: &QuantizedLinear| {
        let layer = LinearLayer::of(&runtime, weights, BIASED.1, &options).unwrap();
        let x = vec![1.0 / 64.0; 64 * weights.k];
        let finite = layer.run(&x, 64).unwrap().iter().all(|value| value.is_finite());
        (layer.kernel(64).unwrap().0.image().kernel.schedule.dequant().to_owned(), finite)
    };
    let (term, finite) = terms(&weights);
    assert!(term.contains("(raise q)") && finite, "{term}");
    let scales = weights.params.iter_mut().find(|param| param.name == "s").unwrap();
    scales.values = ParamValues::F16(vec![half::f16::from_f32(16.0); scales.values.len()]);
    let (term, finite) = terms(&weights);
    assert!(!term.contains("(raise q)") && finite, "{term}");
}

#[test]
fn a_library_serves_where_the_device_has_it_and_is_refused_by_name_elsewhere() {
    let Some(nvrtc) = nvrtc() else { return };
    let weights = golden(BIASED.0).load_layer(BIASED.1).unwrap();
    let term = "(sum (* (* (- (real q) z) s) x))";
    let schedule: Schedule =
        format!("dequant slab=64 gemm=library dequant={term}").parse().unwrap();
    let served = |library| {
        let device = SimDevice::new(&Arch { library, ..arch() });
        let runtime = Runtime::open(Box::new(device), nvrtc.clone(), None);
        let choice = Choice::Schedule(&schedule);
        let options = LoadOptions { tokens: &[21], choice, ..LoadOptions::new(DType::F16) };
        let layer = LinearLayer::of(&runtime, &weights, BIASED.1, &options)?;
        layer.run(&activations(21 * weights.k), 21)
    };
    let got = served(true).unwrap();
    let expected = product(&weights, &activations(21 * weights.k));
    assert_eq!(got.len(), expected.len());
    for (got, (y, scale)) in got.iter().zip(expected) {
        assert!((f64::from(*got) - y).abs() <= scale * CLOSE, "{got} for {y}");
    }
    let refused = served(false).unwrap_err();
    let refused = format!("{refused} {:?}", std::error::Error::source(&refused));
    assert!(refused.contains("libcublasLt"), "{refused}");
}

/// A store that holds the default kernel of `problem` as its winner, its CUDA text edited.
fn store_with(problem: &Problem, nvrtc: &Nvrtc, edit: fn(String) -> String) -> Box<dyn Store> {
    let (arch, spec) = (arch(), qtune_formats::resolve(&problem.format).unwrap());
    let schedule = default_schedule(problem, &spec, &arch).unwrap();
    let kernel = qtune_codegen::generate(problem, &spec, &schedule, &arch).unwrap();
    let image = KernelImage::compile(nvrtc, kernel, &arch).unwrap();
    let code = Kernel { source: edit(image.kernel.source), ptx: image.ptx, cubin: image.cubin };
    let winner = Winner {
        schedule: schedule.to_string(),
        family: "mma".into(),
        evidence: Evidence::Modelled,
        time_us: 1.0,
        samples_us: Vec::new(),
        roof_share: 0.5,
        load_only_us: None,
        verified: true,
        error_over_bound: 0.5,
        extent: Extent::Normal,
        verification: Default::default(),
        counts: Default::default(),
        cost_terms: vec![],
        beat: vec![],
        derivation: vec![],
        provenance: Default::default(),
    };
    let store = MemoryStore::default();
    store.put(&winner_key(problem, &spec, &arch, nvrtc.fingerprint()), &winner, &code).unwrap();
    Box::new(store)
}

#[test]
fn a_stored_winner_serves_and_one_whose_text_differs_is_passed_over() {
    let Some(nvrtc) = nvrtc() else { return };
    let problem: Problem = "w4a16.awq-g128.f16-f16.n64.k256.m16".parse().unwrap();
    let spec = qtune_formats::resolve(&problem.format).unwrap();
    let origin = |edit| {
        let runtime = runtime(nvrtc.clone(), Some(store_with(&problem, &nvrtc, edit)));
        let found = runtime.find(&problem, &spec).unwrap();
        (found.origin, runtime.lookups().hits)
    };
    assert_eq!(origin(|text| text), (Origin::Cache, 1));
    assert_eq!(origin(|text| text + "// another generator"), (Origin::Default, 0));
}

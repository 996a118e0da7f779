//! Tests of the algebra as a whole, and the formats they use.

mod ablation;
mod bounds;
mod values;

use super::{Context, CostParams, Engine};
use crate::{Codebook, DType, Group, Param, ParamType, WeightSpec};

/// A 4-bit format with groups of 128.
fn spec(expr: &str, params: &[(&str, ParamType)]) -> WeightSpec {
    let param = |(name, dtype): &(&str, ParamType)| Param { name: name.to_string(), dtype: *dtype };
    WeightSpec {
        name: "test".into(),
        bits: 4,
        group: Group::Size(128),
        params: params.iter().map(param).collect(),
        expr: expr.into(),
        codebook: Default::default(),
        act_order: false,
        activations: Default::default(),
    }
}

/// Integer zero-points, as AWQ has them.
pub(super) fn awq() -> WeightSpec {
    spec("(* (- q z) s)", &[("s", ParamType::F16), ("z", ParamType::Code(4))])
}

/// Symmetric codes around 8.
fn symmetric() -> WeightSpec {
    spec("(* (- q 8) s)", &[("s", ParamType::F16)])
}

/// Zero-points that are floats, as HQQ has them.
fn float_zero() -> WeightSpec {
    spec("(* (- q z) s)", &[("s", ParamType::F16), ("z", ParamType::F16)])
}

/// An expression that no format has.
fn odd() -> WeightSpec {
    spec("(- (* (^ q 5) s) t)", &[("s", ParamType::F16), ("t", ParamType::F16)])
}

/// Values of a codebook that are in no relation to each other, as NF4 has them.
fn codebook() -> WeightSpec {
    let value = |code: u16| (f32::from(code) - 6.7).powi(3) / 571.787 + 0.013;
    looked_up(&std::array::from_fn::<f32, 16, _>(|code| value(code as u16)))
}

/// A sign and thirds of few bits, as bitsandbytes' FP4 has them.
fn thirds() -> WeightSpec {
    let third = |code: usize| [0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0][code % 8] / 12.0;
    let signed = |code: usize| if code > 8 { -third(code) } else { third(code) };
    looked_up(&std::array::from_fn::<f32, 16, _>(signed))
}

/// A scale and a codebook.
fn looked_up(values: &[f32]) -> WeightSpec {
    let spec = spec("(* (lookup q) s)", &[("s", ParamType::F32)]);
    WeightSpec { codebook: Codebook::new(values), ..spec }
}

/// Floats of 8 bits.
fn float8() -> WeightSpec {
    WeightSpec { bits: 8, ..spec("(* (e4m3 q) s)", &[("s", ParamType::F32)]) }
}

/// Scales that are floats of 8 bits in the file, as NVFP4 has them.
fn small_scales() -> WeightSpec {
    let spec = spec("(* (lookup q) (* 0.5 s))", &[("s", ParamType::E4M3)]);
    WeightSpec { codebook: codebook().codebook, ..spec }
}

/// Scales and minima of two levels, as GGUF's Q4_K has them.
pub(super) fn two_levels() -> WeightSpec {
    let params = [
        ("d", ParamType::Shared(8)),
        ("i", ParamType::Code(6)),
        ("e", ParamType::Shared(8)),
        ("j", ParamType::Code(6)),
    ];
    spec("(- (* q (* d i)) (* e j))", &params)
}

/// Scales that are quantized themselves, as double quantization has them.
pub(crate) fn nested() -> WeightSpec {
    let params =
        [("s", ParamType::Resolved), ("c", ParamType::NestedCode), ("n", ParamType::NestedScale)];
    let spec = spec("(* (lookup q) (nested s c n))", &params);
    WeightSpec { codebook: codebook().codebook, ..spec }
}

fn formats() -> Vec<WeightSpec> {
    vec![
        awq(),
        symmetric(),
        float_zero(),
        odd(),
        codebook(),
        thirds(),
        two_levels(),
        nested(),
        float8(),
        small_scales(),
    ]
}

/// Every engine with every activation type it takes.
const ENGINES: [(Engine, DType); 6] = [
    (Engine::Mma, DType::F16),
    (Engine::Mma, DType::Bf16),
    (Engine::Half2, DType::F16),
    (Engine::F32, DType::F16),
    (Engine::F32, DType::Bf16),
    (Engine::F32, DType::F32),
];

pub(super) fn context(spec: WeightSpec, engine: Engine, act: DType) -> Context {
    Context { act, engine, spec }
}

/// Every format on every engine.
fn contexts() -> Vec<Context> {
    let on_engines =
        |spec: WeightSpec| ENGINES.map(|(engine, act)| context(spec.clone(), engine, act));
    formats().into_iter().flat_map(on_engines).collect()
}

/// A kernel's usual shape for the engine.
fn cost_params(engine: Engine) -> CostParams {
    match engine {
        Engine::Mma => {
            CostParams { group: 128, segment: 128, tokens: 16, row_tiles: 2, row_lanes: 1 }
        }
        Engine::Half2 | Engine::F32 => {
            CostParams { group: 128, segment: 32, tokens: 1, row_tiles: 2, row_lanes: 1 }
        }
    }
}

//! Weights that tests of several modules use.

use qtune_ir::{Codebook, Group, Param, ParamType, WeightSpec};

/// Weights of 4 bits whose groups of 64 have nested scales.
pub(crate) fn nested() -> WeightSpec {
    let param = |(name, dtype): (&str, _)| Param { name: name.into(), dtype };
    let params =
        [("s", ParamType::Resolved), ("c", ParamType::NestedCode), ("n", ParamType::NestedScale)];
    WeightSpec {
        group: Group::Size(64),
        params: params.map(param).into(),
        expr: "(* (lookup q) (nested s c n))".into(),
        codebook: Codebook::new(&std::array::from_fn::<f32, 16, _>(|code| code as f32)),
        ..two_levels()
    }
}

/// Weights of 4 bits whose groups of 32 have integers for scale and offset, and share the floats of both
/// by eight.
pub(crate) fn two_levels() -> WeightSpec {
    let param = |name: &str, dtype| Param { name: name.into(), dtype };
    let (shared, code) = (ParamType::Shared(8), ParamType::Code(6));
    let params = [("d", shared), ("i", code), ("e", shared), ("j", code)];
    WeightSpec {
        name: "test".into(),
        bits: 4,
        group: Group::Size(32),
        params: params.map(|(name, dtype)| param(name, dtype)).into(),
        expr: "(- (* q (* d i)) (* e j))".into(),
        codebook: Default::default(),
        act_order: false,
        activations: Default::default(),
    }
}

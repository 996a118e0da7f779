//! Weights that tests of several modules use.

use qtune_ir::{Group, Param, ParamType, WeightSpec};

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

//! What names in a kernel's body stand for.

use std::collections::HashMap;

use crate::decode::scope::{File, Files, Register, Scope};
use crate::decode::symbols::{Layout, SymbolAddress};
use crate::program::{Slot, Special};

/// Everything names resolve to while a kernel is decoded.
pub(in crate::decode) struct Names<'a> {
    /// Open scopes, innermost last.
    pub scopes: Vec<Scope<'a>>,
    pub files: Files,
    pub layout: Layout,
    pub specials: HashMap<Special, Slot>,
}

/// What [`super::Operands`] needs of [`Names`], free of its lifetime.
pub(in crate::decode) trait NameLookup {
    fn register(&mut self, name: &str) -> Option<Option<Register>>;
    fn symbol(&self, name: &str) -> Option<SymbolAddress>;
    fn label(&self, name: &str) -> Option<u32>;
    fn table(&self, name: &str) -> Option<u32>;
    fn files(&mut self) -> &mut Files;
    fn special(&mut self, special: Special) -> Option<Slot>;
}

impl NameLookup for Names<'_> {
    fn register(&mut self, name: &str) -> Option<Option<Register>> {
        let files = &mut self.files;
        self.scopes.iter_mut().rev().find_map(|scope| scope.register(name, files))
    }

    fn symbol(&self, name: &str) -> Option<SymbolAddress> {
        let in_body = self.scopes.iter().rev().find_map(|scope| scope.variables.get(name));
        in_body.or_else(|| self.layout.symbols.get(name)).copied()
    }

    fn label(&self, name: &str) -> Option<u32> {
        self.scopes.iter().rev().find_map(|scope| scope.labels.get(name)).copied()
    }

    fn table(&self, name: &str) -> Option<u32> {
        self.scopes.iter().rev().find_map(|scope| scope.tables.get(name)).copied()
    }

    fn files(&mut self) -> &mut Files {
        &mut self.files
    }

    fn special(&mut self, special: Special) -> Option<Slot> {
        if let Some(&slot) = self.specials.get(&special) {
            return Some(slot);
        }
        let slot = self.files.allocate(File::R32)?;
        self.specials.insert(special, slot);
        Some(slot)
    }
}

/// The special register of this name.
pub(super) fn special_register(name: &str) -> Option<Special> {
    let (base, axis) = match name.rsplit_once('.') {
        Some((base, "x")) => (base, 0),
        Some((base, "y")) => (base, 1),
        Some((base, "z")) => (base, 2),
        _ => (name, 3),
    };
    if axis < 3 {
        return Some(match base {
            "%tid" => Special::Tid(axis),
            "%ntid" => Special::Ntid(axis),
            "%ctaid" => Special::Ctaid(axis),
            "%nctaid" => Special::Nctaid(axis),
            "%clusterid" => Special::ClusterId(axis),
            "%nclusterid" => Special::ClusterCount(axis),
            "%cluster_ctaid" => Special::ClusterCtaid(axis),
            "%cluster_nctaid" => Special::ClusterNctaid(axis),
            _ => return None,
        });
    }
    Some(match name {
        "%laneid" => Special::LaneId,
        "%warpid" => Special::WarpId,
        "%nwarpid" => Special::WarpCount,
        "%lanemask_eq" => Special::LanemaskEq,
        "%lanemask_le" => Special::LanemaskLe,
        "%lanemask_lt" => Special::LanemaskLt,
        "%lanemask_ge" => Special::LanemaskGe,
        "%lanemask_gt" => Special::LanemaskGt,
        "%smid" => Special::SmId,
        "%nsmid" => Special::SmCount,
        "%gridid" => Special::GridId,
        "%dynamic_smem_size" => Special::DynamicSharedBytes,
        "%total_smem_size" => Special::TotalSharedBytes,
        "%cluster_ctarank" => Special::ClusterCtaRank,
        "%cluster_nctarank" => Special::ClusterCtaCount,
        _ => return None,
    })
}

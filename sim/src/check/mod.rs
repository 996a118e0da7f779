//! What the checks report, and how reports of many blocks are merged.

mod finding;
mod sink;

pub use finding::{Finding, FindingKind};
pub(crate) use sink::FindingSink;

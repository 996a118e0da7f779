//! Integration tests: one binary, one module per subject.

mod compile;
mod format_names;
mod goldens;
mod intrinsics;
mod kernels;
mod load_only;
mod tidy;

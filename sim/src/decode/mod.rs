//! From the syntax tree to a [`Program`]: strict, table-driven decoding.
//!
//! [`table`] holds one row per instruction form with its full modifier list; a row's builder turns
//! operands into slots through [`operands::Operands`]. [`lower`] walks the statements, resolves
//! names by scope and patches branch targets. That is done twice: once with a slot for every register,
//! then with the places that [`sharing`] found.

mod build_async;
mod build_bulk;
mod build_control;
mod build_convert;
mod build_extended;
mod build_float;
mod build_float_forms;
mod build_int;
mod build_matrix;
mod build_memory;
mod build_move;
mod build_packed;
mod build_warp;
mod build_wgmma;
mod lower;
mod operands;
mod scope;
mod sharing;
mod symbols;
pub(crate) mod table;
mod targets;

pub(crate) use lower::lower;

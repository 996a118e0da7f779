//! Matrix instructions of one warp (PTX ISA 9.7.14).
//!
//! Lane decomposition of all fragments: g = lane / 4 is a row (or column), t = lane % 4 a pair of
//! neighbouring elements. Every product but that of f64 goes through [`product`], those of
//! `wgmma` included.

mod element;
mod mma;
mod product;
mod sums;
mod tiles;

pub(crate) use element::four_lanes;
pub(crate) use mma::{mma, mma_f64};
pub(crate) use product::{accumulate, unpack_left, Left, Operands};
pub(crate) use sums::Accumulators;
pub(crate) use tiles::{ldmatrix, movmatrix, stmatrix};

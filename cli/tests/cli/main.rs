//! The command line as its users see it: what it prints where, and how it ends.

mod bad_input;
mod cache;
mod checkpoints;
mod doctor;
mod emit;
mod explain;
#[cfg(unix)]
mod gpu_script;
mod killed;
mod replay;
mod report;
mod report_screen;
mod sim_run;
mod streams;
mod support;
mod tune;
mod verify;

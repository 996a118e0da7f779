//! What reaches into other blocks of a cluster (PTX ISA, "Distributed Shared Memory"), checked:
//!
//! - only a program with a cluster does so, and a copy goes to blocks that the cluster has;
//! - all blocks have met before the first time: their shared memory and barriers are there;
//! - consumers meet again behind the last time: shared memory goes with its block. A producer's copies
//!   need no more than that, as the blocks that they go to wait for them.

use super::{Expr, Program, Stmt};
use crate::intrinsics::{CLUSTER_BARRIER, MULTICAST, REMOTE_ARRIVE, REMOTE_LOAD};

/// Checks a program.
pub(super) fn check(program: &Program) -> Result<(), String> {
    let walk = Walk { blocks: program.cluster_blocks() };
    match walk.body(&program.body, Met::default())?.reaching {
        Some(name) => Err(format!("`{name}` behind the last barrier of the cluster")),
        None => Ok(()),
    }
}

/// What a thread knows of the other blocks.
#[derive(Clone, Copy, Default)]
struct Met {
    /// All have met once.
    started: bool,
    /// What has reached into them since they last met.
    reaching: Option<&'static str>,
}

struct Walk {
    /// Blocks of the cluster, 1 for none.
    blocks: u32,
}

impl Walk {
    fn body(&self, body: &[Stmt], met: Met) -> Result<Met, String> {
        body.iter().try_fold(met, |met, statement| self.statement(statement, met))
    }

    fn statement(&self, statement: &Stmt, met: Met) -> Result<Met, String> {
        match statement {
            Stmt::Let { value, .. } | Stmt::Var { value, .. } | Stmt::Assign { value, .. } => {
                self.value(value, met)
            }
            Stmt::Unpack { value, .. } => self.value(value, met),
            Stmt::Store { index, value, .. } => self.value(value, self.value(index, met)?),
            // What stands inside may not run at all: blocks may have met there or not.
            Stmt::For { body, .. } => Ok(joined(met, self.body(body, met)?)),
            Stmt::If { condition, then, .. } => {
                let met = self.value(condition, met)?;
                Ok(joined(met, self.body(then, met)?))
            }
            Stmt::Roles { producer, consumers, .. } => {
                self.body(producer, met)?;
                self.body(consumers, met)
            }
            Stmt::Do { intrinsic: CLUSTER_BARRIER, .. } => {
                Ok(Met { started: true, reaching: None })
            }
            Stmt::Do { intrinsic, args } => {
                if let (&MULTICAST, Some(Expr::Int(blocks))) = (intrinsic, args.last()) {
                    if !(2..=i64::from(self.blocks)).contains(blocks) {
                        return Err(format!("a copy to {blocks} of {} blocks", self.blocks));
                    }
                }
                let met = args.iter().try_fold(met, |met, arg| self.value(arg, met))?;
                self.call(intrinsic, met)
            }
            Stmt::Array { .. } | Stmt::Barrier | Stmt::Comment(_) | Stmt::Blank => Ok(met),
        }
    }

    fn value(&self, value: &Expr, met: Met) -> Result<Met, String> {
        let all = |parts: &[&Expr]| parts.iter().try_fold(met, |met, part| self.value(part, met));
        match value {
            Expr::Int(_) | Expr::Hex(_) | Expr::Float(_) | Expr::Var(_) => Ok(met),
            Expr::Element(_, parts) => parts.iter().try_fold(met, |met, p| self.value(p, met)),
            Expr::Binary(_, a, b) => all(&[a, b]),
            Expr::Select(condition, a, b) => all(&[condition, a, b]),
            Expr::Cast(_, part) | Expr::Load(_, part) | Expr::Address(_, part) => all(&[part]),
            Expr::Call(name, parts) => {
                let met = parts.iter().try_fold(met, |met, p| self.value(p, met))?;
                self.call(name, met)
            }
        }
    }

    fn call(&self, name: &str, met: Met) -> Result<Met, String> {
        let reach =
            [REMOTE_ARRIVE, REMOTE_LOAD, MULTICAST].into_iter().find(|reach| *reach == name);
        let Some(reach) = reach else { return Ok(met) };
        if self.blocks == 1 {
            return Err(format!("`{reach}` without a cluster"));
        }
        if !met.started {
            return Err(format!("`{reach}` before the blocks of the cluster have met"));
        }
        Ok(Met { reaching: Some(reach), ..met })
    }
}

/// What holds behind statements that ran or did not.
fn joined(before: Met, behind: Met) -> Met {
    let started = before.started && behind.started;
    Met { started, reaching: before.reaching.or(behind.reaching) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kir::{int, var, Body, Buffer, Space, Type};

    fn outcome(blocks: u32, build: impl FnOnce(&mut Body)) -> Result<(), String> {
        let barrier = Buffer {
            name: "empty".into(),
            space: Space::Shared { offset: 0 },
            element: Type::Barrier,
        };
        let mut body = Body::new();
        build(&mut body);
        check(&Program {
            header: vec![],
            name: "meets".into(),
            threads: 32,
            resident: None,
            cluster: [blocks, 1, 1],
            parameters: vec![],
            constants: vec![],
            shared: vec![barrier],
            shared_bytes: 8,
            shared_align: 16,
            body: body.finish(),
        })
    }

    fn meet(body: &mut Body) {
        body.call(CLUSTER_BARRIER, []);
    }

    fn arrive(body: &mut Body) {
        body.call(REMOTE_ARRIVE, [Expr::address("empty", int(0)), var("lane")]);
    }

    fn copy(body: &mut Body, blocks: i64) {
        let to = Expr::address("empty", int(0));
        body.call(MULTICAST, [to.clone(), var("x"), int(0), int(0), to, int(blocks)]);
    }

    #[test]
    fn blocks_meet_before_and_behind_what_reaches_into_them() {
        let right = |b: &mut Body| {
            meet(b);
            b.range("step", 0u32, var("steps"), 1u32, |b, _| arrive(b));
            meet(b);
        };
        assert_eq!(outcome(2, right), Ok(()));
        assert!(outcome(1, right).unwrap_err().contains("without a cluster"));
        let early = outcome(2, |b| {
            arrive(b);
            meet(b);
        });
        assert!(early.unwrap_err().contains("before the blocks"));
        let late = outcome(2, |b| {
            meet(b);
            arrive(b);
        });
        assert!(late.unwrap_err().contains("behind the last barrier"));
        let perhaps = outcome(2, |b| {
            b.when_uniform(int(0).less(var("steps")), meet);
            arrive(b);
            meet(b);
        });
        assert!(perhaps.unwrap_err().contains("before the blocks"));
    }

    #[test]
    fn a_copy_goes_to_blocks_that_are_there() {
        let outcome = |blocks| {
            outcome(4, |b| {
                meet(b);
                copy(b, blocks);
                meet(b);
            })
        };
        assert_eq!(outcome(4), Ok(()));
        for blocks in [0, 1, 5] {
            assert!(outcome(blocks).unwrap_err().contains("of 4 blocks"), "{blocks}");
        }
    }
}

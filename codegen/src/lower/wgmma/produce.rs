//! The producer of a `wgmma` block: one lane that keeps the ring full.

use super::super::overlap;
use super::super::stream::{self, Incoming};
use super::{Wgmma, PIECE};
use crate::intrinsics;
use crate::kir::{call, hex, int, select, var, Body, Expr, Type};
use qtune_ir::{Producer, Split, PRODUCER_REGISTERS};

impl Wgmma<'_> {
    /// One lane issues all copies.
    pub(super) fn produce(&self, body: &mut Body) {
        body.comment("producer: refill each stage once all consumer warps are done with it");
        if self.s.producer == Producer::Group {
            body.call("give_registers", [int(PRODUCER_REGISTERS)]);
        }
        // The compiler knows that one lane is elected: it need not ask how many are there to copy.
        let mut elected = body.bind("elected", Type::Bool, call("elect", []));
        if self.s.producer == Producer::Group {
            elected = var("warp").equals(self.s.consumer_threads() / 32).and(elected);
        }
        body.when(elected, |body| {
            let slot = body.variable("slot", Type::I32, int(0));
            // A new barrier passes for one whose phase of parity 1 is complete: all stages are free.
            let phase = body.variable("phase", Type::U32, hex(1));
            let from = self.fill_ahead(body, &phase);
            body.range("step", from, var("last"), 1u32, |body, step| {
                let wait = match self.s.multicast {
                    1 => "barrier_wait",
                    _ => "barrier_wait_cluster",
                };
                body.call(wait, [Expr::address("empty", slot.clone()), phase.clone()]);
                let stage = self.incoming(body, &step);
                self.fill_constants(body, &stage, &slot);
                self.fill_tokens(body, &stage, &slot);
                self.advance(body, &slot, &phase);
            });
        });
    }

    /// A dependent launch fills the ring with weights, waits for the kernel ahead, then adds the
    /// activations: the producer's first lap. Returns the step that the ring is filled to.
    fn fill_ahead(&self, body: &mut Body, phase: &Expr) -> Expr {
        if !self.cx.overlap.pdl {
            return var("first");
        }
        let stages = self.s.stages;
        let lap = |body: &mut Body, fill: &dyn Fn(&mut Body, &Incoming, &Expr)| {
            body.range("ahead", 0u32, stages, 1u32, |body, ahead| {
                let step = body.bind("step", Type::I32, var("first") + ahead.clone());
                body.when(step.clone().less(var("last")), |body| {
                    let stage = self.incoming(body, &step);
                    fill(body, &stage, &ahead);
                });
            });
        };
        lap(body, &|body, stage, slot| self.fill_constants(body, stage, slot));
        overlap::wait_ahead(self.cx, body);
        lap(body, &|body, stage, slot| self.fill_tokens(body, stage, slot));
        body.assign(phase.clone(), hex(0));
        var("first") + stages
    }

    /// Where the stage of a step of the block comes from.
    fn incoming(&self, body: &mut Body, step: &Expr) -> Incoming {
        let s = self.s;
        match s.split {
            Split::Stream(_) => stream::incoming(s.raster, s.block_m, body, step),
            Split::Blocks(_) | Split::Cluster(_) => Incoming {
                index: self.cx.stage_index(step),
                step: step.clone(),
                first_token: var("token_tile") * s.block_m,
            },
        }
    }

    /// Weights and group parameters of a stage; its barrier expects the activations too.
    fn fill_constants(&self, body: &mut Body, stage: &Incoming, slot: &Expr) {
        let s = self.s;
        let full = Expr::address("full", slot.clone());
        let bytes = s.stage_bytes(self.cx.spec, self.cx.problem.k);
        let once = self.once_param_bytes();
        let first = stage.step.clone().equals(var("first"));
        let expected = match once {
            0 => int(bytes),
            _ => select(first.clone(), int(bytes + once), int(bytes)),
        };
        body.call("barrier_expect", [full.clone(), expected]);
        if once > 0 {
            body.when(first, |body| {
                let from = Expr::address("params", var("row_tile") * (once / PIECE));
                let to = Expr::address("ring_params", int(0));
                body.call("bulk_copy", [to, from, int(once), full.clone()]);
            });
        }
        let stage = body.bind("stage", Type::I32, stage.index.clone());
        let mut parts = vec![("ring_weights", "weights", self.weight_bytes())];
        if self.param_bytes() > 0 {
            parts.push(("ring_params", "params", self.param_bytes()));
        }
        for (ring, global, bytes) in parts {
            let to = Expr::address(ring, slot.clone() * (bytes / PIECE));
            let from = Expr::address(global, stage.clone() * (bytes / PIECE));
            body.call("bulk_copy", [to, from, int(bytes), full.clone()]);
        }
    }

    /// Activations of a stage: all tokens, or a part of them that goes to every block of the cluster
    /// and counts on the barrier of each.
    fn fill_tokens(&self, body: &mut Body, stage: &Incoming, slot: &Expr) {
        let s = self.s;
        let full = Expr::address("full", slot.clone());
        body.unrolled("panel", self.panels(), |body, panel| {
            let to = slot.clone() * self.act_pieces() + panel.clone() * self.panel_pieces();
            let column = stage.step.clone() * s.block_k + panel * 64u32;
            let row = stage.first_token.clone();
            if s.multicast == 1 {
                let to = Expr::address("ring_x", to);
                return body.call("tensor_copy", [to, var("x"), column, row, full]);
            }
            let to = to + var("rank") * (self.panel_pieces() / s.multicast);
            let row = row + var("rank") * (s.block_m / s.multicast);
            let to = Expr::address("ring_x", to);
            let blocks = int(s.multicast);
            body.call(intrinsics::MULTICAST, [to, var("x"), column, row, full, blocks]);
        });
    }
}

use qtune_ir::dequant::*;
use qtune_ir::*;
use std::time::Instant;
fn main() {
    let arch = Arch::named("h200").unwrap();
    let spec = qtune_formats::resolve("awq-g128").unwrap();
    for (n,k,m) in [(7168,5120,1),(55296,5120,16),(5120,27648,64)] {
        let p: Problem = format!("w4a16.awq-g128.f16-f16.n{n}.k{k}.m{m}").parse().unwrap();
        let cache = std::cell::RefCell::new(std::collections::HashMap::new());
        let spent = std::cell::Cell::new(0.0);
        let f = |s: &Schedule| {
            let ctx = Context { act: p.act, engine: s.engine(), spec: spec.clone() };
            let params = s.cost_params(&p, &spec);
            let key = format!("{:?}{:?}", s.engine(), params);
            let mut c = cache.borrow_mut();
            c.entry(key).or_insert_with(|| {
                let t = Instant::now();
                let v = variants(&ctx, &params, &arch, &Options::default()).ok()?;
                spent.set(spent.get() + t.elapsed().as_secs_f64());
                let v = v.variants.into_iter().find(|v| s.engine() != Engine::Mma || Lowered::new(&v.term,&ctx).unwrap().sums.iter().all(|x| x.activation_scale == 1.0))?;
                Some(tile::DequantChoice { term: v.term.to_string(), instructions_per_weight: v.cost })
            }).clone()
        };
        let t = Instant::now();
        let r = tile::sketches(&p, &spec, &arch, &f, &tile::Options::default()).unwrap();
        println!("{p}: {:?} considered {} keys {} dequant {:.2}s nodes {}", t.elapsed(), r.considered, cache.borrow().len(), spent.get(), r.nodes);
        for s in &r.sketches { println!("  {:.2} {} {} {:.2}", s.estimate.time_us, s.schedule, s.estimate.bound, s.estimate.lane_instructions_per_weight); }
    }
}

use qtune_codegen::*;
use qtune_ir::*;
fn main() {
    let arch = Arch::named(&std::env::args().nth(1).unwrap_or("h200".into())).unwrap();
    let spec = WeightSpec {
        name: "awq-g128".into(),
        bits: 4,
        group: Group::Size(128),
        params: vec![
            Param { name: "s".into(), dtype: ParamType::F16 },
            Param { name: "z".into(), dtype: ParamType::Code(4) },
        ],
        expr: "(* (- q z) s)".into(),
    };
    let schedules = [
     ("f16",16,"mma tile=16x64x256 warps=1x4 stages=4 split=2 swizzle=xor raster=rows dequant=(- (* (* s (* rp 16777216)) (sum (* (subn (at q)) x))) (* (* s z) (sum x)))"),
     ("f16",1,"mma tile=8x64x256 warps=2x2 stages=4 split=1 swizzle=xor raster=rows dequant=(- (* (* s (* rp 16777216)) (sum (* (subn (at q)) x))) (* (* s z) (sum x)))"),
     ("bf16",64,"mma tile=64x64x128 warps=4x1 stages=3 split=1 swizzle=xor raster=tokens dequant=(* s (sum (* (- (magic q) (+ 128 z)) x)))"),
     ("f16",64,"mma tile=64x64x64 warps=4x1 stages=1 split=1 swizzle=none raster=rows dequant=(sum (* (* (- (real q) z) s) x))"),
     ("f16",1,"gemv tokens=1 rows=2 lanes=32 warps=4x2 unroll=2 split=1 x=shared acc=half2 cache=stream dequant=(* (* s 256) (sum (* (fma (magic (at q)) rp (- (neg (* 1024 rp)) z)) (* 0.00390625 x))))"),
     ("bf16",2,"gemv tokens=2 rows=1 lanes=8 warps=2x2 unroll=2 split=2 x=shared acc=f32 cache=normal dequant=(* s (sum (* (- (magic q) (+ 1024 z)) x)))"),
     ("f16",1,"gemv tokens=1 rows=1 lanes=1 warps=1x1 unroll=1 split=1 x=global acc=f32 cache=normal dequant=(sum (* (* (- (real q) z) s) x))"),
    ];
    let nvrtc = nvrtc::Nvrtc::open(&Default::default()).unwrap();
    for (i, (act, m, s)) in schedules.iter().enumerate() {
        let p: Problem = format!(
            "w4a16.awq-g128.{act}-{act}.n5120.k5120.m{m}{}",
            if i % 2 == 1 { "+bias" } else { "" }
        )
        .parse()
        .unwrap();
        let s: Schedule = s.parse().unwrap();
        match generate(&p, &spec, &s, &arch) {
            Ok(k) => {
                std::fs::write(format!("/tmp/k{i}.cu"), &k.source).unwrap();
                match nvrtc.compile(&k.source, "k.cu", &arch.target(), &[]) {
                    Ok(c) => {
                        println!(
                            "{i} ok {}",
                            c.log
                                .lines()
                                .filter(|l| l.contains("Used") || l.contains("spill"))
                                .collect::<Vec<_>>()
                                .join(" | ")
                        );
                        std::fs::write(format!("/tmp/k{i}.ptx"), &c.ptx).unwrap();
                        std::fs::write(format!("/tmp/k{i}.cubin"), &c.cubin).unwrap();
                    }
                    Err(e) => println!("{i} {e}"),
                }
            }
            Err(e) => println!("{i} {e}"),
        }
    }
}

//! The roofline: every trial by its arithmetic intensity and speed, under what the GPU could do
//! (Williams, Waterman and Patterson, *Roofline*, CACM 52(4), 2009).

use super::data::{family, Report, Tried};
use super::html::Text;
use qtune_ir::Arch;
use std::fmt::Write;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
/// Room for the axes: left, right, top, bottom.
const MARGIN: [f64; 4] = [66.0, 16.0, 34.0, 52.0];

/// A logarithmic axis.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// Whole decades around the values.
    fn around(values: &[f64], from: f64, to: f64) -> Axis {
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(0.0, f64::max);
        let low = 10f64.powf(least.log10().floor());
        let high = 10f64.powf(most.log10().ceil()).max(low * 10.0);
        Axis { low, high, from, to }
    }

    fn at(&self, value: f64) -> f64 {
        let share = (value / self.low).ln() / (self.high / self.low).ln();
        self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
    }

    fn decades(&self) -> impl Iterator<Item = f64> + '_ {
        let count = (self.high / self.low).log10().round() as i32;
        (0..=count).map(|decade| self.low * 10f64.powi(decade))
    }
}

/// What a GPU can do: bytes per second and operations per second.
fn roof(arch: &Arch) -> (f64, f64) {
    let operations = 2.0 * arch.peak_macs_per_clock() * f64::from(arch.sm_count);
    (arch.dram_gb_per_s * 1e9, operations * arch.clock_ghz * 1e9)
}

/// One trial in the figure.
struct Dot<'a> {
    intensity: f64,
    tera: f64,
    tried: &'a Tried,
    schedule: &'a str,
    us: f64,
    won: bool,
}

fn dots(report: &Report) -> Vec<Dot<'_>> {
    let mut dots = Vec::new();
    for tried in &report.problems {
        let Some((operations, bytes)) = tried.operations().zip(tried.bytes()) else { continue };
        for (schedule, trial) in &tried.trials {
            dots.push(Dot {
                intensity: operations / bytes,
                tera: operations / trial.us / 1e6,
                tried,
                schedule,
                us: trial.us,
                won: tried.winner.as_ref().is_some_and(|winner| winner.schedule == *schedule),
            });
        }
    }
    // Winners last, so that nothing lies on them.
    dots.sort_by_key(|dot| dot.won);
    dots
}

/// The figure, or a sentence where there is nothing to show.
pub fn figure(report: &Report) -> String {
    let dots = dots(report);
    if dots.is_empty() {
        return "<p>No trial has a time.</p>\n".into();
    }
    let [left, right, top, bottom] = MARGIN;
    let intensities: Vec<f64> = dots.iter().map(|dot| dot.intensity).collect();
    let x = Axis::around(&intensities, left, WIDTH - right);
    let mut speeds: Vec<f64> = dots.iter().map(|dot| dot.tera).collect();
    for arch in report.archs.values() {
        let (bandwidth, peak) = roof(arch);
        speeds.extend([x.low, x.high].map(|at| (bandwidth * at).min(peak) / 1e12));
    }
    let y = Axis::around(&speeds, HEIGHT - bottom, top);
    let mut svg = format!(
        "<div class=\"wide\"><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         aria-label=\"Roofline of all trials\">\n"
    );
    axes(&mut svg, &x, &y);
    report.archs.values().for_each(|arch| roof_line(&mut svg, &x, &y, arch));
    dots.iter().for_each(|dot| mark(&mut svg, &x, &y, dot));
    svg.push_str("</svg></div>\n");
    legend(&mut svg, &dots);
    svg
}

/// Writing to a string never fails.
fn put(svg: &mut String, line: std::fmt::Arguments<'_>) {
    let _ = svg.write_fmt(line);
}

fn axes(svg: &mut String, x: &Axis, y: &Axis) {
    let [left, right, top, bottom] = MARGIN;
    for value in x.decades() {
        let at = x.at(value);
        let (low, label) = (HEIGHT - bottom, HEIGHT - bottom + 20.0);
        // The last label ends at the frame, so that nothing hangs out.
        let anchor = if value < x.high { "middle" } else { "end" };
        put(
            svg,
            format_args!(
                "<line class=\"grid\" x1=\"{at:.1}\" y1=\"{top}\" x2=\"{at:.1}\" y2=\"{low}\"/>\
                 <text x=\"{at:.1}\" y=\"{label}\" text-anchor=\"{anchor}\">{value}</text>\n"
            ),
        );
    }
    for value in y.decades() {
        let at = y.at(value);
        let (end, label, base) = (WIDTH - right, left - 8.0, at + 4.0);
        put(
            svg,
            format_args!(
                "<line class=\"grid\" x1=\"{left}\" y1=\"{at:.1}\" x2=\"{end}\" y2=\"{at:.1}\"/>\
                 <text x=\"{label}\" y=\"{base:.1}\" text-anchor=\"end\">{value}</text>\n"
            ),
        );
    }
    let (middle, under) = ((left + WIDTH - right) / 2.0, HEIGHT - 8.0);
    put(
        svg,
        format_args!(
            "<text x=\"{middle}\" y=\"{under}\" text-anchor=\"middle\">operations per byte that must \
             move</text>\n<text x=\"0\" y=\"18\">TFLOP/s</text>\n"
        ),
    );
}

/// Bandwidth up to where the tensor cores' peak takes over.
fn roof_line(svg: &mut String, x: &Axis, y: &Axis, arch: &Arch) {
    let (bandwidth, peak) = roof(arch);
    let speed = |intensity: f64| (bandwidth * intensity).min(peak) / 1e12;
    let ridge = (peak / bandwidth).clamp(x.low, x.high);
    let points: Vec<String> =
        [x.low, ridge, x.high].map(|at| format!("{:.1},{:.1}", x.at(at), y.at(speed(at)))).into();
    let told = format!(
        "{}: {:.0} GB/s, {:.0} TFLOP/s of 16-bit operands",
        arch.name,
        bandwidth / 1e9,
        peak / 1e12
    );
    put(
        svg,
        format_args!(
            "<polyline class=\"roof\" points=\"{}\"><title>{}</title></polyline>\n",
            points.join(" "),
            Text(told)
        ),
    );
}

fn mark(svg: &mut String, x: &Axis, y: &Axis, dot: &Dot<'_>) {
    let (class, radius) = if dot.won { (" won", 6) } else { ("", 3) };
    put(
        svg,
        format_args!(
            "<circle class=\"{}{class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius}\"><title>{}: {:.2} us, \
             {}</title></circle>\n",
            class_of(dot.schedule),
            x.at(dot.intensity),
            y.at(dot.tera),
            Text(&dot.tried.key),
            dot.us,
            Text(dot.schedule)
        ),
    );
}

/// The families that have a colour of their own.
const FAMILIES: [&str; 4] = ["gemv", "mma", "wgmma", "dequant"];

fn class_of(schedule: &str) -> &'static str {
    let own = family(schedule);
    FAMILIES.into_iter().find(|known| *known == own).unwrap_or("other")
}

fn legend(svg: &mut String, dots: &[Dot<'_>]) {
    svg.push_str("<p class=\"legend\">");
    for class in FAMILIES.into_iter().chain(["other"]) {
        let count = dots.iter().filter(|dot| class_of(dot.schedule) == class).count();
        if count > 0 {
            put(
                svg,
                format_args!(
                    "<span><svg viewBox=\"0 0 10 10\"><circle class=\"{class}\" cx=\"5\" cy=\"5\" \
                     r=\"4\"/></svg>{class}: {count}</span> "
                ),
            );
        }
    }
    svg.push_str("<span>ringed: the winners; line: the roof</span></p>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_span_whole_decades_and_keep_values_inside() {
        let axis = Axis::around(&[0.3, 45.0], 100.0, 400.0);
        assert_eq!((axis.low, axis.high), (0.1, 100.0));
        assert_eq!(axis.decades().count(), 4);
        assert!((axis.at(0.1) - 100.0).abs() < 1e-9 && (axis.at(100.0) - 400.0).abs() < 1e-9);
        assert!((axis.at(1.0) - 200.0).abs() < 1e-9);
        let single = Axis::around(&[10.0], 0.0, 1.0);
        assert!(single.high > single.low);
    }
}

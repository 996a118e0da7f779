//! A schedule as named choices: what a search space has for dimensions.

use super::text::MULTICAST;
use super::{Overlap, Schedule};

/// Words of a schedule line that hold several numbers, and what each is called.
const PARTS: [(&str, &[&str]); 2] =
    [("tile", &["tile_m", "tile_n", "tile_k"]), ("warps", &["warps_n", "warps_k"])];

impl Schedule {
    /// Every choice of the schedule by name, in the order of its line: numbers that share a word
    /// each by itself, launch options also where they are off, last the dequantization term if
    /// there is one yet.
    pub fn dimensions(&self) -> Vec<(String, String)> {
        let line = self.to_string();
        let head = line.split(" dequant=").next().unwrap_or(&line);
        let mut found = Vec::new();
        for word in head.split(' ') {
            let Some((key, value)) = word.split_once('=') else { continue };
            match PARTS.iter().find(|(name, _)| *name == key) {
                Some((_, names)) => {
                    let numbers = names.iter().zip(value.split('x'));
                    found.extend(numbers.map(|(name, n)| (name.to_string(), n.to_string())));
                }
                None => found.push((key.into(), value.into())),
            }
        }
        let multicast = matches!(self, Schedule::Wgmma(_)).then_some((MULTICAST, "1"));
        for (word, without) in multicast.into_iter().chain(Overlap::WORDS.map(|w| (w, "off"))) {
            if found.iter().all(|(name, _)| name != word) {
                found.push((word.into(), without.into()));
            }
        }
        if !self.dequant().is_empty() {
            found.push(("dequant".into(), self.dequant().into()));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_has_a_name_of_its_own() {
        let line = "mma tile=16x64x256 warps=1x4 stages=4 split=2 pad=16 raster=rows pdl=on \
                    dequant=(sum (* q x))";
        let dimensions = line.parse::<Schedule>().unwrap().dimensions();
        let told: Vec<String> = dimensions.iter().map(|(name, v)| format!("{name}={v}")).collect();
        let wanted = "tile_m=16 tile_n=64 tile_k=256 warps_n=1 warps_k=4 stages=4 split=2 \
                      pad=16 raster=rows pdl=on prefetch=off dequant=(sum (* q x))";
        assert_eq!(told.join(" "), wanted);
    }
}

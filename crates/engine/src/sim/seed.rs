//! Where the simulator's choices come from: one seed, so that the same scenario chooses the same again.
//!
//! Not for secrets: whoever knows the seed knows the choices, which is the purpose.

use uuid::Uuid;

/// What everything is chosen from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Seed(pub u64);

impl Seed {
    /// An id for what `label` names: a UUID of version 8, RFC 9562's kind for ids made in a way of one's own.
    pub fn id(self, label: &str) -> Uuid {
        let mut random = self.random(label);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&random.draw().to_be_bytes());
        bytes[8..].copy_from_slice(&random.draw().to_be_bytes());
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }

    /// Numbers for what `label` names.
    pub fn random(self, label: &str) -> Random {
        // FNV-1a spreads the label, the steps of `Random` the rest.
        let start = crate::shortname::fnv1a(label.as_bytes());
        let mut first = Random(self.0);
        Random(first.draw() ^ start)
    }

    /// Fills `bytes` with what a disk that `label` names holds from `offset` on: incompressible, the same at every call.
    pub fn fill(self, label: &str, offset: u64, bytes: &mut [u8]) {
        const GRAIN: u64 = 4096;
        let start = self.random(label).draw();
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let within = (at % GRAIN) as usize;
            let length = rest.len().min(GRAIN as usize - within);
            let mut grain = [0; GRAIN as usize];
            let mut random = Random(start ^ (at / GRAIN));
            for word in grain.chunks_exact_mut(8) {
                word.copy_from_slice(&random.draw().to_le_bytes());
            }
            let (now, later) = rest.split_at_mut(length);
            now.copy_from_slice(&grain[within..within + length]);
            at += length as u64;
            rest = later;
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, fast, good for anything but secrets.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_and_label_give_the_same_id_and_others_another() {
        let id = Seed(7).id("machine/web");
        // A change of this value is a change of every recorded scenario: think twice.
        assert_eq!(id, Seed(7).id("machine/web"));
        assert_eq!((id.get_version_num(), id.get_variant()), (8, uuid::Variant::RFC4122));
        let mut all: Vec<Uuid> = (0..1000).map(|n| Seed(7).id(&format!("{n}"))).collect();
        all.extend((0..1000).map(|n| Seed(8).id(&format!("{n}"))));
        all.push(id);
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn content_is_the_same_however_it_is_cut() {
        let mut whole = vec![0; 10_000];
        Seed(1).fill("disk", 100, &mut whole);
        let mut parts = vec![0; 10_000];
        for (n, part) in parts.chunks_mut(777).enumerate() {
            Seed(1).fill("disk", 100 + 777 * n as u64, part);
        }
        assert_eq!(whole, parts);
        let ones: u32 = whole.iter().map(|b| b.count_ones()).sum();
        assert!((39_000..41_000).contains(&ones), "{ones} of 80000 bits");
    }
}

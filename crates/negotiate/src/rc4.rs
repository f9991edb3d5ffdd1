//! RC4, because NTLM's sealing is RC4 and nothing else. Twenty lines are no dependency; nothing new should be built on it.

/// The key stream.
#[derive(Clone)]
pub(crate) struct Rc4 {
    state: [u8; 256],
    i: u8,
    j: u8,
}

impl Rc4 {
    /// The stream of a key of 16 bytes.
    pub(crate) fn new(key: &[u8; 16]) -> Self {
        let mut state: [u8; 256] = std::array::from_fn(|n| n as u8);
        let mut j = 0u8;
        for n in 0..256 {
            j = j.wrapping_add(state[n]).wrapping_add(key[n % key.len()]);
            state.swap(n, usize::from(j));
        }
        Self { state, i: 0, j: 0 }
    }

    /// Encrypts or decrypts, going on where it was.
    pub(crate) fn apply(&mut self, data: &mut [u8]) {
        for byte in data {
            self.i = self.i.wrapping_add(1);
            let at_i = self.state[usize::from(self.i)];
            self.j = self.j.wrapping_add(at_i);
            let at_j = self.state[usize::from(self.j)];
            self.state.swap(usize::from(self.i), usize::from(self.j));
            *byte ^= self.state[usize::from(at_i.wrapping_add(at_j))];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Rc4;

    /// RFC 6229, 128-bit key 0102…10, offsets 0 and 16.
    #[test]
    fn the_stream_is_that_of_rfc_6229() {
        let key = std::array::from_fn(|n| n as u8 + 1);
        let mut rc4 = Rc4::new(&key);
        let (mut first, mut second) = ([0; 16], [0; 16]);
        rc4.apply(&mut first);
        rc4.apply(&mut second);
        assert_eq!(u128::from_be_bytes(first), 0x9ac7cc9a609d1ef7b2932899cde41b97);
        assert_eq!(u128::from_be_bytes(second), 0x5248c4959014126a6e8a84f11d1a9e1c);
    }
}

//! Sizes as people write them: `4096`, `32M`, `8GiB`.

/// Bytes from a number with an optional binary suffix (K, M, G, T; `KiB` and `KB` mean the same).
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let number: u64 =
        number.parse().map_err(|_| format!("`{text}` is not a size: expected a number such as 32M"))?;
    let shift = match suffix.trim().to_ascii_uppercase().trim_end_matches("IB").trim_end_matches('B') {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(format!("`{suffix}` is not a unit: expected K, M, G or T")),
    };
    number.checked_mul(1 << shift).ok_or_else(|| format!("`{text}` is too large"))
}

/// A block size in bytes, a power of two; whether the format allows it, the format says.
pub(crate) fn block_size(text: &str) -> Result<u32, String> {
    let size = u32::try_from(size(text)?).map_err(|_| format!("`{text}` is too large for a block"))?;
    if size.is_power_of_two() {
        Ok(size)
    } else {
        Err(format!("`{text}` is no power of two, such as 2M or 32M"))
    }
}

/// Milliseconds from a number with a unit (`ms`, `s`, `m`, `h`); a plain number counts seconds.
pub(crate) fn milliseconds(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 =
        number.parse().map_err(|_| format!("`{text}` is not a time: expected a number such as 90s"))?;
    let factor = match unit.trim() {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(format!("`{unit}` is not a unit: expected ms, s, m or h")),
    };
    number.checked_mul(factor).ok_or_else(|| format!("`{text}` is too long"))
}

/// MiB of memory: a plain number counts MiB, one with a unit is a size.
pub(crate) fn memory(text: &str) -> Result<u64, String> {
    if let Ok(mib) = text.trim().parse() {
        return Ok(mib);
    }
    let bytes = size(text)?;
    if bytes % (1 << 20) == 0 {
        Ok(bytes >> 20)
    } else {
        Err(format!("`{text}` is not a whole number of MiB"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in
            [("512", 512), ("1K", 1024), ("32M", 32 << 20), ("32MiB", 32 << 20), ("8 GB", 8 << 30)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for (text, ms) in [("5", 5000), ("5s", 5000), ("250ms", 250), ("2 m", 120_000), ("1h", 3_600_000)] {
            assert_eq!(milliseconds(text), Ok(ms), "{text}");
        }
        for text in ["", "s", "1.5s", "1d", "99999999999999999999s", "9999999999999999999h"] {
            assert!(milliseconds(text).is_err(), "{text}");
        }
        assert_eq!(memory("512"), Ok(512));
        assert_eq!(memory("2G"), Ok(2048));
        assert!(memory("1K").is_err());
        for text in ["", "x", "-1", "1.5G", "1X", "99999999T"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}

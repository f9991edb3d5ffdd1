//! The CIM datetime: 25 characters that say a point in time with its offset from UTC, or an interval; digits that are not
//! known are asterisks (DSP0004, 5.2.4).

use std::fmt;
use std::str::FromStr;

/// A point in time or an interval, as its 25 characters.
///
/// `yyyymmddhhmmss.mmmmmmsutc` or `ddddddddhhmmss.mmmmmm:000`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Datetime([u8; Self::LENGTH]);

impl Datetime {
    /// Characters of every datetime.
    pub const LENGTH: usize = 25;

    /// An interval. Days beyond 99,999,999 are cut to that.
    #[must_use]
    pub fn interval(length: std::time::Duration) -> Self {
        let (seconds, micros) = (length.as_secs(), length.subsec_micros());
        let days = (seconds / 86_400).min(99_999_999);
        let (hours, minutes, rest) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        Self::of(&format!("{days:08}{hours:02}{minutes:02}{rest:02}.{micros:06}:000"))
    }

    /// The point in time so many microseconds after the start of 1970 in UTC, written in UTC. Years beyond 9999 are cut
    /// to its end, those before 0 to its start.
    #[must_use]
    pub fn utc(micros: i64) -> Self {
        let (seconds, micros) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
        let (day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let (year, month, date) = civil(day);
        match year {
            0..=9999 => Self::of(&format!(
                "{year:04}{month:02}{date:02}{:02}{:02}{:02}.{micros:06}+000",
                second / 3600,
                second / 60 % 60,
                second % 60
            )),
            i64::MIN..0 => Self::of("00000101000000.000000+000"),
            _ => Self::of("99991231235959.999999+000"),
        }
    }

    fn of(text: &str) -> Self {
        text.parse().unwrap_or(Self(*b"00000101000000.000000+000"))
    }

    /// True for an interval.
    #[must_use]
    pub fn is_interval(&self) -> bool {
        self.0[21] == b':'
    }

    /// The 25 characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only ASCII gets in.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Microseconds: after the start of 1970 in UTC for a point in time, of length for an interval; none where
    /// characters are unknown.
    #[must_use]
    pub fn micros(&self) -> Option<i64> {
        let text = self.as_str();
        let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
        let within = (number(8..10)? * 60 + number(10..12)?) * 60 + number(12..14)?;
        let fraction = number(15..21)?;
        if self.is_interval() {
            return ((number(0..8)? * 86_400 + within).checked_mul(1_000_000))?.checked_add(fraction);
        }
        let offset = number(22..25)? * if self.0[21] == b'-' { -60 } else { 60 };
        let day = days(number(0..4)?, number(4..6)?, number(6..8)?);
        Some((day * 86_400 + within - offset) * 1_000_000 + fraction)
    }
}

/// Year, month and day of a day counted from 1970-01-01, by the proleptic Gregorian calendar.
fn civil(day: i64) -> (i64, i64, i64) {
    // Counted in eras of 400 years that begin in March, so that leap days come last.
    let shifted = day + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, of_year - (153 * from_march + 2) / 5 + 1)
}

/// The inverse of [`civil`].
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

impl FromStr for Datetime {
    type Err = DatetimeError;

    fn from_str(text: &str) -> Result<Self, DatetimeError> {
        let bytes: [u8; Self::LENGTH] = text.as_bytes().try_into().map_err(|_| DatetimeError)?;
        let shaped = bytes.iter().enumerate().all(|(at, byte)| match at {
            14 => *byte == b'.',
            21 => matches!(byte, b'+' | b'-' | b':'),
            22.. => byte.is_ascii_digit(),
            _ => byte.is_ascii_digit() || *byte == b'*',
        });
        if !shaped || bytes[21] == b':' && bytes[22..] != *b"000" {
            return Err(DatetimeError);
        }
        let read = Self(bytes);
        let field = |range: std::ops::Range<usize>, allowed: std::ops::RangeInclusive<u32>| {
            read.as_str()
                .get(range)
                .and_then(|digits| digits.parse().ok())
                .is_none_or(|n| allowed.contains(&n))
        };
        let fits = field(8..10, 0..=23) && field(10..12, 0..=59) && field(12..14, 0..=59);
        let dated = read.is_interval() || field(4..6, 1..=12) && field(6..8, 1..=31);
        if fits && dated { Ok(read) } else { Err(DatetimeError) }
    }
}

impl fmt::Display for Datetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Datetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is no CIM datetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a CIM datetime has the form yyyymmddhhmmss.mmmmmm+utc or ddddddddhhmmss.mmmmmm:000")]
pub struct DatetimeError;

#[cfg(test)]
mod tests {
    use super::Datetime;
    use std::time::Duration;

    #[test]
    fn points_in_time_come_back_from_their_text() {
        for (micros, text) in [
            (0, "19700101000000.000000+000"),
            (951_782_400_000_001, "20000229000000.000001+000"),
            (-1, "19691231235959.999999+000"),
            (1_795_564_800_000_000, "20261125000000.000000+000"),
            (253_402_300_799_999_999, "99991231235959.999999+000"),
        ] {
            assert_eq!(Datetime::utc(micros).as_str(), text);
            assert_eq!(text.parse::<Datetime>().unwrap().micros(), Some(micros));
        }
        assert_eq!(
            "20261125013000.000000+090".parse::<Datetime>().unwrap().micros(),
            Some(1_795_564_800_000_000)
        );
        assert_eq!(Datetime::utc(i64::MAX).as_str(), "99991231235959.999999+000");
    }

    #[test]
    fn intervals_count_days() {
        let interval = Datetime::interval(Duration::from_micros(90_061_000_002));
        assert_eq!(interval.as_str(), "00000001010101.000002:000");
        assert!(interval.is_interval());
        assert_eq!(interval.micros(), Some(90_061_000_002));
    }

    #[test]
    fn what_is_not_known_has_no_number() {
        let year: Datetime = "2026**********.******+000".parse().unwrap();
        assert_eq!(year.micros(), None);
        for wrong in
            ["", "20261325000000.000000+000", "20261125000000,000000+000", "00000001010101.000002:001"]
        {
            assert!(wrong.parse::<Datetime>().is_err(), "{wrong}");
        }
    }
}

//! Times: XML's spelling and CIM's, both ways (DSP0230, 8.2).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cim::Datetime;

/// A duration as `xs:duration` spells it, where it is one without years and months, which have no length.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let micros = micros(text.trim())?;
    Some(Duration::from_micros(micros))
}

fn micros(text: &str) -> Option<u64> {
    let rest = text.strip_prefix('P')?;
    let (days, time) = match rest.split_once('T') {
        Some((days, time)) if !time.is_empty() => (days, time),
        Some(_) => return None,
        None if rest.is_empty() => return None,
        None => (rest, ""),
    };
    let mut total: u64 = 0;
    let mut add = |digits: &str, each: u64| -> Option<()> {
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        let number: u64 = plain.then(|| digits.parse().ok())??;
        total = total.checked_add(number.checked_mul(each)?)?;
        Some(())
    };
    let mut days = days;
    for (unit, each) in [('Y', 0), ('M', 0), ('D', 86_400_000_000)] {
        if let Some((digits, rest)) = days.split_once(unit) {
            // `P0Y0M1D` is written by some; anything but zero has no length.
            if each == 0 && digits.bytes().any(|b| b != b'0') {
                return None;
            }
            add(digits, each)?;
            days = rest;
        }
    }
    let mut time = time;
    for (unit, each) in [('H', 3_600_000_000), ('M', 60_000_000)] {
        if let Some((digits, rest)) = time.split_once(unit) {
            add(digits, each)?;
            time = rest;
        }
    }
    if let Some(seconds) = time.strip_suffix('S') {
        let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
        add(whole, 1_000_000)?;
        add(&six(fraction)?, 1)?;
        time = "";
    }
    (days.is_empty() && time.is_empty()).then_some(total)
}

/// Six digits of a fraction; more are cut.
fn six(fraction: &str) -> Option<String> {
    let good = !fraction.is_empty() && fraction.bytes().all(|b| b.is_ascii_digit());
    good.then(|| fraction.bytes().map(char::from).chain("000000".chars()).take(6).collect())
}

/// A datetime as a request spells it: CIM's 25 characters, `xs:dateTime`, `xs:date`, or `xs:duration`.
pub(crate) fn datetime(text: &str) -> Option<Datetime> {
    let text = text.trim();
    if let Ok(datetime) = text.parse() {
        return Some(datetime);
    }
    if text.starts_with('P') {
        return Some(Datetime::interval(duration(text)?));
    }
    point(text)
}

/// How long it is from now until a point in time; none when it has passed, or is none.
pub(crate) fn until(text: &str) -> Option<Duration> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let at = datetime(text).filter(|at| !at.is_interval())?.micros()?;
    // CIM counts from another day than the clock does: both are counted from the same here.
    let epoch = Datetime::utc(0).micros()?;
    Duration::from_micros(u64::try_from(at.checked_sub(epoch)?).ok()?).checked_sub(now)
}

/// A duration in whole and broken seconds, as `xs:duration` spells it.
pub(crate) fn seconds(duration: Duration) -> String {
    let fraction = format!("{:06}", duration.subsec_micros());
    match fraction.trim_end_matches('0') {
        "" => format!("PT{}S", duration.as_secs()),
        digits => format!("PT{}.{digits}S", duration.as_secs()),
    }
}

fn point(text: &str) -> Option<Datetime> {
    if !text.is_ascii() {
        return None;
    }
    let date = text.get(..10)?;
    let [year, month, day] = date.split('-').collect::<Vec<_>>().try_into().ok()?;
    let rest = &text[10..];
    let (clock, zone) = match rest.find(['Z', '+', '-']) {
        Some(at) => rest.split_at(at),
        None => (rest, "Z"),
    };
    let (clock, fraction) = match clock.split_once('.') {
        Some((clock, fraction)) => (clock, six(fraction)?),
        None => (clock, "000000".to_owned()),
    };
    let clock = match clock {
        "" => "000000".to_owned(),
        clock => clock.strip_prefix('T')?.replace(':', ""),
    };
    let offset = match zone {
        "Z" => "+000".to_owned(),
        zone => {
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            let minutes = hours.parse::<u16>().ok()?.checked_mul(60)?.checked_add(minutes.parse().ok()?)?;
            format!("{}{minutes:03}", &zone[..1])
        }
    };
    // CIM's parser judges the digits.
    format!("{year}{month}{day}{clock}.{fraction}{offset}").parse().ok()
}

/// The element that holds a datetime in a reply, and its text.
pub(crate) fn spelled(datetime: &Datetime) -> (&'static str, String) {
    let text = datetime.as_str();
    let Some(micros) = datetime.micros() else {
        return ("cim:CIM_DateTime", text.to_owned());
    };
    let fraction = match text[15..21].trim_end_matches('0') {
        "" => String::new(),
        digits => format!(".{digits}"),
    };
    if datetime.is_interval() {
        let seconds = micros / 1_000_000;
        let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
        return ("cim:Interval", format!("P{days}DT{hours}H{minutes}M{}{fraction}S", seconds % 60));
    }
    let zone = match text[22..25].parse::<u16>() {
        Ok(0) | Err(_) => "Z".to_owned(),
        Ok(minutes) => format!("{}{:02}:{:02}", &text[21..22], minutes / 60, minutes % 60),
    };
    let spelled = format!(
        "{}-{}-{}T{}:{}:{}{fraction}{zone}",
        &text[..4],
        &text[4..6],
        &text[6..8],
        &text[8..10],
        &text[10..12],
        &text[12..14]
    );
    ("cim:Datetime", spelled)
}

#[cfg(test)]
mod tests {
    use super::{datetime, duration, spelled};
    use std::time::Duration;

    #[test]
    fn durations_are_read_as_clients_write_them() {
        for (text, millis) in
            [("PT20S", 20_000), ("PT60.000S", 60_000), ("PT1M30S", 90_000), ("P0Y0M1DT2H0.5S", 93_600_500)]
        {
            assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for wrong in [
            "",
            "P",
            "PT",
            "20",
            "P1M",
            "PT-1S",
            "PT1H2",
            "PT99999999999999999999S",
            "-PT1S",
            "PT+1S",
            "PT1S1",
        ] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn datetimes_keep_what_they_say_both_ways() {
        for (cim, element, xml) in [
            ("20260102030405.123456+000", "cim:Datetime", "2026-01-02T03:04:05.123456Z"),
            ("20260102030405.000000-060", "cim:Datetime", "2026-01-02T03:04:05-01:00"),
            ("00000001020304.500000:000", "cim:Interval", "P1DT2H3M4.5S"),
            ("2026**********.******+000", "cim:CIM_DateTime", "2026**********.******+000"),
        ] {
            let parsed = cim.parse().unwrap();
            assert_eq!(spelled(&parsed), (element, xml.to_owned()));
            assert_eq!(datetime(xml), Some(parsed), "{xml}");
            assert_eq!(datetime(cim), Some(parsed), "{cim}");
        }
        assert_eq!(datetime("2026-01-02").unwrap().as_str(), "20260102000000.000000+000");
        for wrong in
            ["", "2026", "2026-13-01T00:00:00Z", "2026-01-02T", "2026-01-02T03:04Z", "2026-01-02T03:04:05+1"]
        {
            assert_eq!(datetime(wrong), None, "{wrong}");
        }
    }
}

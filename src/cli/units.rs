//! Numbers for people: sizes in binary units, rates, times.

/// `1.5 GiB`; exact below 1 KiB.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would print as 1024.0: take the next unit instead
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `850 ms`, `12.3 s`, `4 min 05 s`, `2 h 03 min`.
pub fn seconds(s: f64) -> String {
    if !s.is_finite() || s < 0.0 {
        return "?".into();
    }
    let whole = s.round() as u64;
    if s < 0.9995 {
        format!("{:.0} ms", s * 1000.0)
    } else if s < 59.95 {
        format!("{s:.1} s")
    } else if whole < 3600 {
        format!("{} min {:02} s", whole / 60, whole % 60)
    } else {
        format!("{} h {:02} min", whole / 3600, whole % 3600 / 60)
    }
}

/// `1,234,567`
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// An amount in a job's unit: bytes as a size, anything else counted.
pub fn amount(n: u64, unit: &str) -> String {
    if unit == "bytes" {
        size(n)
    } else {
        format!("{} {unit}", count(n))
    }
}

/// `250.0 MiB/s`, or units a second.
pub fn rate(per_s: f64, unit: &str) -> String {
    if !per_s.is_finite() || per_s <= 0.0 {
        return "?".into();
    }
    if unit == "bytes" {
        format!("{}/s", size(per_s as u64))
    } else {
        format!("{per_s:.0} {unit}/s")
    }
}

/// An RFC 3339 time without its fraction: `2026-11-24 03:00:00Z`.
pub fn time(rfc3339: &str) -> String {
    let (date, rest) = rfc3339.split_once('T').unwrap_or((rfc3339, ""));
    let clock: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == ':').collect();
    if clock.is_empty() {
        date.into()
    } else {
        format!("{date} {clock}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1 << 20, "1.0 MiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (295 << 20, "295.0 MiB"),
            (3 << 29, "1.5 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        for (s, text) in [
            (0.0, "0 ms"),
            (0.85, "850 ms"),
            (0.9999, "1.0 s"),
            (12.34, "12.3 s"),
            (59.99, "1 min 00 s"),
            (245.0, "4 min 05 s"),
            (7380.0, "2 h 03 min"),
            (f64::NAN, "?"),
            (-1.0, "?"),
        ] {
            assert_eq!(seconds(s), text);
        }
        assert_eq!(
            [count(0), count(999), count(1000), count(1_234_567)],
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(amount(2048, "bytes"), "2.0 KiB");
        assert_eq!(amount(2048, "objects"), "2,048 objects");
        assert_eq!(rate(0.0, "bytes"), "?");
        assert_eq!(time("2026-11-24T03:00:01.123Z"), "2026-11-24 03:00:01Z");
        assert_eq!(time("x"), "x");
    }
}

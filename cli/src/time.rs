//! Times as people read and write them: local times.

use std::time::{Duration, SystemTime};

/// Now, in us since 1970.
pub(crate) fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_micros() as u64
}

/// Year, month, day, hour, minute and second of a time in s since 1970, in this machine's time
/// zone. localtime_r(3)
fn broken_down(seconds: i64) -> libc::tm {
    // SAFETY: zeros are a value of this struct.
    let mut tm = unsafe { std::mem::zeroed() };
    let seconds = seconds as _;
    // SAFETY: both are variables of this function, of the types that the call asks for.
    unsafe { libc::localtime_r(&raw const seconds, &raw mut tm) };
    tm
}

/// `2026-11-30 03:12:09.412`
pub(crate) fn local(unix_us: u64) -> String {
    let tm = broken_down((unix_us / 1_000_000) as i64);
    format!("{} {}.{:03}", date(&tm), clock(&tm), unix_us / 1000 % 1000)
}

/// `03:12:09`, with the date before it if asked for.
pub(crate) fn local_seconds(unix_us: u64, with_date: bool) -> String {
    let tm = broken_down((unix_us / 1_000_000) as i64);
    if with_date { format!("{} {}", date(&tm), clock(&tm)) } else { clock(&tm) }
}

fn date(tm: &libc::tm) -> String {
    format!("{:04}-{:02}-{:02}", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday)
}

fn clock(tm: &libc::tm) -> String {
    format!("{:02}:{:02}:{:02}", tm.tm_hour, tm.tm_min, tm.tm_sec)
}

/// A time as people write it, in us since 1970: `90s`, `15min`, `2h`, `3d` before `now`; `03:00` or
/// `03:00:30` today; `2026-11-29`, and `2026-11-29 22:00` with or without seconds, or a `T`
/// between.
pub(crate) fn parse(text: &str, now_us: u64) -> Option<u64> {
    let units = [("s", 1), ("min", 60), ("h", 3600), ("d", 86_400)];
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    if let Some((_, seconds)) =
        units.iter().find(|(unit, _)| text.strip_prefix(digits) == Some(unit))
    {
        let ago = digits.parse::<u32>().ok()?;
        let ago = Duration::from_secs(u64::from(ago) * seconds);
        return Some(now_us.saturating_sub(ago.as_micros() as u64));
    }
    let numbers = |text: &str, separator, least: usize| -> Option<Vec<i32>> {
        let parts: Option<Vec<_>> = text
            .split(separator)
            .map(|part| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok())?)
            .collect();
        parts.filter(|parts| (least..=3).contains(&parts.len()))
    };
    let mut tm = broken_down((now_us / 1_000_000) as i64);
    (tm.tm_hour, tm.tm_min, tm.tm_sec) = (0, 0, 0);
    let (day, time) = match text.split_once([' ', 'T']) {
        Some((day, time)) => (Some(day), Some(time)),
        None if text.contains(':') => (None, Some(text)),
        None => (Some(text), None),
    };
    if let Some(day) = day {
        let [year, month, day] = numbers(day, '-', 3)?[..] else { return None };
        if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day)
        {
            return None;
        }
        (tm.tm_year, tm.tm_mon, tm.tm_mday) = (year - 1900, month - 1, day);
    }
    if let Some(time) = time {
        let parts = numbers(time, ':', 2)?;
        let [hour, minute, second] = [0, 1, 2].map(|n| parts.get(n).copied().unwrap_or(0));
        if hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        (tm.tm_hour, tm.tm_min, tm.tm_sec) = (hour, minute, second);
    }
    // Lets the system decide whether it is summer time.
    tm.tm_isdst = -1;
    // SAFETY: a variable of this function, of the type that the call asks for.
    let seconds = unsafe { libc::mktime(&raw mut tm) };
    u64::try_from(seconds).ok().map(|seconds| seconds * 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_it_is_written() {
        let now = 1_796_006_807_412_000;
        let written = local(now);
        assert!(written.ends_with(".412") && written.len() == 23, "{written}");
        let seconds = now / 1_000_000 * 1_000_000;
        assert_eq!(parse(&written[..19], now), Some(seconds));
        assert_eq!(parse(&written[..19].replace(' ', "T"), now), Some(seconds));
        assert_eq!(parse(&written[11..19], now), Some(seconds));
        assert_eq!(parse("2h", now), Some(now - 7_200_000_000));
        assert_eq!(parse("15min", now), Some(now - 900_000_000));
        let midnight = parse(&written[..10], now).expect("a day");
        assert_eq!(local(midnight)[10..], *" 00:00:00.000");
        for wrong in
            ["", "h", "2 h", "yesterday", "25:00", "2026-13-01", "2026-11", "-3h", "3:00pm", "12:"]
        {
            assert_eq!(parse(wrong, now), None, "{wrong}");
        }
    }
}

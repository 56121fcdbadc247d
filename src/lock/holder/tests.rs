use super::*;

#[test]
fn a_range_names_its_holder_and_its_time() {
    for pid in [0, 1, 4_194_303] {
        for since_ms in [0, 1, mask(MS_BITS)] {
            let holder = Holder { pid, since_ms, purpose: Purpose::of(pid == 1) };
            let range = holder.range();
            assert!(range.len > 0 && range.start.checked_add(range.len).is_some());
            assert_eq!(Holder::from_range(range), Some(holder));
            assert_eq!(Holder::from_range(holder.range_from(WAITERS_BYTE)), Some(holder));
        }
    }
    let holder = Holder::since(sys::monotonic_ns(), Purpose::Write);
    assert_eq!(holder.pid, std::process::id());
    assert!(holder.held() < Duration::from_secs(60));
}

#[test]
fn a_range_that_no_holder_locks_names_nobody() {
    for (start, len) in [(0, 5), (WRITE_BYTE, 0), (WRITE_BYTE, -1), (WRITE_BYTE, i64::MAX)] {
        assert_eq!(Holder::from_range(Range { start, len }), None, "{start}+{len}");
    }
}

#[test]
fn a_holder_whose_clock_is_ahead_has_held_the_lock_for_no_time() {
    let holder = Holder::since(sys::monotonic_ns() + 5_000_000_000, Purpose::Write);
    assert_eq!(holder.held(), Duration::ZERO);
}

/// A range whose last byte cannot be `8192 + pid + (ms << 22) + (upkeep << 62)`, or that does not begin at 8191
/// or 8192, is no holder's.
#[test]
fn a_range_that_resembles_a_holders_names_nobody() {
    for (start, len) in [
        (WAITERS_BYTE, 1),
        (WAITERS_BYTE - 1, 3),
        (WRITE_BYTE + 1, 5),
        (0, WRITE_BYTE + 100),
        (WRITE_BYTE + 5, -4),
    ] {
        assert_eq!(Holder::from_range(Range { start, len }), None, "{start}+{len}");
    }
    let holder = Holder { pid: 3, since_ms: 5, purpose: Purpose::Upkeep };
    let last = 8192 + 3 + (5 << 22) + (1 << 62);
    assert_eq!(holder.range(), Range { start: 8192, len: last - 8192 + 1 });
    assert_eq!(holder.range_from(8191), Range { start: 8191, len: last - 8191 + 1 });
}

/// A holder took the lock five seconds ago. Its age is right although the clock's 40 bits have
/// wrapped since.
#[test]
fn a_holder_tells_for_how_long_it_has_held_the_lock() {
    let now = sys::monotonic_ns();
    let five_s = Duration::from_secs(5)..Duration::from_secs(60);
    let holder = Holder::since(now.wrapping_sub(5_000_000_000), Purpose::Write);
    assert!(five_s.contains(&holder.held()), "{:?}", holder.held());
    let since_ms = to_ms(now).wrapping_sub(5000) & mask(MS_BITS);
    let holder = Holder { pid: 1, since_ms, purpose: Purpose::Write };
    assert!(five_s.contains(&holder.held()), "{:?}", holder.held());
    assert_eq!(to_ms(1_234_567_890), 1234);
    assert_eq!(to_ms(u64::MAX), u64::MAX / 1_000_000 % (1 << 40));
}

/// The holder is gone, and another process has its id by now. Or the holder runs in another container, and its id there is that
/// of another process here, perhaps of this one. That process is not taken for the holder. A process that has the sidecar open
/// may be the holder.
#[cfg(target_os = "linux")]
#[test]
fn an_innocent_process_is_not_taken_for_the_holder() {
    let sidecar = tempfile::tempfile().expect("a file");
    let inode = sys::entry_of(&sidecar).expect("it is open").inode;
    let mut sleep = std::process::Command::new("sleep");
    let mut child = sleep.arg("60").stdin(sidecar).spawn().expect("sleep");
    let now = sys::monotonic_ns();
    let limit = Duration::from_secs(60);
    let is_seen = |pid, since, inode, ours| {
        let holder = Holder { pid, ..Holder::since(since, Purpose::Write) };
        holder.is_to_be_seen(inode, ours, limit)
    };
    assert!(is_seen(child.id(), now, inode, false));
    let another = sys::entry_of(&tempfile::tempfile().expect("a file")).expect("it is open").inode;
    assert!(!is_seen(child.id(), now, another, false), "it has not the sidecar open");
    let hour = 3_600_000_000_000;
    assert!(!is_seen(child.id(), now.wrapping_sub(hour), inode, false), "it is younger");
    child.kill().and_then(|()| child.wait()).expect("it is ours");
    assert!(!is_seen(child.id(), now, inode, false), "it is gone");
    assert!(is_seen(std::process::id(), now, inode, true));
    assert!(!is_seen(std::process::id(), now, inode, false), "that is this process");
}

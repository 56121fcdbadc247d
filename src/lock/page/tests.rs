use super::*;

fn put(page: &mut Page, (at, bytes): (u64, impl AsRef<[u8]>)) {
    let at = at as usize;
    let mut all = [&page.first[..], &page.more].concat();
    all.resize(LENGTH, 0);
    all[at..at + bytes.as_ref().len()].copy_from_slice(bytes.as_ref());
    *page = Page::of(&all);
}

#[test]
fn a_page_returns_what_was_written_to_it() {
    let mut page = Page::EMPTY;
    let waiter = Waiter {
        slot: FIRST_SLOTS - 1,
        word: 7,
        state: SlotState::Present,
        ticket: Ticket(1 << 31),
        since: Since::at(1 << 40),
        looks: Looks::by(511 << 23),
        pid: 99,
        purpose: Purpose::Upkeep,
        program: *b"worker\0\0\0\0\0\0",
    };
    put(&mut page, waiter.encode());
    assert_eq!(page.waiters().collect::<Vec<_>>(), [waiter]);
    assert_eq!(page.turn(), None);
    let turn = Turn { ticket: waiter.ticket, expires: 5 + TURN_NS, slot: waiter.slot };
    put(&mut page, turn.encode());
    assert_eq!(page.turn(), Some(turn));
    assert!(turn.binds(5) && !turn.binds(5 + TURN_NS), "it expires");
    assert!(!turn.binds(4), "no turn binds for longer");
    put(&mut page, (slot_offset(waiter.slot) as u64, [0; SLOT_SIZE]));
    assert_eq!(page.turn(), None, "a turn of a waiter that has left is nobody's");
}

/// Only a waiter that is there to take it has the turn. A waiter that tried in vain may have given
/// up, and one that missed its turn may be stopped.
#[test]
fn only_a_waiter_that_is_there_has_the_turn() {
    let mut page = Page::EMPTY;
    for state in [SlotState::Present, SlotState::Woken, SlotState::Away, SlotState::Refused] {
        let waiter = waiter(5, Ticket(7), state);
        put(&mut page, waiter.encode());
        let turn = Turn { ticket: waiter.ticket, expires: 5, slot: waiter.slot };
        put(&mut page, turn.encode());
        let is_there = [SlotState::Present, SlotState::Woken].contains(&state);
        assert_eq!(page.turn().is_some(), is_there, "{state:?}");
    }
}

fn waiter(slot: usize, ticket: Ticket, state: SlotState) -> Waiter {
    let (purpose, program) = (Purpose::Write, [0; 12]);
    let (since, looks) = (Since::at(0), Looks::by(0));
    Waiter { slot, word: 0, state, ticket, since, looks, pid: 1, purpose, program }
}

/// A waiter is stopped. The page has the time by which it was to look modulo 4.3 s. Nevertheless it
/// stays overdue until 3.6 s later: only then does that time seem to be ahead by less than 0.6 s.
#[test]
fn a_waiter_that_is_stopped_for_long_stays_overdue() {
    const MS: u64 = 1_000_000;
    for at in (0..5000).step_by(97).map(|ms| ms * MS) {
        let looks = Looks::by(at);
        for in_time in [0, 1, 100, 590] {
            assert!(
                !looks.is_overdue(at.saturating_sub(in_time * MS)),
                "{at}, {in_time} ms before"
            );
        }
        assert!(!looks.is_overdue(at + 10 * MS), "it waits for a processor");
        for late in 30..3600 {
            assert!(looks.is_overdue(at + late * MS), "{at}, {late} ms after");
            let is_missed = looks.is_missed(at + late * MS);
            assert!(is_missed || late < 300, "{at}, {late} ms after");
            assert!(!is_missed || late > 250, "{at}, {late} ms after");
        }
    }
}

/// The counter wraps. A newcomer is behind all waiters, even if the counter is behind them, because another
/// process has written an old value. A ticket far from the counter counts as forged.
#[test]
fn a_newcomer_is_behind_all_waiters() {
    for counter in [0, 1, 77, u32::MAX - 1, u32::MAX] {
        let mut page = Page::EMPTY;
        put(&mut page, encode_counter(Ticket(counter)));
        let next = page.next_ticket();
        assert_eq!((page.counter(), next), (Ticket(counter), Ticket(counter.wrapping_add(1))));
        assert!(page.counter().is_before(next) && !next.is_before(page.counter()));
        assert!(page.first_ticket().is_before(next) && !next.is_before(next));

        put(&mut page, waiter(3, Ticket(counter.wrapping_add(40)), SlotState::Present).encode());
        put(&mut page, waiter(4, Ticket(counter.wrapping_sub(40)), SlotState::Present).encode());
        assert_eq!(page.next_ticket(), Ticket(counter.wrapping_add(41)));
        put(
            &mut page,
            waiter(3, Ticket(counter.wrapping_add(1 << 20)), SlotState::Present).encode(),
        );
        assert_eq!(page.next_ticket(), next, "that is no ticket of this queue");
    }
}

/// How long a waiter has waited, to a fraction of a ms. A time in the future means that the clock was set,
/// unless it is only a moment ahead: then the reader read the clock first.
#[test]
fn a_time_in_the_future_is_not_in_the_past() {
    let (now, ms) = (1 << 50, |ns| Duration::from_nanos(ns).as_millis());
    for ago in [0, 3_000_000, 3_600_000_000_000] {
        let waited = Since::at(now - ago).ago(now).expect("it was");
        assert!(
            ms(ago - ago.min(1_000_000)) <= waited.as_millis() && waited.as_millis() <= ms(ago)
        );
    }
    assert_eq!(Since::at(now + 500_000).ago(now), Some(Duration::ZERO));
    for ahead in [2_000_000, 10_000_000_000, 100_000_000_000_000] {
        assert_eq!(Since::at(now + ahead).ago(now), None, "{ahead}");
    }
}

#[test]
fn a_page_of_random_bytes_does_no_harm() {
    let mut seed = 1_u64;
    for _ in 0..2000 {
        let mut page = Page::EMPTY;
        for byte in &mut page.first {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (seed >> 33) as u8 & 3;
        }
        assert!(page.waiters().count() <= SLOTS);
        assert!(page.turn().is_none_or(|turn| turn.slot < SLOTS));
    }
}

/// Clients of other versions, and `kanban-vfs status`, read the same page. Each field stays where it is as long
/// as the layout keeps its version.
#[test]
fn the_layout_agrees_with_the_table() {
    let slot = 3;
    let mut bytes = [0; SLOT_SIZE];
    bytes[..20]
        .copy_from_slice(&[1, 2, 3, 4, 2, 0, 0, 0, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0x4f, 0xc1]);
    bytes[20..].copy_from_slice(b"a worker\0\0\0\0");
    let waiter = Waiter {
        slot,
        word: 0x0403_0201,
        state: SlotState::Woken,
        ticket: Ticket(0x0807_0605),
        since: Since(0x0c0b_0a09),
        looks: Looks(0x105),
        pid: 0x000f_0e0d,
        purpose: Purpose::Upkeep,
        program: *b"a worker\0\0\0\0",
    };
    let mut page = Page::EMPTY;
    page.first[160..192].copy_from_slice(&bytes);
    assert_eq!(page.waiters().collect::<Vec<_>>(), [waiter]);
    assert_eq!((page.word(slot), page.word(slot + 1)), (waiter.word, 0));
    assert_eq!(waiter.encode(), (160, bytes));
    let states = [
        (SlotState::Present, 1),
        (SlotState::Woken, 2),
        (SlotState::Away, 3),
        (SlotState::Refused, 4),
    ];
    for (state, number) in states {
        page.first[164] = number;
        assert_eq!(page.waiter(slot).map(|waiter| waiter.state), Some(state));
        assert_eq!(encode_state(0x0403_0201, state), [1, 2, 3, 4, number, 0, 0, 0]);
        let other = Waiter { state, purpose: Purpose::Write, ..waiter }.encode().1;
        assert_eq!((other[4], other[19]), (number, 0x41));
        page.first[179] = 0x41;
        assert_eq!(page.waiter(slot).map(|waiter| waiter.purpose), Some(Purpose::Write));
        page.first[179] = 0xc1;
    }
    for nothing in [0, 5] {
        page.first[164] = nothing;
        assert_eq!(page.waiter(slot), None);
    }
    page.first[164] = 1;

    let turn = Turn { ticket: waiter.ticket, expires: 0x1817_1615_1413_1211, slot };
    let mut turns = [0; 16];
    turns[..8].copy_from_slice(&[0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]);
    turns[8..12].copy_from_slice(&bytes[8..12]);
    turns[12] = 3;
    assert_eq!(turn.encode(), (16, turns));
    page.first[16..32].copy_from_slice(&turns);
    assert_eq!(page.turn(), Some(turn));
    page.first[28..30].copy_from_slice(&(SLOTS as u16).to_le_bytes());
    assert_eq!(page.turn(), None, "of no slot");
    page.first[28..30].copy_from_slice(&[3, 0]);
    page.first[25] = 0;
    assert_eq!(page.turn(), None, "of another waiter");
    assert_eq!(encode_counter(Ticket(0x0403_0201)), (32, [1, 2, 3, 4]));
    page.first[32..36].copy_from_slice(&[1, 2, 3, 4]);
    assert_eq!(page.counter(), Ticket(0x0403_0201));
    assert_eq!((GROUP, LAST_BYTE, KINDS, PAGE), (36, 56, 3840, 4096));
    assert_eq!((FIRST_SLOTS, SLOTS, LENGTH), (116, 1140, 36864));
    assert_eq!((slot_offset(115) + 32, slot_offset(116), EXTENT), (3776, 4096, 3776));
}

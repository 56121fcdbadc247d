use super::*;

fn put(page: &mut Page, (at, bytes): (u64, impl AsRef<[u8]>)) {
    let at = at as usize;
    page.0[at..at + bytes.as_ref().len()].copy_from_slice(bytes.as_ref());
}

#[test]
fn a_page_returns_what_was_written_to_it() {
    let mut page = Page([0; PAGE]);
    let waiter = Waiter {
        slot: SLOTS - 1,
        word: 7,
        state: State::Present,
        ticket: 1 << 40,
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

#[test]
fn a_page_of_random_bytes_does_no_harm() {
    let mut seed = 1_u64;
    for _ in 0..2000 {
        let mut page = Page([0; PAGE]);
        for byte in &mut page.0 {
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
        .copy_from_slice(&[1, 2, 3, 4, 2, 0, 0, 0, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0x80]);
    bytes[20..].copy_from_slice(b"a worker\0\0\0\0");
    let waiter = Waiter {
        slot,
        word: 0x0403_0201,
        state: State::Woken,
        ticket: 0x0c0b_0a09_0807_0605,
        pid: 0x000f_0e0d,
        purpose: Purpose::Upkeep,
        program: *b"a worker\0\0\0\0",
    };
    let mut page = Page([0; PAGE]);
    page.0[160..192].copy_from_slice(&bytes);
    assert_eq!(page.waiters().collect::<Vec<_>>(), [waiter]);
    assert_eq!((page.word(slot), page.word(slot + 1)), (waiter.word, 0));
    assert_eq!(waiter.encode(), (160, bytes));
    for (state, number) in [(State::Present, 1), (State::Woken, 2), (State::Away, 3)] {
        page.0[164] = number;
        assert_eq!(page.waiter(slot).map(|waiter| waiter.state), Some(state));
        assert_eq!(encode_state(0x0403_0201, state), [1, 2, 3, 4, number, 0, 0, 0]);
        let other = Waiter { state, purpose: Purpose::Write, ..waiter }.encode().1;
        assert_eq!((other[4], other[19]), (number, 0));
        page.0[179] = 0;
        assert_eq!(page.waiter(slot).map(|waiter| waiter.purpose), Some(Purpose::Write));
        page.0[179] = 0x80;
    }
    for nothing in [0, 4] {
        page.0[164] = nothing;
        assert_eq!(page.waiter(slot), None);
    }
    page.0[164] = 1;
    page.0[168..176].fill(0);
    assert_eq!(page.waiter(slot), None, "a ticket of 0 is nobody's");

    let turn = Turn { ticket: waiter.ticket, expires: 0x1817_1615_1413_1211, slot };
    let mut turns = [0; 20];
    turns[..8].copy_from_slice(&bytes[8..16]);
    turns[8..16].copy_from_slice(&[0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]);
    turns[16] = 3;
    assert_eq!(turn.encode(), (16, turns));
    page.0[168..176].copy_from_slice(&bytes[8..16]);
    page.0[16..36].copy_from_slice(&turns);
    assert_eq!(page.turn(), Some(turn));
    page.0[32] = SLOTS as u8;
    assert_eq!(page.turn(), None, "of no slot");
    page.0[32] = 3;
    page.0[17] = 0;
    assert_eq!(page.turn(), None, "of another waiter");
    assert_eq!((GROUP, LAST_BYTE, slot_offset(SLOTS)), (36, 56, PAGE));
}

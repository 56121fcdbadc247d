use super::super::holder::Holder;
use super::super::page::{TURN_NS, Ticket, encode_counter, slot_offset};
use super::*;
use proptest::prelude::*;

const ALL: usize = PROCESSES * CLIENTS;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..ALL).prop_map(Step::Go),
        8 => (0..ALL, 1..3000_u16).prop_map(|(client, us)| Step::Wait(client, us)),
        1 => (0..ALL).prop_map(Step::Leave),
        2 => (0..6000_u16).prop_map(Step::Pass),
    ]
}

fn step_or_kill() -> impl Strategy<Value = Step> {
    prop_oneof![15 => step(), 1 => (0..PROCESSES).prop_map(Step::Kill)]
}

fn step_or_harm() -> impl Strategy<Value = Step> {
    prop_oneof![
        15 => step_or_kill(),
        4 => (16..400_u16, prop_oneof![0..4_u8, any::<u8>()]).prop_map(|(at, b)| Step::Write(at, b)),
        1 => Just(Step::Cut),
    ]
}

/// The clocks of processes in other time namespaces, and of those with a preloaded library that
/// stops the clock.
fn clocks() -> impl Strategy<Value = [Clock; PROCESSES]> {
    const SECOND: i64 = 1_000_000_000;
    let clock = prop_oneof![
        2 => prop_oneof![Just(0), Just(10 * SECOND), Just(-10 * SECOND), -SECOND..SECOND]
            .prop_map(Clock::Ahead),
        1 => prop_oneof![Just(0), Just(1_u64 << 40), Just(1_u64 << 60)].prop_map(Clock::StandsStill),
    ];
    prop::array::uniform3(clock)
}

/// Each client tries for the lock, one a moment after another.
fn each_tries<const N: usize>(simulation: &mut Simulation, clients: [usize; N]) {
    for client in clients {
        simulation.run(Step::Go(client));
        simulation.run(Step::Pass(10));
    }
}

/// The holder releases the lock, and `next` has it, since it is its turn.
fn hands_over(simulation: &mut Simulation, holder: usize, next: usize) {
    simulation.run(Step::Go(holder));
    simulation.run(Step::Wait(next, 1));
    assert!(simulation.clients[next].held.is_some(), "it is its turn");
}

fn step_or_set() -> impl Strategy<Value = Step> {
    let ms = prop_oneof![-20..20_i32, Just(10_000), Just(-10_000), Just(i32::MAX), Just(i32::MIN)];
    prop_oneof![15 => step_or_kill(), 1 => ms.prop_map(Step::Set)]
}

fn run(steps: Vec<Step>) {
    run_with(Simulation::new(), steps);
}

fn run_with(mut simulation: Simulation, steps: Vec<Step>) {
    for step in steps {
        simulation.run(step);
    }
    simulation.end();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    /// Clients of several processes come, wait, hold and give up in any order. None gets the lock in another's
    /// turn, none is refused a lock that is free, and in the end all have had it.
    #[test]
    fn waiters_are_served_in_order_and_none_is_lost(
        steps in prop::collection::vec(step(), 0..120)
    ) {
        run(steps);
    }

    /// Processes are killed at any moment: while they wait, hold the lock, or have just been given the turn.
    /// Nobody is refused the lock because of them, and in the end all others have had it.
    #[test]
    fn a_killed_process_delays_nobody(steps in prop::collection::vec(step_or_kill(), 0..120)) {
        run(steps);
    }

    /// A stranger writes to the page, or cuts it short, all the while. There is one holder at a time, and once the
    /// stranger stops, all get the lock.
    #[test]
    fn a_hostile_page_lets_nobody_in_and_keeps_nobody_out(
        steps in prop::collection::vec(step_or_harm(), 0..120)
    ) {
        run(steps);
    }

    /// Each process has a clock of its own: some are 10 s ahead or behind, some stand still. The
    /// order is still that in which clients came; none is refused a lock that is free, and each
    /// wait ends.
    #[test]
    fn no_clock_decides_who_is_first(
        clocks in clocks(), steps in prop::collection::vec(step_or_kill(), 0..120)
    ) {
        run_with(Simulation::with_clocks(clocks), steps);
    }

    /// Somebody sets the clock that turns expire by, again and again. There is one holder at a time, and once nobody sets
    /// the clock any more, all get the lock.
    #[test]
    fn a_clock_that_is_set_keeps_nobody_out(
        clocks in clocks(), steps in prop::collection::vec(step_or_set(), 0..120)
    ) {
        run_with(Simulation::with_clocks(clocks), steps);
    }

    /// Clients in tight loops come back at once, and one came before them. They overtake it for no longer than newcomers
    /// may, plus a slice of the holder, plus the time until a holder that saw nobody wait looks again.
    #[test]
    fn overtaking_is_bounded(
        holds in prop::collection::vec(10..800_u16, 1..20),
        naps in prop::collection::vec(20..200_u16, 1..20),
    ) {
        // 2 ms of patience, a slice of at most 4 ms, 2 ms until a holder that saw nobody wait looks, and a round of naps and
        // holds.
        const BOUND: u64 = 2_000_000 + 4_000_000 + 2_000_000 + ALL as u64 * 1_000_000;
        let mut simulation = Simulation::new();
        let mut longest = 0;
        for turn in 0..600 {
            let client = turn % ALL;
            if simulation.clients[client].held.is_some() {
                simulation.run(Step::Pass(holds[turn % holds.len()]));
                simulation.run(Step::Go(client));
                // A tight loop: the client tries again at once.
                simulation.run(Step::Go(client));
            } else if simulation.clients[client].place.is_some() {
                simulation.run(Step::Wait(client, naps[turn % naps.len()]));
            } else {
                simulation.run(Step::Go(client));
            }
            let now = simulation.now();
            let waiting = simulation.clients.iter().filter(|client| client.place.is_some());
            let oldest = waiting.map(|client| client.joined.1).min();
            longest = longest.max(oldest.map_or(0, |since| now - since));
        }
        // Each client waits for those before it, too.
        prop_assert!(longest <= ALL as u64 * BOUND, "{} ms", longest / 1_000_000);
        simulation.end();
    }
}

/// Nobody waited when a holder took the lock, so that a waiter that came meanwhile could not lock the waiters' byte.
/// The holder gives it the turn, and does not take the lock again before it, though byte 8191 is free. Nor does
/// another client of the holder's process.
#[test]
fn a_holder_that_gives_the_turn_leaves_the_lock_to_it() {
    let mut simulation = Simulation::new();
    let [holder, sibling, waiter] = [0, 1, CLIENTS];
    simulation.run(Step::Go(holder));
    simulation.run(Step::Go(waiter));
    simulation.run(Step::Wait(waiter, 1));
    simulation.run(Step::Pass(3000));
    simulation.run(Step::Go(holder));
    for newcomer in [holder, sibling] {
        simulation.run(Step::Go(newcomer));
        assert!(simulation.clients[newcomer].held.is_none(), "it is another's turn");
    }
    simulation.run(Step::Wait(waiter, 1));
    assert!(simulation.clients[waiter].held.is_some(), "it is its turn");
    simulation.end();
}

/// A client got the lock from its place in the queue and gives the next client the turn, since it is not known to be in a
/// tight loop. Then it wants the lock again at once. Its slice is over nevertheless.
#[test]
fn a_holder_that_gives_the_turn_has_no_slice_left() {
    let mut simulation = Simulation::new();
    let [holder, first, second] = [0, CLIENTS, 2 * CLIENTS];
    each_tries(&mut simulation, [holder, first, second]);
    simulation.run(Step::Pass(3000));
    hands_over(&mut simulation, holder, first);
    simulation.run(Step::Go(first));
    simulation.run(Step::Go(first));
    assert!(simulation.clients[first].held.is_none(), "it is the second's turn");
    simulation.run(Step::Wait(second, 1));
    assert!(simulation.clients[second].held.is_some(), "it is its turn");
    simulation.end();
}

/// A client in a tight loop gives the turn, and the waiter displaces its thread, for longer than a tight loop needs to come
/// back. It has a slice in its next turn nevertheless. A client gives the next turn after one transaction if its thread slept
/// or computed meanwhile, or if the system does not say.
#[test]
fn a_displaced_thread_is_in_a_tight_loop() {
    let usage = |ran, sleeps| Some(ThreadUsage { ran, sleeps });
    let cases = [
        (usage(7_000_000, 3), usage(7_050_000, 3), true),
        (usage(7_000_000, 3), usage(7_050_000, 4), false),
        (usage(7_000_000, 3), usage(9_000_000, 3), false),
        (usage(7_000_000, 3), usage(6_000_000, 3), false),
        (usage(7_000_000, 3), None, false),
        (None, usage(7_000_000, 3), false),
    ];
    for (then, now, has_slice) in cases {
        let mut simulation = Simulation::new();
        let [client, first, second] = [0, CLIENTS, 2 * CLIENTS];
        for client in [client, first] {
            simulation.run(Step::Go(client));
        }
        simulation.run(Step::Pass(3000));
        simulation.world.borrow_mut().usage = then;
        hands_over(&mut simulation, client, first);
        simulation.run(Step::Pass(1000));
        simulation.world.borrow_mut().usage = now;
        each_tries(&mut simulation, [client, second]);
        simulation.run(Step::Pass(3000));
        hands_over(&mut simulation, first, client);
        simulation.run(Step::Go(client));
        simulation.run(Step::Go(client));
        assert_eq!(simulation.clients[client].held.is_some(), has_slice, "{then:?} {now:?}");
        simulation.run(Step::Wait(second, 1));
        simulation.end();
    }
}

/// A client in a tight loop writes to two databases. It has got the first lock from its place in the queue, and waits for the
/// second, longer than a slice lasts, while others wait for the first. It has its whole slice of the first when it has both.
/// Otherwise it would wait for both each time. If it waits for the second once more in that slice, the slice is over.
#[test]
fn a_wait_for_another_database_is_no_part_of_a_slice() {
    let mut simulation = Simulation::new();
    let [holder, client, other] = [0, CLIENTS, 2 * CLIENTS];
    simulation.run(Step::Go(client));
    simulation.run(Step::Go(client));
    each_tries(&mut simulation, [holder, client, other]);
    simulation.run(Step::Pass(3000));
    hands_over(&mut simulation, holder, client);
    let wait_elsewhere = |simulation: &mut Simulation| {
        let label = 1;
        simulation.queue(client).expect("it lives").show_label(label);
        simulation.run(Step::Pass(5000));
        simulation.queue(client).expect("it lives").hide_label(label);
    };
    wait_elsewhere(&mut simulation);
    for _ in 0..3 {
        simulation.run(Step::Go(client));
        simulation.run(Step::Go(client));
        assert!(simulation.clients[client].held.is_some(), "it is in its slice");
    }
    wait_elsewhere(&mut simulation);
    simulation.run(Step::Go(client));
    simulation.run(Step::Go(client));
    assert!(simulation.clients[client].held.is_none(), "it is the other's turn");
    simulation.run(Step::Wait(other, 1));
    assert!(simulation.clients[other].held.is_some(), "it is its turn");
    simulation.end();
}

/// The second database of the same client: the client comes back to it late, since it has waited for the first. It is in a
/// tight loop nevertheless, and has a slice. A client that was idle meanwhile gives the turn to the next.
#[test]
fn a_wait_for_another_database_is_no_pause() {
    for waited_elsewhere in [true, false] {
        let mut simulation = Simulation::new();
        let [holder, client, other] = [0, CLIENTS, 2 * CLIENTS];
        simulation.run(Step::Go(client));
        simulation.run(Step::Go(client));
        let came = simulation.now();
        simulation.run(Step::Pass(20_000));
        each_tries(&mut simulation, [holder, client, other]);
        let place = simulation.clients[client].place.as_mut().expect("it waits");
        place.came_with(waited_elsewhere.then_some(came));
        simulation.run(Step::Pass(3000));
        simulation.run(Step::Go(holder));
        simulation.run(Step::Wait(client, 1));
        simulation.run(Step::Go(client));
        simulation.run(Step::Go(client));
        assert_eq!(simulation.clients[client].held.is_some(), waited_elsewhere);
        if waited_elsewhere {
            simulation.run(Step::Go(client));
        }
        simulation.end();
    }
}

/// Without waiters a write transaction costs two system calls, however long it takes. After a turn,
/// transactions cost two again as soon as one of them has seen that nobody waits.
#[test]
fn a_transaction_that_nobody_waits_for_costs_two_calls() {
    let mut simulation = Simulation::new();
    let calls = |simulation: &mut Simulation| {
        let before = simulation.world.borrow().calls;
        simulation.run(Step::Go(0));
        simulation.run(Step::Pass(1500));
        simulation.run(Step::Go(0));
        simulation.run(Step::Pass(1500));
        simulation.world.borrow().calls - before
    };
    assert_eq!([0; 5].map(|_| calls(&mut simulation)), [2; 5]);
    simulation.run(Step::Go(0));
    simulation.run(Step::Go(CLIENTS));
    simulation.run(Step::Pass(3000));
    simulation.run(Step::Go(0));
    assert!(simulation.giver.is_some(), "a turn is given");
    simulation.run(Step::Leave(CLIENTS));
    // The first transaction reads the page before it takes the lock, and again before it releases it.
    assert_eq!([0; 5].map(|_| calls(&mut simulation)), [4, 2, 2, 2, 2]);
}

/// A waiter that would overtake another leaves the lock to that one and gives it the turn. A process that has seen nobody
/// wait does not know of that turn, and overtakes once, as it may.
#[test]
fn a_waiter_that_would_overtake_gives_the_turn_instead() {
    use Step::{Go, Pass};
    let mut simulation = Simulation::new();
    for step in [Go(1), Go(2), Go(1), Pass(2200), Go(1), Go(3), Go(1), Go(3)] {
        simulation.run(step);
    }
    assert!(simulation.clients[3].held.is_none());
    let turn = Page::of(&simulation.world.borrow().kernel.page).turn().map(|turn| turn.ticket);
    assert_eq!(turn, simulation.clients[2].place.map(|place| place.ticket));
    simulation.run(Go(0));
    assert!(simulation.clients[0].held.is_some());
    simulation.end();
}

/// The holder is killed while two wait, and the first of them is stopped. So nobody releases the lock, and the stopped head
/// does not look whether it is free. The other waiter looks itself.
#[test]
fn a_waiter_behind_a_stopped_head_looks_for_itself() {
    let mut simulation = Simulation::new();
    for step in [Step::Go(0), Step::Go(2), Step::Go(4), Step::Kill(0)] {
        simulation.run(step);
    }
    // The process gives the first waiter its turn, which expires.
    for _ in 0..3 {
        simulation.run(Step::Wait(4, 60_000));
    }
    assert!(simulation.clients[4].held.is_some());
}

#[test]
fn a_turn_costs_no_more_than_a_round() {
    const { assert!(TURN_NS < 60_000_000, "the end waits for one turn in each round") };
}

/// Two processes write in tight loops, and the clock of one of them, or of both, stands still. Each
/// waits for the other for one slice at most: if no clock ends the slice, the number of
/// transactions does.
#[test]
fn a_clock_that_stands_still_ends_no_slice_too_late() {
    let still = Clock::StandsStill(1 << 40);
    let [first, second] = [0, CLIENTS];
    for clocks in [[still, Clock::Ahead(0), still], [Clock::Ahead(0), still, still], [still; 3]] {
        let mut simulation = Simulation::with_clocks(clocks);
        let mut held = [0_u32; 2];
        for _ in 0..20_000 {
            for (nth, client) in [first, second].into_iter().enumerate() {
                if simulation.clients[client].place.is_some() {
                    simulation.run(Step::Wait(client, 20));
                } else {
                    simulation.run(Step::Go(client));
                }
                if simulation.clients[client].held.is_none() {
                    continue;
                }
                simulation.run(Step::Pass(10));
                simulation.run(Step::Go(client));
                held[nth] += 1;
            }
        }
        let [a, b] = held;
        assert!(a.min(b) * 4 > a.max(b), "{clocks:?}: {held:?}");
        simulation.end();
    }
}

/// A stranger sets the counter to any number. As soon as one waiter has seen that, all waiters are
/// served before later clients.
#[test]
fn a_forged_counter_puts_no_newcomer_before_waiters() {
    let [holder, waiter, late] = [0, CLIENTS, 2 * CLIENTS];
    for lie in [0, 1, 1 << 16, 1 << 30, (1 << 31) - 1, 1 << 31, (1 << 31) + 2, u32::MAX] {
        let mut simulation = Simulation::new();
        for step in [Step::Go(holder), Step::Go(waiter), Step::Pass(3000)] {
            simulation.run(step);
        }
        let came = simulation.clients[waiter].place.expect("it waits").ticket.0;
        let (at, bytes) = encode_counter(Ticket(came.wrapping_add(lie)));
        simulation.world.borrow_mut().kernel.page[at as usize..][..4].copy_from_slice(&bytes);
        for step in [Step::Wait(waiter, 1), Step::Go(late), Step::Pass(3000), Step::Go(holder)] {
            simulation.run(step);
        }
        for client in [late, waiter] {
            simulation.run(Step::Wait(client, 1));
        }
        assert!(simulation.clients[waiter].held.is_some(), "it came first: {lie}");
        simulation.end();
    }
}

/// Clients come one after the other while the counter wraps.
#[test]
fn the_order_outlasts_the_greatest_ticket() {
    let mut simulation = Simulation::new();
    let (at, bytes) = encode_counter(Ticket(u32::MAX - 2));
    simulation.world.borrow_mut().kernel.page[at as usize..][..4].copy_from_slice(&bytes);
    for client in 0..ALL {
        simulation.run(Step::Go(client));
    }
    for client in 0..ALL {
        simulation.run(Step::Pass(3000));
        simulation.run(Step::Go(client));
        for waiter in client + 1..ALL {
            simulation.run(Step::Wait(waiter, 1));
            assert_eq!(simulation.clients[waiter].held.is_some(), waiter == client + 1);
        }
    }
    simulation.end();
}

/// A waiter was refused in its turn, and its connection gave up, which no call showed. The next clients do not wait for it:
/// they get the lock at once.
#[test]
fn a_waiter_that_was_refused_keeps_nobody_out() {
    let [holder, sibling, waiter, newcomer] = [0, 1, CLIENTS, 2 * CLIENTS];
    let mut simulation = Simulation::new();
    simulation.run(Step::Go(holder));
    simulation.run(Step::Go(waiter));
    simulation.run(Step::Pass(3000));
    simulation.run(Step::Go(waiter));
    simulation.run(Step::Go(holder));
    assert_eq!(simulation.giver, None, "it is not there to take a turn");
    for client in [newcomer, sibling, holder] {
        simulation.run(Step::Go(client));
        assert!(simulation.clients[client].held.is_some(), "nobody has the lock, and nobody waits");
        simulation.run(Step::Go(client));
    }
    simulation.run(Step::Wait(waiter, 1));
    assert!(simulation.clients[waiter].held.is_some(), "it sleeps again, and is the first");
    simulation.end();
}

/// The last sleep of a wait is not cut short for a turn in which another may still take the lock: a
/// holder in its slice comes back at once and does not look at the page.
#[test]
fn the_last_sleep_ends_for_a_lock_that_is_left_to_it() {
    let [holder, waiter, other] = [0, CLIENTS, 2 * CLIENTS];
    let mut simulation = Simulation::new();
    for step in [Step::Go(holder), Step::Go(waiter), Step::Pass(3000)] {
        simulation.run(step);
    }
    let mut place = simulation.clients[waiter].place.expect("it waits");
    // It is the waiter's turn, and another process has the lock.
    simulation.run(Step::Go(holder));
    let range = Holder::since(simulation.now(), Purpose::Write).range();
    assert!(simulation.world.borrow_mut().kernel.lock(other, range, false));
    let wait = |simulation: &Simulation, place: &mut Place, us| {
        let queue = simulation.queue(waiter).expect("it lives");
        queue.wait(place, Duration::from_micros(us), Until::Turn).is_some()
    };
    assert!(!wait(&simulation, &mut place, 2000), "another has taken the lock");
    simulation.world.borrow_mut().kernel.unlock(other, WRITE_RANGE);
    let free_since = simulation.now();
    assert!(wait(&simulation, &mut place, 2000), "it is left to it");
    assert!(simulation.now() - free_since >= 100_000, "that other might have come back");
}

/// A waiter sleeps while nobody wakes it, and comes when it is woken. In its last sleep it comes only for its turn,
/// and for each turn once.
#[test]
fn a_waiter_comes_when_it_is_woken_and_not_before() {
    let mut simulation = Simulation::new();
    for step in [Step::Go(0), Step::Go(CLIENTS)] {
        simulation.run(step);
    }
    let mut place = simulation.clients[CLIENTS].place.expect("it waits");
    let wait = |simulation: &Simulation, place: &mut Place, until| {
        let queue = simulation.queue(CLIENTS).expect("it lives");
        queue.wait(place, Duration::from_millis(1), until).is_some()
    };
    assert!(!wait(&simulation, &mut place, Until::Sign), "nobody wakes it");
    simulation.world.borrow_mut().kernel.page[slot_offset(place.slot)] += 1;
    assert!(!wait(&simulation, &mut place, Until::Turn), "that is no turn");
    simulation.world.borrow_mut().kernel.page[slot_offset(place.slot)] += 1;
    assert!(wait(&simulation, &mut place, Until::Sign), "that is a sign");

    simulation.run(Step::Pass(3000));
    simulation.run(Step::Go(0));
    assert!(wait(&simulation, &mut place, Until::Turn), "it is its turn");
    assert!(!wait(&simulation, &mut place, Until::Turn), "it has come for that");
}

/// Schedules that the property test found. A client that gave a turn comes from the queue into a
/// slice of its own; or tries from the queue in vain and comes back as a newcomer; or goes on after
/// it has given a turn.
#[test]
fn a_giver_has_no_slice_left_until_it_comes_again() {
    use Step::{Go, Leave, Pass, Wait};
    let came_again = vec![
        Go(5),
        Go(1),
        Go(0),
        Wait(0, 917),
        Wait(0, 1108),
        Go(5),
        Go(4),
        Wait(0, 1),
        Go(1),
        Go(0),
        Go(4),
        Go(3),
        Pass(2023),
        Go(1),
        Go(4),
        Go(1),
        Go(3),
        Go(4),
        Wait(1, 1),
        Wait(3, 1),
        Wait(3, 1),
        Go(1),
        Go(1),
    ];
    let gave = vec![
        Go(4),
        Go(3),
        Go(2),
        Go(1),
        Pass(2024),
        Go(3),
        Go(4),
        Go(4),
        Pass(1371),
        Wait(2, 1),
        Wait(3, 652),
        Go(2),
        Go(1),
        Go(3),
        Go(3),
        Go(1),
        Wait(4, 1),
        Go(1),
        Go(3),
        Wait(4, 1),
        Go(3),
        Go(3),
    ];
    let newcomer = vec![
        Go(3),
        Go(1),
        Go(2),
        Pass(2027),
        Go(1),
        Go(3),
        Wait(1, 1),
        Go(0),
        Go(4),
        Go(1),
        Go(4),
        Go(1),
        Pass(841),
        Go(0),
        Leave(4),
        Pass(1132),
        Leave(2),
        Go(4),
        Go(4),
        Go(5),
        Wait(0, 44),
        Go(5),
        Go(4),
    ];
    let left = vec![
        Go(3),
        Go(5),
        Go(1),
        Go(3),
        Go(4),
        Go(0),
        Go(4),
        Go(3),
        Go(0),
        Go(2),
        Go(3),
        Wait(5, 1),
        Wait(0, 1300),
        Go(2),
        Leave(2),
        Go(1),
        Go(5),
        Go(2),
        Go(2),
        Go(2),
        Wait(1, 709),
        Go(4),
        Go(2),
        Go(4),
        Go(2),
    ];
    for steps in [came_again, gave, newcomer, left] {
        run(steps);
    }
}

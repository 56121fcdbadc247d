use super::super::page::{TURN_NS, slot_offset};
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

fn run(steps: Vec<Step>) {
    let mut simulation = Simulation::new();
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

    /// Clients in tight loops come back at once, and one came before them. They overtake it for no longer than
    /// newcomers may, plus a slice of the holder, plus what a holder that has seen nobody takes to look again.
    #[test]
    fn overtaking_is_bounded(
        holds in prop::collection::vec(10..800_u16, 1..20),
        naps in prop::collection::vec(20..200_u16, 1..20),
    ) {
        // 2 ms of patience, a slice of at most 4 ms, 2 ms until a holder looks that has seen nobody wait, and a
        // round of naps and holds.
        const BOUND: u64 = 2_000_000 + 4_000_000 + 2_000_000 + ALL as u64 * 1_000_000;
        let mut simulation = Simulation::new();
        let mut longest = 0;
        for turn in 0..600 {
            let client = turn % ALL;
            if simulation.clients[client].held.is_some() {
                simulation.run(Step::Pass(holds[turn % holds.len()]));
                simulation.run(Step::Go(client));
                // It is in a tight loop: again, at once.
                simulation.run(Step::Go(client));
            } else if simulation.clients[client].place.is_some() {
                simulation.run(Step::Wait(client, naps[turn % naps.len()]));
            } else {
                simulation.run(Step::Go(client));
            }
            let now = simulation.now();
            let oldest = simulation.clients.iter().filter_map(|c| c.place.map(|p| p.ticket)).min();
            longest = longest.max(oldest.map_or(0, |ticket| now.saturating_sub(ticket)));
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

/// A client has the lock from its place in the queue and gives the next the turn, since it is not known to be in a
/// tight loop. Then it wants the lock again at once. Its slice is over all the same.
#[test]
fn a_holder_that_gives_the_turn_has_no_slice_left() {
    let mut simulation = Simulation::new();
    let [holder, first, second] = [0, CLIENTS, 2 * CLIENTS];
    for client in [holder, first, second] {
        simulation.run(Step::Go(client));
        simulation.run(Step::Pass(10));
    }
    simulation.run(Step::Pass(3000));
    simulation.run(Step::Go(holder));
    simulation.run(Step::Wait(first, 1));
    assert!(simulation.clients[first].held.is_some(), "it is its turn");
    simulation.run(Step::Go(first));
    simulation.run(Step::Go(first));
    assert!(simulation.clients[first].held.is_none(), "it is the second's turn");
    simulation.run(Step::Wait(second, 1));
    assert!(simulation.clients[second].held.is_some(), "it is its turn");
    simulation.end();
}

/// Without waiters a write transaction costs two system calls, however long it takes. Transactions that follow a
/// turn cost two as soon as one of them has seen that nobody waits any more.
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
    // The first reads the page before it takes the lock, and again before it releases it.
    assert_eq!([0; 5].map(|_| calls(&mut simulation)), [4, 2, 2, 2, 2]);
}

/// A waiter that would overtake another leaves it the lock and gives it the turn. A process that has seen nobody
/// wait does not know of that turn, and overtakes once, as it may.
#[test]
fn a_waiter_that_would_overtake_gives_the_turn_instead() {
    use Step::{Go, Pass};
    let mut simulation = Simulation::new();
    for step in [Go(1), Go(2), Go(1), Pass(2000), Go(1), Go(3), Go(1), Go(3)] {
        simulation.run(step);
    }
    assert!(simulation.clients[3].held.is_none());
    let turn = Page(simulation.world.borrow().kernel.page).turn().map(|turn| turn.ticket);
    assert_eq!(turn, simulation.clients[2].place.map(|place| place.ticket));
    simulation.run(Go(0));
    assert!(simulation.clients[0].held.is_some());
    simulation.end();
}

/// The holder is killed while two wait, of which the first is stopped. Nobody releases the lock, and the head does
/// not look whether it is free. The other waiter looks for itself.
#[test]
fn a_waiter_behind_a_stopped_head_looks_for_itself() {
    let mut simulation = Simulation::new();
    for step in [Step::Go(0), Step::Go(2), Step::Go(4), Step::Kill(0)] {
        simulation.run(step);
    }
    // It gives the first one its turn, which passes.
    for _ in 0..3 {
        simulation.run(Step::Wait(4, 60_000));
    }
    assert!(simulation.clients[4].held.is_some());
}

#[test]
fn a_turn_costs_no_more_than_a_round() {
    const { assert!(TURN_NS < 60_000_000, "the end waits for one turn in each round") };
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
        queue.wait(place, Duration::from_millis(1), until)
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

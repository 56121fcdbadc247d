//! The queue in simulated time, one call after the other: processes with several clients each, in an
//! order that a fuzzer or a property test chooses, on an honest or a hostile page.
//!
//! Unlike in `model.rs`, every call runs to its end before the next, so that after each of them it is
//! known who waits since when, and it can be said who may have the lock and who must not be refused it.

use std::cell::{RefCell, RefMut};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::holder::{WAITERS_BYTE, WRITE_RANGE};
use super::kernel::Kernel;
use super::page::{PAGE, Page, State, Turn};
use super::queue::{Pace, Place, Purpose, Queue, QueueFile, Taken, Until};
use crate::sys::Range;

/// How long newcomers may overtake the first waiter, in ns.
const PATIENCE_NS: u64 = 2_000_000;
/// Processes, and clients of each.
const PROCESSES: usize = 3;
const CLIENTS: usize = 2;

/// A process's view of the sidecar.
struct Process {
    id: usize,
    world: Rc<RefCell<World>>,
}

struct World {
    kernel: Kernel,
    /// How much of the page is there: what is cut off can not be read.
    len: usize,
    /// System calls so far.
    calls: usize,
}

impl Process {
    /// A system call.
    fn call(&self) -> RefMut<'_, World> {
        let mut world = self.world.borrow_mut();
        world.calls += 1;
        world
    }
}

impl QueueFile for Process {
    fn read(&self) -> io::Result<Page> {
        let mut world = self.call();
        world.kernel.clock += 1000;
        if world.len < PAGE {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Page(world.kernel.page))
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let (mut world, at) = (self.call(), at as usize);
        world.kernel.page[at..at + bytes.len()].copy_from_slice(bytes);
        world.len = world.len.max(at + bytes.len());
        Ok(())
    }

    fn try_lock(&self, range: Range, shared: bool) -> io::Result<bool> {
        Ok(self.call().kernel.lock(self.id, range, shared))
    }

    fn unlock(&self, range: Range) -> io::Result<()> {
        self.call().kernel.unlock(self.id, range);
        Ok(())
    }

    fn conflicting(&self, range: Range) -> io::Result<Option<Range>> {
        Ok(self.call().kernel.conflicting(self.id, range, false))
    }

    fn wait(&self, slot: usize, word: u32, limit: Duration) -> bool {
        let mut world = self.world.borrow_mut();
        if Page(world.kernel.page).word(slot) != word {
            return true;
        }
        world.kernel.clock += limit.as_nanos() as u64;
        false
    }

    fn wake(&self, _: usize) {}

    fn sleep(&self, duration: Duration) {
        self.world.borrow_mut().kernel.clock += duration.as_nanos() as u64;
    }

    fn now(&self) -> u64 {
        self.world.borrow().kernel.clock
    }

    fn process(&self) -> (u32, [u8; 12]) {
        (self.id as u32, *b"simulation\0\0")
    }
}

/// One connection.
#[derive(Default)]
struct Client {
    pace: Pace,
    place: Option<Place>,
    held: Option<Taken>,
    /// When it last gave the lock back, in ns.
    released: u64,
    /// When it last got the lock from its place in the queue, in ns.
    came: u64,
}

/// What happens next. Clients are numbered through all processes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// A client that has the lock gives it back; another tries for it.
    Go(usize),
    /// A client that waits sleeps so many microseconds, and tries if that was worth it.
    Wait(usize, u16),
    /// A client gives up.
    Leave(usize),
    /// A process is killed.
    Kill(usize),
    /// So many microseconds pass.
    Pass(u16),
    /// Somebody writes on the page.
    Write(u16, u8),
    /// Somebody cuts the sidecar short.
    Cut,
}

pub(super) struct Simulation {
    world: Rc<RefCell<World>>,
    /// `None` for a process that was killed.
    queues: Vec<Option<Queue<Process>>>,
    clients: Vec<Client>,
    /// Whether nobody but the queue writes on the page.
    honest: bool,
    /// Who gave the last turn.
    giver: Option<usize>,
}

impl Simulation {
    pub(super) fn new() -> Self {
        let world = World { kernel: Kernel::new(), len: PAGE, calls: 0 };
        let world = Rc::new(RefCell::new(world));
        let queue = |id| Some(Queue::new(Process { id, world: Rc::clone(&world) }, true));
        Self {
            queues: (0..PROCESSES).map(queue).collect(),
            clients: (0..PROCESSES * CLIENTS).map(|_| Client::default()).collect(),
            honest: true,
            giver: None,
            world,
        }
    }

    pub(super) fn run(&mut self, step: Step) {
        match step {
            Step::Go(client) => {
                let client = client % self.clients.len();
                if self.clients[client].held.is_some() {
                    self.release(client)
                } else {
                    self.go(client)
                }
            }
            Step::Wait(client, us) => self.wait(client % self.clients.len(), us),
            Step::Leave(client) => self.leave(client % self.clients.len()),
            Step::Kill(process) => {
                let process = process % PROCESSES;
                self.queues[process] = None;
                self.world.borrow_mut().kernel.kill(process);
                for client in &mut self.clients[process * CLIENTS..][..CLIENTS] {
                    *client = Client::default();
                }
            }
            Step::Pass(us) => self.world.borrow_mut().kernel.clock += u64::from(us) * 1000,
            Step::Write(at, byte) => {
                self.honest = false;
                self.world.borrow_mut().kernel.page[usize::from(at) % PAGE] = byte;
            }
            Step::Cut => {
                self.honest = false;
                self.world.borrow_mut().len = 0;
            }
        }
    }

    /// Everybody comes to an end: holders give the lock back, and whoever waits gets it.
    pub(super) fn end(&mut self) {
        /// Somebody who is stopped, or a page that lies, costs one turn each.
        const ROUNDS: usize = 8;
        for round in 0.. {
            let waiting = self.clients.iter().filter(|client| client.place.is_some()).count();
            for client in 0..self.clients.len() {
                if self.clients[client].held.is_some() {
                    self.release(client);
                }
                self.wait(client, 60_000);
                if self.clients[client].held.is_some() {
                    self.release(client);
                }
            }
            if waiting == 0 {
                break;
            }
            assert!(round < ROUNDS, "{waiting} are lost in the queue");
        }
        let world = self.world.borrow();
        let is_left = |(_, range, _): &&(usize, Range, bool)| range.start >= WRITE_RANGE.start - 1;
        let left = world.kernel.locks.iter().find(is_left);
        assert!(left.is_none(), "{left:?} is still locked");
        drop(world);
        let left = self.queues.iter().flatten().next().map(Queue::waiters).unwrap_or_default();
        assert!(!self.honest || left.is_empty(), "{left:?} are still on the page");
    }

    fn queue(&self, client: usize) -> Option<&Queue<Process>> {
        self.queues[client / CLIENTS].as_ref()
    }

    fn now(&self) -> u64 {
        self.world.borrow().kernel.clock
    }

    /// Tries for the lock, and joins the queue if that is in vain.
    fn go(&mut self, client: usize) {
        let process = client / CLIENTS;
        let Some(queue) = &self.queues[process] else { return };
        let siblings = process * CLIENTS..(process + 1) * CLIENTS;
        let is_siblings = siblings.into_iter().any(|other| self.clients[other].held.is_some());
        let now = self.now();
        let place = self.clients[client].place;
        let page = Page(self.world.borrow().kernel.page);
        // As `Database` does: connections of one process exclude each other by a flag.
        let taken = if is_siblings {
            None
        } else {
            let pace = &mut self.clients[client].pace;
            queue.try_acquire(now, Purpose::Write, place.as_ref(), pace).expect("no I/O")
        };
        self.note_giver(client, page.turn());
        let queue = self.queues[process].as_ref().expect("it lives");
        let Some(taken) = taken else {
            if self.honest && !is_siblings {
                self.check_refusal(client, now, &page);
            }
            if place.is_none() {
                self.clients[client].place = queue.join(now, Purpose::Write);
                if let Some(place) = self.clients[client].place {
                    queue.show(&place, State::Present);
                }
            }
            return;
        };
        let inside = self.world.borrow_mut().kernel.inside.replace(process);
        assert_eq!(inside, None, "two processes have the write lock");
        if self.honest {
            self.check_order(client, taken, now, &page);
        }
        if let Some(place) = self.clients[client].place.take() {
            queue.leave(&place);
            self.clients[client].came = now;
        }
        self.clients[client].held = Some(taken);
    }

    fn release(&mut self, client: usize) {
        let Some(taken) = self.clients[client].held.take() else { return };
        self.world.borrow_mut().kernel.inside = None;
        let Some(queue) = &self.queues[client / CLIENTS] else { return };
        let before = Page(self.world.borrow().kernel.page).turn();
        let pace = &mut self.clients[client].pace;
        queue.release(taken, Some(pace), || {}).expect("no I/O");
        self.clients[client].released = self.now();
        self.note_giver(client, before);
    }

    /// Whoever gives the lock back may give a turn, also a waiter that would have overtaken another.
    fn note_giver(&mut self, client: usize, before: Option<Turn>) {
        if Page(self.world.borrow().kernel.page).turn() != before {
            self.giver = Some(client);
        }
    }

    fn wait(&mut self, client: usize, us: u16) {
        let Some(mut place) = self.clients[client].place else { return };
        let Some(queue) = self.queue(client) else { return };
        let limit = Duration::from_micros(us.into());
        let is_worth_trying = queue.wait(&mut place, limit, Until::Sign);
        self.clients[client].place = Some(place);
        if is_worth_trying {
            self.go(client);
        } else if self.honest {
            self.check_announcement(client);
        }
    }

    fn leave(&mut self, client: usize) {
        let Some(place) = self.clients[client].place.take() else { return };
        if let Some(queue) = self.queue(client) {
            queue.leave(&place);
        }
    }

    /// Those that live and came before a client. A newcomer comes at `now`.
    fn earlier(&self, client: usize, now: u64) -> Vec<Place> {
        let came = self.clients[client].place.map_or(now, |place| place.ticket);
        let places = self.clients.iter().filter_map(|other| other.place);
        places.filter(|place| place.ticket < came).collect()
    }

    /// It slept to the end. "It takes a slot, writes its ticket, locks byte 8191 shared, and sleeps", but
    /// "byte 8191 can not be locked by waiters while a holder has it".
    fn check_announcement(&self, client: usize) {
        let world = self.world.borrow();
        let mut waiters = world.kernel.locks.iter().filter(|(_, range, _)| {
            range.start <= WAITERS_BYTE
                && (range.len == 0 || WAITERS_BYTE < range.start + range.len)
        });
        let is_known = waiters.any(|(process, _, shared)| *process == client / CLIENTS || !*shared);
        assert!(is_known, "client {client} tells nobody that it waits");
    }

    /// It was refused by the page as it was: somebody has the lock, somebody who lives and came earlier
    /// has the turn, or it waits and "one that came before it has waited 2 ms".
    fn check_refusal(&self, client: usize, now: u64, page: &Page) {
        let is_held = self.world.borrow().kernel.inside.is_some();
        let turn = page.turn().filter(|turn| turn.binds(now));
        let waits = self.clients[client].place.is_some();
        let comes_first = self.earlier(client, now).iter().any(|place| {
            let is_overdue = waits && now - place.ticket >= PATIENCE_NS;
            is_overdue || turn.is_some_and(|turn| is_for(turn, place))
        });
        assert!(is_held || comes_first, "client {client} is refused a lock that is nobody's");
    }

    /// It has the lock, by the page as it was. What is quoted is from docs/locking-protocol.md.
    fn check_order(&self, client: usize, taken: Taken, now: u64, page: &Page) {
        let Client { place, released, came, .. } = self.clients[client];
        let earlier = self.earlier(client, now);
        // "A waiter that finds the lock free while one that came before it sleeps and has waited 2 ms
        // gives it back, and the other the turn."
        let overtaken = earlier.iter().find(|earlier| {
            let sleeps = page.waiter(earlier.slot).is_some_and(|it| it.state == State::Present);
            place.is_some() && sleeps && now - earlier.ticket >= PATIENCE_NS
        });
        assert_eq!(overtaken, None, "client {client} overtakes from its place");
        // "All who came later are refused until it has the lock, or 50 ms have passed."
        let turn = page.turn().filter(|turn| turn.binds(now));
        let passed_over = earlier.iter().find(|place| turn.is_some_and(|turn| is_for(turn, place)));
        if passed_over.is_none() {
            return;
        }
        // "Who finds byte 8191 free does not look at the page, [...] but for the process that gave the
        // turn."
        let gave_it = self.giver.is_some_and(|giver| giver / CLIENTS == client / CLIENTS);
        let was_not_told = taken == Taken::Alone && !gave_it;
        // "A holder in a tight loop wakes nobody within its slice [...] and goes on, also in a turn that
        // another has given meanwhile."
        let is_in_tight_loop = now - released < 100_000 && place.is_none();
        let is_in_slice = is_in_tight_loop && now - came < 4_000_000 && self.giver != Some(client);
        assert!(
            was_not_told || is_in_slice,
            "client {client} takes the lock in another's turn: {passed_over:?}"
        );
    }
}

fn is_for(turn: Turn, place: &Place) -> bool {
    (turn.slot, turn.ticket) == (place.slot, place.ticket)
}

/// Clients take turns by a script on a page that begins as `page` says and is written to meanwhile.
///
/// # Panics
/// If two have the write lock, or one waits for ever.
#[cfg(feature = "fuzzing")]
pub fn hostile_page(page: &[u8], script: &[u8]) {
    let mut simulation = Simulation::new();
    simulation.honest = false;
    {
        let mut world = simulation.world.borrow_mut();
        let n = page.len().min(PAGE);
        world.kernel.page[..n].copy_from_slice(&page[..n]);
        // A page can name any time. Let some of them be near.
        world.kernel.clock = 1 << 40;
    }
    for step in script.chunks_exact(4) {
        let [what, which, low, high] = [step[0], step[1], step[2], step[3]];
        let (which, number) = (usize::from(which), u16::from_le_bytes([low, high]));
        simulation.run(match what % 16 {
            0..=5 => Step::Go(which),
            6..=10 => Step::Wait(which, number),
            11 => Step::Leave(which),
            12 => Step::Kill(which),
            13 => Step::Pass(number),
            14 => Step::Write(number, step[1]),
            _ => Step::Cut,
        });
    }
    simulation.end();
}

#[cfg(test)]
mod tests {
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

        /// Clients of several processes come, wait, hold, give up, in whatever order: nobody gets the
        /// lock in another's turn, nobody is refused it for nobody, and in the end all have had it.
        #[test]
        fn who_came_first_has_the_turn_and_nobody_is_lost(
            steps in prop::collection::vec(step(), 0..120)
        ) {
            run(steps);
        }

        /// Processes are killed at any moment, waiting, holding, or with the turn just given to them:
        /// nobody is refused the lock for their sake, and all others have had it in the end.
        #[test]
        fn who_is_killed_holds_nobody_up(steps in prop::collection::vec(step_or_kill(), 0..120)) {
            run(steps);
        }

        /// Somebody else writes on the page, or cuts it short, all the while: one holder at a time, and
        /// once that is over, all have had the lock.
        #[test]
        fn a_hostile_page_lets_nobody_in_and_keeps_nobody_out(
            steps in prop::collection::vec(step_or_harm(), 0..120)
        ) {
            run(steps);
        }

        /// Clients in tight loops, who come back at once, and one that came before them: they overtake
        /// it for as long as it can be passed over, a slice of the holder's, and what a holder that has
        /// seen nobody takes to look again.
        #[test]
        fn overtaking_is_bounded(
            holds in prop::collection::vec(10..800_u16, 1..20),
            naps in prop::collection::vec(20..200_u16, 1..20),
        ) {
            // 2 ms of patience, a slice of at most 4, 2 until a holder looks that has seen nobody wait,
            // and a round of naps and holds.
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
            // Each waits for those before it, too.
            prop_assert!(longest <= ALL as u64 * BOUND, "{} ms", longest / 1_000_000);
            simulation.end();
        }
    }

    /// A holder was alone when it took the lock, so that whoever came meanwhile could not say that he
    /// waits. It gives him the turn, and so does not take the lock once more before him, though byte
    /// 8191 is free. Nor does another client of its process.
    #[test]
    fn who_gives_the_turn_leaves_the_lock_to_it() {
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

    /// A client has the lock from its place in the queue and gives the next the turn, since it is not
    /// known to be in a tight loop. It wants the lock again at once: its slice is over all the same.
    #[test]
    fn who_gives_the_turn_has_no_slice_left() {
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

    /// Without waiters, a write transaction costs two calls, however long it takes; those that follow a
    /// turn do so as soon as one of them has seen that nobody waits any more.
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
        // It reads the page before it takes the lock, and before it gives it back.
        assert_eq!([0; 5].map(|_| calls(&mut simulation)), [4, 2, 2, 2, 2]);
    }

    /// A waiter that would overtake another leaves him the lock and gives him the turn. A process that has
    /// seen nobody wait does not know of that turn, and overtakes him, as it may, once.
    #[test]
    fn a_turn_may_be_given_by_one_that_does_not_get_the_lock() {
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

    /// The holder is killed while two wait, the first of them stopped: nobody gives the lock back, and
    /// nobody looks whether it is free. The other one looks for itself.
    #[test]
    fn whoever_is_behind_one_that_is_stopped_looks_too() {
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

    /// A waiter sleeps while nobody wakes it, comes for a sign, and in its last sleep for its turn alone, and for
    /// each turn once.
    #[test]
    fn a_waiter_comes_when_it_is_called_and_not_before() {
        let mut simulation = Simulation::new();
        for step in [Step::Go(0), Step::Go(CLIENTS)] {
            simulation.run(step);
        }
        let mut place = simulation.clients[CLIENTS].place.expect("it waits");
        let wait = |simulation: &Simulation, place: &mut Place, until| {
            let queue = simulation.queue(CLIENTS).expect("it lives");
            queue.wait(place, Duration::from_millis(1), until)
        };
        assert!(!wait(&simulation, &mut place, Until::Sign), "nobody calls it");
        simulation.world.borrow_mut().kernel.page[slot_offset(place.slot)] += 1;
        assert!(!wait(&simulation, &mut place, Until::Turn), "that is no turn");
        simulation.world.borrow_mut().kernel.page[slot_offset(place.slot)] += 1;
        assert!(wait(&simulation, &mut place, Until::Sign), "that is a sign");

        simulation.run(Step::Pass(3000));
        simulation.run(Step::Go(0));
        assert!(wait(&simulation, &mut place, Until::Turn), "it is its turn");
        assert!(!wait(&simulation, &mut place, Until::Turn), "it has come for that");
    }
}

//! The queue in simulated time, one call after the other: processes with several clients each, in an
//! order that a fuzzer or a property test chooses, on an honest or a hostile page.
//!
//! Unlike in `model.rs`, every call runs to its end before the next, so that after each of them it is
//! known who waits since when, and it can be said who may have the lock and who must not be refused it.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::holder::WRITE_RANGE;
use super::kernel::Kernel;
use super::page::{PAGE, Page};
use super::queue::{Pace, Place, Purpose, Queue, Sidecar, Taken, Until};
use crate::sys::Range;

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
}

impl Sidecar for Process {
    fn read(&self) -> io::Result<Page> {
        let mut world = self.world.borrow_mut();
        world.kernel.clock += 1000;
        if world.len < PAGE {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Page(world.kernel.page))
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let (mut world, at) = (self.world.borrow_mut(), at as usize);
        world.kernel.page[at..at + bytes.len()].copy_from_slice(bytes);
        world.len = world.len.max(at + bytes.len());
        Ok(())
    }

    fn try_lock(&self, range: Range, shared: bool) -> io::Result<bool> {
        Ok(self.world.borrow_mut().kernel.lock(self.id, range, shared))
    }

    fn unlock(&self, range: Range) -> io::Result<()> {
        self.world.borrow_mut().kernel.unlock(self.id, range);
        Ok(())
    }

    fn conflicting(&self, range: Range) -> io::Result<Option<Range>> {
        Ok(self.world.borrow().kernel.conflicting(self.id, range, false))
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
    /// The process that gave the last turn.
    giver: usize,
}

impl Simulation {
    pub(super) fn new() -> Self {
        let world = World { kernel: Kernel::new(), len: PAGE };
        let world = Rc::new(RefCell::new(world));
        let queue = |id| Some(Queue::new(Process { id, world: Rc::clone(&world) }, true));
        Self {
            queues: (0..PROCESSES).map(queue).collect(),
            clients: (0..PROCESSES * CLIENTS).map(|_| Client::default()).collect(),
            honest: true,
            giver: 0,
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
        // As `Database` does: connections of one process exclude each other by a flag.
        let taken = if is_siblings {
            None
        } else {
            let pace = &mut self.clients[client].pace;
            queue.try_acquire(now, place.as_ref(), pace).expect("no I/O")
        };
        let queue = self.queues[process].as_ref().expect("it lives");
        let Some(taken) = taken else {
            if self.honest && !is_siblings {
                self.check_refusal(client, now);
            }
            if place.is_none() {
                self.clients[client].place = queue.join(now, Purpose::Write);
                if let Some(place) = self.clients[client].place {
                    queue.show(&place, super::page::State::Present);
                }
            }
            return;
        };
        let inside = self.world.borrow_mut().kernel.inside.replace(process);
        assert_eq!(inside, None, "two processes have the write lock");
        if self.honest {
            self.check_order(client, taken, now);
        }
        if let Some(place) = self.clients[client].place.take() {
            queue.leave(&place);
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
        if Page(self.world.borrow().kernel.page).turn() != before {
            self.giver = client / CLIENTS;
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
        }
    }

    fn leave(&mut self, client: usize) {
        let Some(place) = self.clients[client].place.take() else { return };
        if let Some(queue) = self.queue(client) {
            queue.leave(&place);
        }
    }

    /// Those that live and came before a client. A newcomer comes at `now`.
    fn earlier(&self, client: usize, now: u64) -> impl Iterator<Item = Place> {
        let came = self.clients[client].place.map_or(now, |place| place.ticket);
        let places = self.clients.iter().filter_map(|other| other.place);
        places.filter(move |place| place.ticket < came)
    }

    /// It was refused: somebody has the lock, or somebody who lives came earlier.
    fn check_refusal(&self, client: usize, now: u64) {
        let is_held = self.world.borrow().kernel.inside.is_some();
        let is_later = self.earlier(client, now).next().is_some();
        assert!(is_held || is_later, "client {client} is refused a lock that nobody has or is due");
    }

    /// It has the lock: nobody who lives and came earlier has the turn. Two may overtake all the same,
    /// once: a client within its slice, and one that comes from a process that was not told that
    /// anybody waits.
    fn check_order(&self, client: usize, taken: Taken, now: u64) {
        let comes_back = now - self.clients[client].released < 100_000;
        let is_told = taken == Taken::Contended || self.giver == client / CLIENTS;
        if comes_back || !is_told {
            return;
        }
        let turn = Page(self.world.borrow().kernel.page).turn().filter(|turn| turn.binds(now));
        let is_passed_over = |earlier: &Place| {
            turn.is_some_and(|turn| (turn.slot, turn.ticket) == (earlier.slot, earlier.ticket))
        };
        let passed_over = self.earlier(client, now).find(is_passed_over);
        assert_eq!(passed_over, None, "client {client} takes the lock in another's turn");
    }
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
    use super::super::page::TURN_NS;
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

    #[test]
    fn a_turn_costs_no_more_than_a_round() {
        const { assert!(TURN_NS < 60_000_000, "the end waits for one turn in each round") };
    }
}
